//! Routing, headers, replies and errors as an HTTP client and the service see them.

use std::sync::atomic::Ordering;

use http::Request;
use http_body_util::Full;
use tower::{Service, ServiceExt};

use super::{
    super::errors::{error_response, http_status},
    Inner, Peer, SERVICE, pool, request, send, send_request, transcoder,
};

#[tokio::test]
async fn large_bodies_are_refused_with_the_limit() {
    let large = "x".repeat(64 * 1024 + 1);
    for line in ["POST /v1/things", "GET /v1/query"] {
        let reply = send(line, &[], &large).await;
        let json = reply.json();
        assert_eq!((reply.status, &json["code"]), (413, &8.into()), "{line}");
        let message = json["message"].as_str().expect("a message");
        assert!(
            message.contains("larger than the limit of 65536 bytes"),
            "{message}"
        );
    }
}

#[tokio::test]
async fn a_body_of_unknown_length_is_limited_as_it_arrives() {
    for (pieces, status) in [(16, 400), (17, 413)] {
        // Spaces, which are no JSON but would be read for ever.
        let piece = bytes::Bytes::from(vec![b' '; 4096 - 1]);
        let mut frames = vec![http_body::Frame::data("[".into())];
        frames.extend((0..pieces).map(|_| http_body::Frame::data(piece.clone())));
        let request = Request::post("/v1/things")
            .body(super::Pieces(frames.into_iter()))
            .expect("a request");
        let Ok(response) = transcoder().oneshot(request).await;
        assert_eq!(response.status(), status, "{pieces} pieces");
    }
}

