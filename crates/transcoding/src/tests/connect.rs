//! The Connect protocol: calls of one message, as its clients make them.

use base64::{Engine, prelude::BASE64_URL_SAFE};
use http_body_util::BodyExt;
use prost::Message;
use tower::ServiceExt;

use super::{request, send, thing_of, transcoder};

pub(super) const CONNECT: (&str, &str) = ("connect-protocol-version", "1");
pub(super) const JSON: (&str, &str) = ("content-type", "application/json");
pub(super) const PROTO: (&str, &str) = ("content-type", "application/proto");
pub(super) const METHOD: &str = "/transcoding.test.Things/Create";

/// The head and the bytes of a response.
pub(super) async fn ask(
    line: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> (http::response::Parts, bytes::Bytes) {
    let Ok(response) = transcoder().oneshot(request(line, headers, body)).await;
    let (head, body) = response.into_parts();
    let body = body.collect().await.expect("the body is whole").to_bytes();
    (head, body)
}

pub(super) fn header<'h>(head: &'h http::response::Parts, name: &str) -> Option<&'h str> {
    head.headers
        .get(name)
        .map(|value| value.to_str().expect("text"))
}

#[tokio::test]
async fn a_method_is_called_in_json_and_in_protobuf() {
    let json = r#"{"text": "x", "tags": ["a"]}"#;
    let wire = thing_of(json).encode_to_vec();
    let post = format!("POST {METHOD}");
    for content_type in ["application/json", "Application/JSON; charset=utf-8"] {
        for says_so in [true, false] {
            let mut headers = vec![("content-type", content_type)];
            headers.extend(says_so.then_some(CONNECT));
            let (head, body) = ask(&post, &headers, json.as_bytes()).await;
            assert_eq!(head.status, 200, "{content_type} {body:?}");
            assert_eq!(header(&head, "content-type"), Some("application/json"));
            let text = String::from_utf8(body.to_vec()).expect("text");
            assert_eq!(thing_of(&text), thing_of(json));
        }
    }
    for headers in [&[PROTO][..], &[PROTO, CONNECT]] {
        let (head, body) = ask(&post, headers, &wire).await;
        assert_eq!((head.status.as_u16(), &body[..]), (200, &wire[..]));
        assert_eq!(header(&head, "content-type"), Some("application/proto"));
    }
    // Nothing stands for a message of nothing.
    let (head, body) = ask(&post, &[JSON], b"").await;
    assert_eq!(head.status, 200, "{body:?}");
    let (head, body) = ask(&post, &[PROTO], b"").await;
    assert_eq!((head.status.as_u16(), &body[..]), (200, &b""[..]));
}

