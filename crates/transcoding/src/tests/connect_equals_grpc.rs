//! A call over Connect is the call over gRPC, whatever is in it.

use base64::Engine;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Full};
use proptest::prelude::*;
use prost::Message;
use prost_reflect::DynamicMessage;
use prost_types::Any;
use tower::ServiceExt;

use super::connect::{CONNECT, JSON, METHOD, PROTO, ask};
use super::{pool, request, send_request, thing, thing_of, transcoder};

/// The message and the code of a gRPC call.
async fn over_grpc(method: &str, message: &[u8]) -> (HeaderMap, Vec<u8>) {
    let request = Request::post(format!("/transcoding.test.Things/{method}"))
        .header("content-type", "application/grpc")
        .body(Full::new(super::data(message)))
        .expect("a request");
    let Ok(response) = transcoder().oneshot(request).await;
    let mut headers = response.headers().clone();
    let body = response.into_body().collect().await.expect("a body");
    headers.extend(body.trailers().cloned().unwrap_or_default());
    let bytes = body.to_bytes();
    let message = bytes.get(5..).unwrap_or_default().to_vec();
    (headers, message)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// A call over Connect is the call over gRPC: the same message in, the same message or status out.
    #[test]
    fn connect_equals_grpc(
        text in "\\PC{0,12}",
        data in proptest::collection::vec(any::<u8>(), 0..40),
        number in any::<i64>(),
        float in -1e300..1e300_f64,
        tags in proptest::collection::vec("\\PC{0,4}", 0..4),
        labels in proptest::collection::btree_map("[a-z]{0,3}", "\\PC{0,4}", 0..2),
        code in 1_i32..17,
        in_trailers in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        let mut json = serde_json::json!({
            "text": text, "longNumber": number.to_string(), "wideFloat": float, "tags": tags, "labels": labels,
        });
        json["child"] = json.clone();
        let mut message = thing_of(&json.to_string());
        message.set_field_by_name("data", prost_reflect::Value::Bytes(data.into()));
        let wire = message.encode_to_vec();
        let (_, replied) = runtime.block_on(over_grpc("Create", &wire));
        let (head, body) = runtime.block_on(ask(&format!("POST {METHOD}"), &[PROTO], &wire));
        prop_assert_eq!(head.status, 200);
        prop_assert_eq!(&body[..], &replied[..]);
        let written = super::super::to_json(&message).expect("JSON");
        let (head, body) = runtime.block_on(ask(&format!("POST {METHOD}"), &[JSON, CONNECT], &written));
        prop_assert_eq!(head.status, 200, "{:?}", body);
        let body = String::from_utf8(body.to_vec()).expect("text");
        let expected = DynamicMessage::decode(thing(), &replied[..]).expect("it decodes");
        prop_assert_eq!(thing_of(&body), expected);

        let failure = serde_json::json!({
            "code": code, "message": text, "inTrailers": in_trailers,
            "details": [{"@type": "type.googleapis.com/transcoding.test.Thing", "text": text}],
        });
        let failure = failure.to_string();
        let descriptor = pool().get_message_by_name("transcoding.test.Failure").expect("it is declared");
        let mut deserializer = serde_json::Deserializer::from_str(&failure);
        let encoded = DynamicMessage::deserialize(descriptor, &mut deserializer).expect("a failure").encode_to_vec();
        let (headers, _) = runtime.block_on(over_grpc("Fail", &encoded));
        let status = tonic::Status::from_header_map(&headers).expect("a status");
        let full = tonic_types::pb::Status::decode(status.details()).expect("details");
        let reply = runtime.block_on(send_request(request(
            "POST /transcoding.test.Things/Fail", &[JSON, CONNECT], failure.as_bytes(),
        )));
        let json = reply.json();
        prop_assert_eq!(json["message"].as_str(), Some(status.message()));
        let detail = &json["details"][0];
        let value = base64::prelude::BASE64_STANDARD_NO_PAD.decode(detail["value"].as_str().expect("text"));
        let sent = Any {
            type_url: format!("type.googleapis.com/{}", detail["type"].as_str().expect("text")),
            value: value.expect("base64"),
        };
        prop_assert_eq!(&[sent][..], &full.details[..]);
    }
}
