//! The whole layer over an inner service that is written out here: it decodes what arrives, and
//! answers as a gRPC server does, well or badly.

mod arriving;
mod build;
mod calls;
mod connect;
mod connect_equals_grpc;
mod connect_headers;
mod connect_streams;
mod negative_zero;
mod openapi;
mod properties;
mod refusals;
mod requests;
mod streams;
mod table;
mod tonic_server;

use std::{
    convert::Infallible,
    future::Future,
    path::Path,
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt, Full};
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor};
use tonic::{Code, Status, body::Body};
use tonic_types::pb;
use tower::{Service, ServiceExt};

use super::{Settings, Transcoder};

const SERVICE: &str = "transcoding.test.Things";

/// A fact of the connection that travels in the extensions.
#[derive(Clone)]
struct Peer(u16);

/// The descriptors of `tests/data/`.
fn pool() -> &'static DescriptorPool {
    static POOL: OnceLock<DescriptorPool> = OnceLock::new();
    POOL.get_or_init(|| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let folders = ["tests/data", "examples/proto", "proto"].map(|folder| root.join(folder));
        let mut compiler = protox::Compiler::new(folders).expect("the folders are there");
        compiler
            .open_files([
                "things.proto",
                "health.proto",
                "corners.proto",
                "google/rpc/error_details.proto",
                "google/rpc/status.proto",
            ])
            .expect("they compile");
        compiler.descriptor_pool()
    })
}

fn thing() -> MessageDescriptor {
    pool()
        .get_message_by_name("transcoding.test.Thing")
        .expect("things.proto declares it")
}

/// A Thing from its JSON. It went over the wire once, so that a default value written out equals
/// one left out.
fn thing_of(json: &str) -> DynamicMessage {
    let mut deserializer = serde_json::Deserializer::from_str(json);
    let message = DynamicMessage::deserialize(thing(), &mut deserializer)
        .unwrap_or_else(|error| panic!("{error}: {json}"));
    DynamicMessage::decode(thing(), message.encode_to_vec().as_slice()).expect("it decodes")
}

/// The response that an HTTP client sees.
struct Reply {
    status: u16,
    headers: HeaderMap,
    body: String,
}

impl Reply {
    fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| {
            value
                .to_str()
                .expect("the tests only use headers that are text")
        })
    }
}

fn transcoder() -> Transcoder<Inner> {
    let settings = Settings {
        max_request_body: 64 * 1024,
        ..Settings::default()
    };
    Transcoder::new(pool(), [SERVICE], Inner::default(), settings).expect("the rules are right")
}

fn request(line: &str, headers: &[(&str, &str)], body: &[u8]) -> Request<Full<Bytes>> {
    let (method, uri) = line.split_once(' ').expect("a method and a URI");
    let mut request = Request::builder().method(method).uri(uri);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request
        .body(Full::new(Bytes::copy_from_slice(body)))
        .unwrap_or_else(|error| panic!("{line}: {error}"))
}

async fn send_request(request: Request<Full<Bytes>>) -> Reply {
    let response = match transcoder().oneshot(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    };
    let (parts, body) = response.into_parts();
    let body = body.collect().await.expect("the body is whole").to_bytes();
    Reply {
        status: parts.status.as_u16(),
        headers: parts.headers,
        body: String::from_utf8(body.to_vec()).expect("JSON is UTF-8"),
    }
}

async fn send(line: &str, headers: &[(&str, &str)], body: &str) -> Reply {
    send_request(request(line, headers, body.as_bytes())).await
}

/// The gRPC service. It tells what reached it in headers of its reply: each request header `x` as
/// `seen-x`, the peer as `seen-peer`.
#[derive(Clone, Default)]
struct Inner {
    dropped: Arc<AtomicBool>,
}

/// Notes that a call was dropped.
struct DropNote(Arc<AtomicBool>);

impl Drop for DropNote {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

impl Service<Request<Body>> for Inner {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let dropped = Arc::clone(&self.dropped);
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let frame = body.collect().await.expect("the frame is whole").to_bytes();
            let method = parts
                .uri
                .path()
                .strip_prefix(&format!("/{SERVICE}/"))
                .expect("only its own methods reach the service")
                .to_owned();
            if method == "Hang" {
                let _note = DropNote(dropped);
                std::future::pending::<()>().await;
            }
            let mut response = match method.as_str() {
                "Fail" => fail(&payload(&frame, "Failure")),
                "Break" => misbehave(&payload(&frame, "Thing")),
                _ => {
                    let message = payload(&frame, "Thing");
                    whole(vec![data(&message.encode_to_vec())], Some("0"))
                }
            };
            tell_what_arrived(&parts, &frame, response.headers_mut());
            Ok(response)
        })
    }
}

/// The message of the only frame of a request.
fn payload(frame: &Bytes, message: &str) -> DynamicMessage {
    assert_eq!(frame[0], 0, "not compressed");
    let length = u32::from_be_bytes(frame[1..5].try_into().expect("four bytes"));
    assert_eq!(length as usize, frame.len() - 5, "exactly one frame");
    let descriptor = pool()
        .get_message_by_name(&format!("transcoding.test.{message}"))
        .expect("things.proto declares it");
    DynamicMessage::decode(descriptor, frame.slice(5..)).expect("the message decodes")
}