#[tokio::test]
async fn a_method_without_side_effects_is_read_by_get() {
    let wire = thing_of(r#"{"text": "x?"}"#).encode_to_vec();
    let base64 = BASE64_URL_SAFE.encode(&wire);
    let unpadded = base64.trim_end_matches('=');
    let json = "%7B%22text%22%3A%22x%3F%22%7D";
    let json64 = BASE64_URL_SAFE.encode(r#"{"text":"x?"}"#);
    let get = "GET /transcoding.test.Things/Get?";
    let cases = [
        (format!("connect=v1&encoding=json&message={json}"), "json"),
        (format!("message={json}&encoding=json"), "json"),
        (
            format!("encoding=json&message={json}&base64=0&other=1"),
            "json",
        ),
        (
            format!("encoding=json&base64=1&connect=v1&message={json64}"),
            "json",
        ),
        (
            format!("encoding=json&compression=identity&message={json}"),
            "json",
        ),
        (
            format!("connect=v1&base64=1&encoding=proto&message={base64}"),
            "proto",
        ),
        (
            format!("connect=v1&base64=1&encoding=proto&message={unpadded}"),
            "proto",
        ),
    ];
    for (query, format) in cases {
        let (head, body) = ask(&format!("{get}{query}"), &[], b"").await;
        assert_eq!(head.status, 200, "{query}: {body:?}");
        let content_type = format!("application/{format}");
        assert_eq!(header(&head, "content-type"), Some(content_type.as_str()));
        match format {
            "proto" => assert_eq!(body[..], wire[..], "{query}"),
            _ => assert!(body.starts_with(br#"{"text":"x?""#), "{query}: {body:?}"),
        }
    }
    let (head, body) = ask(
        &format!("{get}encoding=json&message=%7B%7D&connect=v1"),
        &[],
        b"",
    )
    .await;
    assert_eq!(head.status, 200, "{body:?}");
    let empty = ask(
        &format!("{get}encoding=proto&message=&connect=v1"),
        &[],
        b"",
    )
    .await;
    assert_eq!((empty.0.status.as_u16(), &empty.1[..]), (200, &b""[..]));
    let head = send(&format!("HEAD {}", &get[4..]), &[], "").await;
    assert_eq!((head.status, head.body.as_str()), (404, ""));
}

/// A request that is refused: the line, the headers, the body, then HTTP status, code and words.
type Refused<'a> = (
    &'a str,
    &'a [(&'a str, &'a str)],
    &'a str,
    u16,
    &'a str,
    &'a str,
);

#[tokio::test]
async fn what_is_wrong_is_told_as_the_protocol_tells_it() {
    let post = &format!("POST {METHOD}");
    let long = &"x".repeat(64 * 1024 + 1);
    let cases: &[Refused] = &[
        (
            post,
            &[JSON, CONNECT],
            "{",
            400,
            "invalid_argument",
            "not valid JSON",
        ),
        (post, &[JSON], r#"{"no": 1}"#, 400, "invalid_argument", "no"),
        (post, &[PROTO], long, 429, "resource_exhausted", "65536"),
        (
            post,
            &[JSON, ("connect-protocol-version", "2")],
            "{}",
            400,
            "invalid_argument",
            "Connect-Protocol-Version must be 1",
        ),
        (
            post,
            &[JSON, ("connect-timeout-ms", "5S")],
            "{}",
            400,
            "invalid_argument",
            "Connect-Timeout-Ms",
        ),
        (
            post,
            &[PROTO, ("connect-timeout-ms", "0")],
            "",
            504,
            "deadline_exceeded",
            "",
        ),
        (
            post,
            &[PROTO, ("content-encoding", "br")],
            "",
            501,
            "unimplemented",
            "br of the request body is not taken; one that is taken is identity",
        ),
        (
            post,
            &[("content-type", "application/xml"), CONNECT],
            "",
            415,
            "invalid_argument",
            "application/json or application/proto",
        ),
        (
            post,
            &[CONNECT],
            "",
            415,
            "invalid_argument",
            "application/json",
        ),
        (
            post,
            &[("content-type", "application/connect+json")],
            "",
            415,
            "invalid_argument",
            "application/json",
        ),
        (
            post,
            &[("content-type", "application/protobuf")],
            "",
            415,
            "invalid_argument",
            "application/proto",
        ),
        (
            "POST /transcoding.test.Things/Watch",
            &[JSON, CONNECT],
            "{}",
            415,
            "invalid_argument",
            "application/connect+json or application/connect+proto",
        ),
        (
            "POST /transcoding.test.Things/Nothing",
            &[JSON, CONNECT],
            "{}",
            501,
            "unimplemented",
            "/transcoding.test.Things/Nothing is not served",
        ),
        (
            "POST /transcoding.test.Nothing/Create",
            &[PROTO],
            "",
            501,
            "unimplemented",
            "is not served",
        ),
        (
            "PUT /transcoding.test.Things/Get",
            &[JSON, CONNECT],
            "{}",
            405,
            "unimplemented",
            "only POST",
        ),
        (
            "GET /transcoding.test.Things/Create?connect=v1&encoding=json&message={}",
            &[],
            "",
            405,
            "unimplemented",
            "only POST",
        ),
        (
            "GET /transcoding.test.Things/Get?connect=v1&encoding=xml&message=",
            &[],
            "",
            415,
            "invalid_argument",
            "json or proto",
        ),
        (
            "GET /transcoding.test.Things/Get?connect=v1&message=",
            &[],
            "",
            415,
            "invalid_argument",
            "json or proto",
        ),
        (
            "GET /transcoding.test.Things/Get?connect=v1&encoding=json",
            &[],
            "",
            400,
            "invalid_argument",
            "message: must be sent",
        ),
        (
            "GET /transcoding.test.Things/Get?connect=v2&encoding=json&message=",
            &[],
            "",
            400,
            "invalid_argument",
            "connect: must be v1",
        ),
        (
            "GET /transcoding.test.Things/Get?connect=v1&encoding=proto&base64=1&message=%25",
            &[],
            "",
            400,
            "invalid_argument",
            "base64",
        ),
        (
            "GET /transcoding.test.Things/Get?connect=v1&encoding=proto&message=%ff",
            &[],
            "",
            400,
            "invalid_argument",
            "UTF-8",
        ),
        (
            "GET /transcoding.test.Things/Get?connect=v1&encoding=proto&message=%f",
            &[],
            "",
            400,
            "invalid_argument",
            "'%'",
        ),
        (
            "GET /transcoding.test.Things/Get?connect=v1&encoding=json&compression=gzip&message=",
            &[],
            "",
            501,
            "unimplemented",
            "gzip",
        ),
    ];
    for (line, headers, body, status, code, words) in cases {
        let reply = send(line, headers, body).await;
        let json = reply.json();
        let told = (reply.status, &json["code"]);
        assert_eq!(
            told,
            (*status, &(*code).into()),
            "{line} {headers:?}: {json}"
        );
        let message = json["message"].as_str().expect("words");
        assert!(message.contains(words), "{line}: {message}");
        assert_eq!(reply.header("content-type"), Some("application/json"));
        let told = match status {
            405 => reply.header("allow"),
            415 => reply.header("accept-post"),
            _ => continue,
        };
        assert!(told.is_some(), "{line}");
    }
}

/// A request that does not say that it is Connect, and has an HTTP rule, is what it was.
#[tokio::test]
async fn other_requests_keep_their_form() {
    let line = "POST /transcoding.test.Things/WithoutRule";
    for (headers, code) in [
        (&[JSON][..], serde_json::Value::from(3)),
        (&[JSON, CONNECT], "invalid_argument".into()),
    ] {
        let reply = send(line, headers, "{").await;
        assert_eq!((reply.status, &reply.json()["code"]), (400, &code));
        let reply = send(line, headers, r#"{"text": "x"}"#).await;
        assert_eq!(reply.status, 200);
    }
    for (line, headers, status) in [
        ("POST /v1/things", &[JSON, CONNECT][..], 200),
        ("POST /v1/things", &[PROTO], 415),
        ("GET /v1/things/x?connect=v1", &[], 400),
        ("POST /v1/nothing", &[JSON], 404),
        ("PUT /transcoding.test.Things/Create", &[JSON], 404),
        (
            "POST /transcoding.test.Things/Create",
            &[("content-type", "text/plain")],
            404,
        ),
        ("GET /transcoding.test.Things/Get", &[], 404),
    ] {
        let reply = send(line, headers, r#"{"text": "x"}"#).await;
        assert_eq!(reply.status, status, "{line}: {}", reply.body);
        if status != 200 {
            assert!(reply.json()["code"].is_number(), "{line}: {}", reply.body);
        }
    }
}

#[tokio::test]
async fn every_code_has_its_name_and_http_status() {
    let expected = [
        (499, "canceled"),
        (500, "unknown"),
        (400, "invalid_argument"),
        (504, "deadline_exceeded"),
        (404, "not_found"),
        (409, "already_exists"),
        (403, "permission_denied"),
        (429, "resource_exhausted"),
        (400, "failed_precondition"),
        (409, "aborted"),
        (400, "out_of_range"),
        (501, "unimplemented"),
        (500, "internal"),
        (503, "unavailable"),
        (500, "data_loss"),
        (401, "unauthenticated"),
    ];
    for (code, (status, name)) in (1..).zip(expected) {
        let body = format!(
            "{{\"code\": {code}, \"message\": \"m\", \"inTrailers\": {}}}",
            code % 2 == 0
        );
        let reply = send(
            "POST /transcoding.test.Things/Fail",
            &[JSON, CONNECT],
            &body,
        )
        .await;
        assert_eq!(
            (reply.status, reply.json()),
            (status, serde_json::json!({"code": name, "message": "m"}))
        );
        assert_eq!(reply.header("retry-hint"), Some("later"));
        assert_eq!(reply.header("grpc-status"), None);
        let challenge = (code == 16).then_some("Bearer");
        assert_eq!(reply.header("www-authenticate"), challenge, "{name}");
    }
}

#[tokio::test]
async fn details_are_sent_encoded_and_shown() {
    let body = r#"{"code": 8, "message": "m", "unknownTypeUrl": "type.example/a.B", "unknownValue": "AQI=",
        "details": [
            {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "2.5s"},
            {"@type": "type.googleapis.com/transcoding.test.Thing", "text": "t"}
        ]}"#;
    let reply = send("POST /transcoding.test.Things/Fail", &[JSON, CONNECT], body).await;
    assert_eq!(reply.header("retry-after"), Some("3"), "{}", reply.body);
    let json = reply.json();
    assert_eq!(
        json["details"][0],
        serde_json::json!({"type": "google.rpc.RetryInfo", "value": "CggIAhCAyrXuAQ",
            "debug": {"retryDelay": "2.500s"}})
    );
    assert_eq!(json["details"][1]["type"], "transcoding.test.Thing");
    assert_eq!(json["details"][1]["value"], "CgF0");
    assert_eq!(json["details"][1]["debug"]["text"], "t");
    assert_eq!(
        json["details"][2],
        serde_json::json!({"type": "a.B", "value": "AQI"})
    );
}