#[tokio::test]
async fn bodies_are_json_under_many_content_types() {
    for content_type in [
        "application/json",
        "application/json; charset=utf-8",
        "APPLICATION/JSON",
        "application/merge-patch+json",
        "application/x-www-form-urlencoded",
        "text/plain",
        "model/gltf+json",
    ] {
        let headers = [("content-type", content_type)];
        let reply = send("POST /v1/things", &headers, r#"{"text": "x"}"#).await;
        assert_eq!(reply.status, 200, "{content_type}: {}", reply.body);
    }
    // Where no body is sent its type does not matter.
    let headers = [("content-type", "text/html")];
    assert_eq!(send("GET /v1/things/x", &headers, "").await.status, 200);
}

#[tokio::test]
async fn head_and_options_answer_without_a_body() {
    let get = send("GET /v1/things/x", &[], "").await;
    let head = send("HEAD /v1/things/x", &[], "").await;
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    let length = get.body.len().to_string();
    assert_eq!(head.header("content-length"), Some(length.as_str()));
    assert_eq!(head.header("content-type"), Some("application/json"));

    // A GET with effects has no HEAD.
    let head = send("HEAD /v1/things/x:cancel", &[], "").await;
    assert_eq!((head.status, head.body.as_str()), (405, ""));
    assert_eq!(head.header("allow"), Some("GET, OPTIONS, POST"));

    let options = send("OPTIONS /v1/things/x", &[], "").await;
    assert_eq!((options.status, options.body.as_str()), (204, ""));
    let allow = "GET, HEAD, OPTIONS, PATCH, PURGE, PUT";
    assert_eq!(options.header("allow"), Some(allow));
}

#[tokio::test]
async fn the_service_receives_a_grpc_call_with_headers_and_extensions() {
    let headers = [
        ("authorization", "Bearer t"),
        ("x-request-id", "r1"),
        ("x-many", "1"),
        ("x-many", "2"),
        ("grpc-metadata-x-extra", "e"),
        ("grpc-metadata-authorization", "Bearer other"),
        ("grpc-metadata-te", "no"),
        ("grpc-metadata-grpc-status", "0"),
        ("grpc-timeout", "5S"),
        ("grpc-encoding", "gzip"),
        ("connection", "keep-alive, X-Hop"),
        ("x-hop", "h"),
        ("keep-alive", "1"),
        ("host", "example.org"),
        ("accept", "*/*"),
        ("accept-encoding", "gzip"),
        ("content-type", "application/json"),
        ("content-length", "13"),
        ("transfer-encoding", "chunked"),
        ("range", "bytes=0-1"),
        ("expect", "100-continue"),
        ("upgrade", "h2c"),
        ("te", "gzip"),
        ("trailer", "x"),
    ];
    let mut request = request("POST /v1/things", &headers, br#"{"text": "x"}"#);
    request.extensions_mut().insert(Peer(7));
    let reply = send_request(request).await;
    assert_eq!(reply.status, 200, "{}", reply.body);
    let mut seen: Vec<_> = reply
        .headers
        .iter()
        .filter_map(|(name, value)| Some((name.as_str().strip_prefix("seen-")?, value)))
        .map(|(name, value)| format!("{name}: {}", value.to_str().expect("text")))
        .collect();
    seen.sort();
    assert_eq!(
        seen,
        [
            "authorization: Bearer t",
            "bytes: 8",
            "content-type: application/grpc",
            "grpc-timeout: 5S",
            "line: POST /transcoding.test.Things/Create HTTP/2.0",
            "peer: 7",
            "te: trailers",
            "x-extra: e",
            "x-many: 1",
            "x-many: 2",
            "x-request-id: r1",
        ]
    );
}

#[tokio::test]
async fn replies_print_defaults_but_nothing_unset() {
    let reply = send("PUT /v1/things/x", &[], r#"{"maybeText": ""}"#).await;
    let defaults = |text: &str, maybe: &str, child: &str| {
        format!(
            "{{\"text\":\"{text}\",{maybe}\"data\":\"\",\"flag\":false,\
             \"colour\":\"COLOUR_UNSPECIFIED\",\"signedNumber\":0,\"unsignedNumber\":0,\
             \"longNumber\":\"0\",\"longUnsignedNumber\":\"0\",\"narrowFloat\":0.0,\"wideFloat\":0.0,\
             \"tags\":[],\"numbers\":[],\"children\":[],\"labels\":{{}},\"colours\":{{}},\
             \"named\":{{}},{child}\"times\":[]}}"
        )
    };
    let child = defaults("", "\"maybeText\":\"\",", "");
    let expected = defaults("x", "", &format!("\"child\":{child},"));
    assert_eq!(reply.body, expected);
    assert_eq!(reply.header("content-type"), Some("application/json"));
    // Metadata of the reply becomes headers, the protocol's own does not.
    assert_eq!(reply.header("x-reply"), Some("from the service"));
    assert_eq!(reply.header("grpc-encoding"), None);
    assert_eq!(reply.header("grpc-status"), None);
}

#[tokio::test]
async fn errors_of_the_service_are_status_json() {
    let body = r#"{
        "code": 9, "message": "an \"ä\"\n%", "inTrailers": IN_TRAILERS,
        "details": [
            {"@type": "type.googleapis.com/transcoding.test.Thing", "maybeText": "t"},
            {"@type": "type.googleapis.com/google.protobuf.Duration", "value": "1.5s"}
        ],
        "unknownTypeUrl": "type.googleapis.com/who.Knows", "unknownValue": "AQI="
    }"#;
    for in_trailers in ["false", "true"] {
        let body = body.replace("IN_TRAILERS", in_trailers);
        let reply = send("POST /v1/fail", &[("x-request-id", "r1")], &body).await;
        assert_eq!(reply.status, 400, "{}", reply.body);
        let json = reply.json();
        assert_eq!(json["code"], 9);
        assert_eq!(json["message"], "an \"ä\"\n%");
        let details = json["details"].as_array().expect("a list");
        assert_eq!(details.len(), 4, "{json}");
        assert_eq!(
            details[0]["@type"],
            "type.googleapis.com/transcoding.test.Thing"
        );
        assert_eq!(details[0]["maybeText"], "t");
        assert_eq!(details[1]["value"], "1.500s");
        assert_eq!(
            details[2],
            serde_json::json!({"@type": "type.googleapis.com/who.Knows", "value": "AQI="})
        );
        assert_eq!(
            details[3],
            serde_json::json!({
                "@type": "type.googleapis.com/google.rpc.RequestInfo",
                "requestId": "r1", "servingData": "",
            })
        );
        assert_eq!(reply.header("grpc-status"), None);
        assert_eq!(reply.header("grpc-status-details-bin"), None);
        if in_trailers == "false" {
            assert_eq!(reply.header("retry-hint"), Some("later"));
        }
    }
}

#[tokio::test]
async fn every_code_has_its_http_status() {
    let expected = [
        500, 499, 500, 400, 504, 404, 409, 403, 429, 400, 409, 400, 501, 500, 503, 500, 401,
    ];
    for (code, status) in expected.iter().enumerate().skip(1) {
        let body = format!("{{\"code\": {code}, \"message\": \"m\"}}");
        let reply = send("POST /v1/fail", &[], &body).await;
        assert_eq!(reply.status, *status, "code {code}");
        assert_eq!(reply.json()["code"], code);
        let challenge = (code == 16).then_some("Bearer");
        assert_eq!(reply.header("www-authenticate"), challenge, "code {code}");
    }
    assert_eq!(http_status(tonic::Code::Ok), 200);
}

#[tokio::test]
async fn request_info_is_added_once() {
    // A detail already there wins.
    let full = tonic_types::pb::Status {
        code: 5,
        message: "from the details".to_owned(),
        details: vec![prost_types::Any {
            type_url: "type.googleapis.com/google.rpc.RequestInfo".to_owned(),
            value: prost::Message::encode_to_vec(&tonic_types::pb::RequestInfo {
                request_id: "inner".to_owned(),
                serving_data: String::new(),
            }),
        }],
    };
    let details = prost::Message::encode_to_vec(&full);
    let cases = [
        (tonic::Code::NotFound, "from the details"),
        // Details of another code do not change what the status says.
        (tonic::Code::Internal, "from the header"),
    ];
    for (code, message) in cases {
        let status = tonic::Status::with_details(code, "from the header", details.clone().into());
        let response = error_response(&status, Some("outer"), pool());
        let body = http_body_util::BodyExt::collect(response.into_body())
            .await
            .expect("the body is whole")
            .to_bytes();
        let json: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!(json["code"], code as i32);
        assert_eq!(json["message"], message);
        assert_eq!(json["details"].as_array().map(Vec::len), Some(1), "{json}");
        assert_eq!(json["details"][0]["requestId"], "inner");
    }
    let routing = send("GET /none", &[("x-request-id", "r9")], "").await;
    assert_eq!(routing.json()["details"][0]["requestId"], "r9");
}

#[tokio::test]
async fn replies_that_break_the_protocol_are_internal_errors() {
    let cases = [
        ("no-status", 500, 13, "its reply has no status"),
        ("no-message", 500, 13, "no message"),
        ("two-messages", 500, 13, "more than one message"),
        ("short-prefix", 500, 13, "ends within a frame"),
        ("short-frame", 500, 13, "ends within a frame"),
        ("compressed", 500, 13, "compressed"),
        ("garbage", 500, 13, "cannot be decoded"),
        ("bad-time", 500, 13, "cannot be written as JSON"),
        ("bad-details", 404, 5, "gone %zz"),
        ("429", 503, 14, "HTTP status 429"),
        ("401", 401, 16, "HTTP status 401"),
        ("418", 500, 2, "HTTP status 418"),
    ];
    for (how, status, code, message) in cases {
        let reply = send(&format!("POST /v1/break/{how}"), &[], "").await;
        let json = reply.json();
        assert_eq!(
            (reply.status, &json["code"]),
            (status, &code.into()),
            "{how}: {json}"
        );
        let text = json["message"].as_str().expect("a message");
        assert!(text.contains(message), "{how}: {text}");
    }
    let reply = send("POST /v1/break/pieces", &[], "").await;
    assert_eq!(reply.status, 200, "{}", reply.body);
    assert_eq!(reply.json()["text"], "x");
}

#[tokio::test]
async fn grpc_requests_pass_untouched() {
    for content_type in [
        "application/grpc",
        "application/grpc+proto",
        "application/grpc-web",
    ] {
        let frame = Full::new(bytes::Bytes::from_static(&[0, 0, 0, 0, 3, 10, 1, b'x']));
        let request = Request::post(format!("http://a/{SERVICE}/WithoutRule"))
            .header("content-type", content_type)
            .header("grpc-metadata-x", "kept")
            .body(frame)
            .expect("a request");
        let Ok(response) = transcoder()
            .oneshot(request.map(tonic::body::Body::new))
            .await;
        assert_eq!(response.headers()["content-type"], "application/grpc");
        assert_eq!(response.headers()["seen-content-type"], content_type);
        assert_eq!(response.headers()["seen-grpc-metadata-x"], "kept");
        let body = http_body_util::BodyExt::collect(response.into_body())
            .await
            .expect("the body is whole");
        assert_eq!(body.trailers().expect("trailers")["grpc-status"], "0");
        assert_eq!(body.to_bytes()[..], [0, 0, 0, 0, 3, 10, 1, b'x']);
    }
}

#[tokio::test]
async fn a_client_that_hangs_up_ends_the_call() {
    let inner = Inner::default();
    let dropped = std::sync::Arc::clone(&inner.dropped);
    let mut transcoder =
        super::Transcoder::new(pool(), [SERVICE], inner, super::Settings::default())
            .expect("the rules are right");
    let mut call = Box::pin(transcoder.call(request("POST /v1/hang", &[], b"")));
    std::future::poll_fn(|context| {
        assert!(call.as_mut().poll(context).is_pending());
        std::task::Poll::Ready(())
    })
    .await;
    assert!(!dropped.load(Ordering::SeqCst), "the call runs");
    drop(call);
    assert!(dropped.load(Ordering::SeqCst), "the call is dropped");
}