fn tell_what_arrived(parts: &http::request::Parts, frame: &Bytes, headers: &mut HeaderMap) {
    for (name, value) in &parts.headers {
        let name = HeaderName::from_bytes(format!("seen-{name}").as_bytes()).expect("a name");
        headers.append(name, value.clone());
    }
    let line = format!("{} {} {:?}", parts.method, parts.uri, parts.version);
    headers.insert("seen-line", HeaderValue::try_from(line).expect("text"));
    headers.insert("seen-bytes", HeaderValue::from(frame.len()));
    if let Some(Peer(peer)) = parts.extensions.get() {
        headers.insert("seen-peer", HeaderValue::from(*peer));
    }
}

fn data(payload: &[u8]) -> Bytes {
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(payload.len().try_into().expect("small"));
    frame.put_slice(payload);
    frame.freeze()
}

/// A reply of these pieces of data, then trailers with this `grpc-status`, if any.
fn whole(pieces: Vec<Bytes>, grpc_status: Option<&'static str>) -> Response<Body> {
    let mut trailers = HeaderMap::new();
    if let Some(status) = grpc_status {
        trailers.insert("grpc-status", HeaderValue::from_static(status));
    }
    with_trailers(pieces, trailers)
}

fn with_trailers(pieces: Vec<Bytes>, trailers: HeaderMap) -> Response<Body> {
    let mut frames: Vec<_> = pieces.into_iter().map(http_body::Frame::data).collect();
    if !trailers.is_empty() {
        frames.push(http_body::Frame::trailers(trailers));
    }
    let mut response = Response::new(Body::new(Pieces(frames.into_iter())));
    *response.version_mut() = Version::HTTP_2;
    let headers = response.headers_mut();
    headers.insert("content-type", HeaderValue::from_static("application/grpc"));
    headers.insert("x-reply", HeaderValue::from_static("from the service"));
    headers.insert("grpc-encoding", HeaderValue::from_static("identity"));
    response
}

/// Frames that are there already, as a body.
struct Pieces(std::vec::IntoIter<http_body::Frame<Bytes>>);

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.next().map(Ok))
    }
}

fn text(message: &DynamicMessage, field: &str) -> String {
    let value = message.get_field_by_name(field).expect("a field");
    value.as_str().expect("a text").to_owned()
}

fn fail(failure: &DynamicMessage) -> Response<Body> {
    let number = |name| {
        let value = failure.get_field_by_name(name).expect("a field");
        value.as_i32().expect("a number")
    };
    let mut details = Vec::new();
    for detail in failure
        .get_field_by_name("details")
        .expect("a field")
        .as_list()
        .expect("a list")
    {
        let detail = detail.as_message().expect("an Any");
        details.push(detail.transcode_to().expect("an Any"));
    }
    let unknown_type_url = text(failure, "unknown_type_url");
    if !unknown_type_url.is_empty() {
        let value = failure.get_field_by_name("unknown_value").expect("a field");
        details.push(prost_types::Any {
            type_url: unknown_type_url,
            value: value.as_bytes().expect("bytes").to_vec(),
        });
    }
    let full = pb::Status {
        code: number("code"),
        message: text(failure, "message"),
        details,
    };
    let code = Code::from_i32(full.code);
    let mut status = Status::with_details(code, &full.message, full.encode_to_vec().into());
    status
        .metadata_mut()
        .insert("retry-hint", "later".parse().expect("a value"));
    let flag = failure.get_field_by_name("in_trailers").expect("a field");
    if flag.as_bool() != Some(true) {
        return status.into_http();
    }
    let mut trailers = HeaderMap::new();
    status.add_header(&mut trailers).expect("they are headers");
    with_trailers(Vec::new(), trailers)
}

/// Replies that a gRPC server must not give.
fn misbehave(how: &DynamicMessage) -> Response<Body> {
    let good = data(&thing_of("{\"text\": \"x\"}").encode_to_vec());
    match text(how, "text").as_str() {
        "pieces" => {
            let middle = good.len() / 2;
            let pieces = vec![good.slice(..3), good.slice(3..middle), good.slice(middle..)];
            whole(pieces, Some("0"))
        }
        "no-status" => whole(vec![good], None),
        "no-message" => whole(vec![], Some("0")),
        "two-messages" => whole(vec![good.clone(), good], Some("0")),
        "short-prefix" => whole(vec![good.slice(..3)], Some("0")),
        "short-frame" => whole(vec![good.slice(..good.len() - 1)], Some("0")),
        "compressed" => whole(vec![Bytes::from_static(&[1]), good.slice(1..)], Some("0")),
        "garbage" => whole(vec![data(&[0xff, 0xff, 0xff])], Some("0")),
        "bad-details" => {
            let mut response = whole(vec![], None);
            let headers = response.headers_mut();
            headers.insert("grpc-status", HeaderValue::from_static("5"));
            headers.insert("grpc-message", HeaderValue::from_static("gone%20%zz"));
            headers.insert("grpc-status-details-bin", HeaderValue::from_static("&&&"));
            response
        }
        "bad-time" => {
            let mut message = DynamicMessage::new(thing());
            let mut time = DynamicMessage::new(
                pool()
                    .get_message_by_name("google.protobuf.Timestamp")
                    .expect("it is imported"),
            );
            time.set_field_by_name("seconds", prost_reflect::Value::I64(i64::MAX));
            message.set_field_by_name("time", prost_reflect::Value::Message(time));
            whole(vec![data(&message.encode_to_vec())], Some("0"))
        }
        other => {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::from_bytes(other.as_bytes()).expect("a status");
            response
        }
    }
}
