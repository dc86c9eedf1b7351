//! The Connect protocol: streams of messages in envelopes, both ways.

use std::convert::Infallible;

use bytes::{Buf, BufMut, Bytes};
use http::{HeaderMap, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use prost::Message;
use prost_reflect::DynamicMessage;
use tonic::{Status, body::Body};
use tower::{Service, ServiceExt};

use super::{
    super::{Settings, StreamEnd, Transcoder},
    data, pool, request,
};

const JSON: (&str, &str) = ("content-type", "application/connect+json");
const PROTO: (&str, &str) = ("content-type", "application/connect+proto");

/// A service that answers each message with the same message, until one is called "fail".
fn echo() -> Transcoder<
    impl Service<http::Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send>
    + Clone,
> {
    let service = tower::service_fn(|request: http::Request<Body>| async move {
        if request.headers().contains_key("x-refuse") {
            let mut status = Status::permission_denied("refused");
            status
                .metadata_mut()
                .insert("x-hint", "h".parse().expect("a value"));
            return Ok(status.into_http());
        }
        let mut body = request.into_body();
        let frames = async_frames(move || {
            let mut arrived = Vec::new();
            async move {
                loop {
                    match body.frame().await {
                        None => {
                            let mut trailers = HeaderMap::new();
                            trailers.insert("grpc-status", "0".parse().expect("a value"));
                            trailers.append("x-cost", "1".parse().expect("a value"));
                            trailers.append("x-cost", "2".parse().expect("a value"));
                            arrived.push(Frame::trailers(trailers));
                            return arrived;
                        }
                        Some(Ok(frame)) => {
                            let data = frame.into_data().expect("data");
                            let fails = data.ends_with(b"fail");
                            arrived.push(Frame::data(data));
                            if fails {
                                let mut trailers = HeaderMap::new();
                                let status = Status::aborted("as asked");
                                status.add_header(&mut trailers).expect("headers");
                                trailers.insert("x-cost", "3".parse().expect("a value"));
                                arrived.push(Frame::trailers(trailers));
                                return arrived;
                            }
                        }
                        Some(Err(status)) => {
                            let mut trailers = HeaderMap::new();
                            status.add_header(&mut trailers).expect("headers");
                            arrived.push(Frame::trailers(trailers));
                            return arrived;
                        }
                    }
                }
            }
        });
        let mut response = Response::new(Body::new(StreamBody::new(frames)));
        let headers = response.headers_mut();
        headers.insert("content-type", "application/grpc".parse().expect("a value"));
        headers.insert("x-leading", "l".parse().expect("a value"));
        Ok(response)
    });
    let settings = Settings {
        max_request_body: 1024,
        ..Settings::default()
    };
    let services = ["transcoding.test.Corners"];
    Transcoder::new(pool(), services, service, settings).expect("the rules are right")
}

/// The frames that a future gives, one behind another.
fn async_frames<F>(
    make: impl FnOnce() -> F,
) -> impl futures_util::Stream<Item = Result<Frame<Bytes>, Infallible>> + Send
where
    F: Future<Output = Vec<Frame<Bytes>>> + Send,
{
    use futures_util::{StreamExt, stream};
    stream::once(make()).flat_map(|frames| stream::iter(frames.into_iter().map(Ok)))
}

fn envelope(flags: u8, message: &[u8]) -> Vec<u8> {
    let mut envelope = vec![flags];
    envelope.put_slice(&data(message)[1..]);
    envelope
}

/// The envelopes of a body.
fn opened(mut body: Bytes) -> Vec<(u8, Bytes)> {
    let mut envelopes = Vec::new();
    while !body.is_empty() {
        let flags = body.get_u8();
        let length = body.get_u32() as usize;
        envelopes.push((flags, body.split_to(length)));
    }
    envelopes
}

fn corner(name: &str) -> Vec<u8> {
    let descriptor = pool().get_message_by_name("transcoding.test.Corner");
    let mut message = DynamicMessage::new(descriptor.expect("it is declared"));
    message.set_field_by_name("name", prost_reflect::Value::String(name.to_owned()));
    message.encode_to_vec()
}

async fn call(
    method: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> (http::response::Parts, Vec<(u8, Bytes)>) {
    let line = format!("POST /transcoding.test.Corners/{method}");
    let Ok(response) = echo().oneshot(request(&line, headers, body)).await;
    let (head, body) = response.into_parts();
    let body = body.collect().await.expect("the body is whole");
    (head, opened(body.to_bytes()))
}

#[tokio::test]
async fn messages_pass_both_ways_in_both_formats() {
    for (method, names) in [
        ("Watch", &["a"][..]),
        ("WatchWithoutRule", &["a"]),
        ("Collect", &["a"]),
        ("Chat", &[]),
        ("Chat", &["a", "b", "c"]),
    ] {
        for format in [JSON, PROTO] {
            let mut body = Vec::new();
            for name in names {
                match format {
                    JSON => {
                        body.extend(envelope(0, format!("{{\"name\": \"{name}\"}}").as_bytes()))
                    }
                    _ => body.extend(envelope(0, &corner(name))),
                }
            }
            let (head, envelopes) = call(method, &[format], &body).await;
            assert_eq!(head.status, 200);
            assert_eq!(head.headers["content-type"], format.1);
            assert_eq!(head.headers["x-leading"], "l");
            assert_eq!(head.headers["x-accel-buffering"], "no");
            let (end, messages) = envelopes.split_last().expect("the end");
            assert_eq!(messages.len(), names.len(), "{method}");
            for ((flags, message), name) in messages.iter().zip(names) {
                assert_eq!(*flags, 0);
                match format {
                    JSON => {
                        let json: serde_json::Value =
                            serde_json::from_slice(message).expect("JSON");
                        assert_eq!(json["name"], *name);
                    }
                    _ => assert_eq!(message[..], corner(name)[..]),
                }
            }
            let told: serde_json::Value = serde_json::from_slice(&end.1).expect("JSON");
            assert_eq!(
                (end.0, told),
                (2, serde_json::json!({"metadata": {"x-cost": ["1", "2"]}}))
            );
            let ended = head.extensions.get::<StreamEnd>().expect("how it ended");
            assert_eq!(ended.get().map(|(code, _)| *code), Some(tonic::Code::Ok));
        }
    }
}

/// A stream that fails: its method, headers and body, how many messages come first, the code and the words.
type Fails<'a> = (
    &'a str,
    &'a [(&'a str, &'a str)],
    Vec<u8>,
    usize,
    &'a str,
    &'a str,
);

#[tokio::test]
async fn failures_are_in_the_last_envelope() {
    let one = |message: &[u8]| envelope(0, message);
    let cases: Vec<Fails> = vec![
        (
            "Watch",
            &[JSON],
            one(b"{"),
            0,
            "invalid_argument",
            "not valid JSON",
        ),
        (
            "Watch",
            &[JSON],
            envelope(1, b"{}"),
            0,
            "invalid_argument",
            "compressed",
        ),
        (
            "Watch",
            &[JSON],
            envelope(2, b"{}"),
            0,
            "invalid_argument",
            "0x02",
        ),
        (
            "Watch",
            &[JSON],
            one(b"{}")[..6].to_vec(),
            0,
            "invalid_argument",
            "broke off",
        ),
        (
            "Watch",
            &[PROTO],
            vec![0, 0, 0, 4, 1],
            0,
            "resource_exhausted",
            "1025 bytes",
        ),
        (
            "Chat",
            &[PROTO],
            [one(&corner("a")), one(&corner("fail"))].concat(),
            2,
            "aborted",
            "as asked",
        ),
        (
            "Chat",
            &[PROTO, ("x-refuse", "1")],
            vec![],
            0,
            "permission_denied",
            "refused",
        ),
        (
            "Chat",
            &[PROTO, ("connect-content-encoding", "gzip")],
            vec![],
            0,
            "unimplemented",
            "gzip",
        ),
        (
            "Chat",
            &[JSON, ("connect-protocol-version", "0")],
            vec![],
            0,
            "invalid_argument",
            "must be 1",
        ),
        (
            "Nothing",
            &[JSON],
            vec![],
            0,
            "unimplemented",
            "is not served",
        ),
    ];
    for (method, headers, body, before, code, words) in cases {
        let (head, envelopes) = call(method, headers, &body).await;
        assert_eq!(head.status, 200, "{method} {words}");
        assert_eq!(head.headers["content-type"], headers[0].1);
        let (end, messages) = envelopes.split_last().expect("the end");
        assert_eq!((end.0, messages.len()), (2, before), "{method} {words}");
        let told: serde_json::Value = serde_json::from_slice(&end.1).expect("JSON");
        assert_eq!(told["error"]["code"], code, "{told}");
        let message = told["error"]["message"].as_str().expect("words");
        assert!(message.contains(words), "{told}");
        match code {
            "aborted" => assert_eq!(told["metadata"]["x-cost"], serde_json::json!(["3"])),
            "permission_denied" => assert_eq!(told["metadata"]["x-hint"], serde_json::json!(["h"])),
            _ => {}
        }
    }
}

#[tokio::test]
async fn only_streams_of_known_formats_are_taken() {
    for content_type in [
        "application/json",
        "application/proto",
        "application/connect+xml",
        "application/connect+",
    ] {
        let headers = [
            ("content-type", content_type),
            ("connect-protocol-version", "1"),
        ];
        let line = "POST /transcoding.test.Corners/Chat";
        let Ok(response) = echo().oneshot(request(line, &headers, b"")).await;
        assert_eq!(response.status(), 415, "{content_type}");
        assert_eq!(
            response.headers()["accept-post"],
            "application/connect+json, application/connect+proto"
        );
    }
}

#[tokio::test]
async fn a_message_in_pieces_is_one_message() {
    let whole = envelope(0, &corner("a"));
    let frames: Vec<_> = whole
        .iter()
        .map(|byte| Frame::data(Bytes::from(vec![*byte])))
        .collect();
    let request = http::Request::post("/transcoding.test.Corners/Chat")
        .header(PROTO.0, PROTO.1)
        .body(super::Pieces(frames.into_iter()))
        .expect("a request");
    let Ok(response) = echo().oneshot(request).await;
    let body = response.into_body().collect().await.expect("a body");
    let envelopes = opened(body.to_bytes());
    assert_eq!(envelopes[0], (0, Bytes::from(corner("a"))));
}
