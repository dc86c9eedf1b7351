//! `-0.0` is a number of its own, in JSON, in a query and on the wire.

use std::convert::Infallible;

use http::{Request, Response};
use http_body_util::BodyExt;
use prost::Message;
use prost_reflect::{DynamicMessage, Value};
use tonic::body::Body;
use tower::ServiceExt;

use super::{super::exact, SERVICE, Transcoder, pool, request, thing, whole};
use crate::Settings;

/// The JSON that comes back from a service that repeats the bytes of its request.
async fn repeated(line: &str, body: &str) -> String {
    let repeat = tower::service_fn(async |request: Request<Body>| {
        let frame = request.into_body().collect().await.expect("a frame");
        Ok::<Response<Body>, Infallible>(whole(vec![frame.to_bytes()], Some("0")))
    });
    let repeat = tower::util::BoxCloneSyncService::new(repeat);
    let transcoder = Transcoder::new(pool(), [SERVICE], repeat, Settings::default());
    let transcoder = transcoder.expect("the rules are right");
    let Ok(reply) = transcoder
        .oneshot(request(line, &[], body.as_bytes()))
        .await;
    let body = reply.into_body().collect().await.expect("a body");
    let text = String::from_utf8(body.to_bytes().to_vec()).expect("JSON");
    assert!(
        !text.contains("\"message\""),
        "{line} {body}: {text}",
        body = "refused"
    );
    text
}

#[tokio::test]
async fn zeros_keep_their_sign_both_ways() {
    for (line, body, fields) in [
        (
            "POST /v1/things",
            r#"{"wideFloat": -0.0}"#,
            &["\"wideFloat\":-0.0"][..],
        ),
        (
            "POST /v1/things",
            r#"{"wideFloat": -0}"#,
            &["\"wideFloat\":-0.0"],
        ),
        (
            "POST /v1/things",
            r#"{"narrowFloat": "-0.0"}"#,
            &["\"narrowFloat\":-0.0"],
        ),
        (
            "POST /v1/things",
            r#"{"wideFloat": -0e5}"#,
            &["\"wideFloat\":-0.0"],
        ),
        (
            "POST /v1/things",
            r#"{"wideFloat": 0.0}"#,
            &["\"wideFloat\":0.0"],
        ),
        (
            "POST /v1/things",
            r#"{"anyJson": -0.0}"#,
            &["\"anyJson\":-0.0"],
        ),
        (
            "POST /v1/things",
            r#"{"anyJson": {"a": [-0.0, 0.0]}}"#,
            &["\"anyJson\":{\"a\":[-0.0,0.0]}"],
        ),
        (
            "POST /v1/things",
            r#"{"children": [{"wideFloat": -0.0}], "named": {"a": {"narrowFloat": -0.0}}}"#,
            &["\"wideFloat\":-0.0", "\"narrowFloat\":-0.0"],
        ),
        // Where a message is put together of several parts.
        (
            "GET /v1/query?wideFloat=-0.0&narrowFloat=-0",
            "",
            &["\"wideFloat\":-0.0", "\"narrowFloat\":-0.0"],
        ),
        (
            "GET /v1/query?child.wideFloat=-0.0",
            "",
            &["\"wideFloat\":-0.0"],
        ),
        (
            "PUT /v1/things/x?wideFloat=-0.0&flag=true",
            r#"{"narrowFloat": -0.0, "children": [{"wideFloat": -0.0}]}"#,
            &["\"narrowFloat\":-0.0", "\"children\":[{", "\"flag\":true"],
        ),
    ] {
        let text = repeated(line, body).await;
        for field in fields {
            assert!(
                text.contains(field),
                "{line} {body}: {field} is not in {text}"
            );
        }
    }
}

#[test]
fn messages_are_encoded_as_by_prost_reflect_but_for_the_sign() {
    let json = r#"{
        "text": "x", "flag": true, "longNumber": "-5", "tags": ["a", ""], "numbers": [0, 1],
        "labels": {"k": "v"}, "colours": {"1": "RED"}, "child": {"text": "y"}, "wrappedNumber": "0",
        "anyJson": {"a": [1, null]}, "eitherNumber": 0, "wideFloat": 1.5, "children": [{}]
    }"#;
    let plain = super::thing_of(json);
    let mut bytes = Vec::new();
    exact::encode(&plain, &mut bytes);
    assert_eq!(bytes, plain.encode_to_vec());

    let mut signed = plain.clone();
    signed.set_field_by_name("narrow_float", Value::F32(-0.0));
    let mut bytes = Vec::new();
    exact::encode(&signed, &mut bytes);
    let mut again = DynamicMessage::decode(thing(), bytes.as_slice()).expect("a message");
    let sign = again.get_field_by_name("narrow_float");
    let sign = sign.and_then(|value| value.as_f32()).map(f32::to_bits);
    assert_eq!(sign, Some((-0.0_f32).to_bits()));
    again.clear_field_by_name("narrow_float");
    assert_eq!(again, plain);
}
