//! Behaviour that gRPC clients may rely on beside the methods themselves: frames, compression, limits, refusals,
//! reflection. Asked frame by frame over HTTP/2, as no client library lets a test do.

mod compression;
mod frames;
mod reflection;
mod refusals;

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use http::{HeaderMap, Request, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tonic::Code;

const BOUND: Duration = Duration::from_secs(60);

pub const LIST: &str = "/yandex.cloud.compute.v1.ImageService/List";
/// `folder_id` is "f".
pub const LIST_REQUEST: &[u8] = b"\x0a\x01f";
/// The largest message of a request.
pub const LIMIT: usize = 4 << 20;

/// A reply, byte by byte.
#[derive(Debug)]
pub struct Reply {
    pub http: StatusCode,
    pub headers: HeaderMap,
    pub data: Bytes,
    trailers: HeaderMap,
}

impl Reply {
    fn told(&self, name: &str) -> Option<String> {
        let value = self.trailers.get(name).or(self.headers.get(name))?;
        let value = percent_encoding::percent_decode(value.as_bytes());
        Some(value.decode_utf8_lossy().into_owned())
    }

    /// The status, which must be there, in headers or trailers.
    pub fn code(&self) -> Code {
        let code = self.told("grpc-status").expect("a grpc-status");
        Code::from_bytes(code.as_bytes())
    }

    pub fn message(&self) -> String {
        self.told("grpc-message").unwrap_or_default()
    }

    /// The messages with their flags.
    pub fn messages(&self) -> Vec<(u8, Vec<u8>)> {
        let mut rest = &self.data[..];
        let mut messages = Vec::new();
        while let Some((&[flag, length @ ..], after)) = rest.split_first_chunk::<5>() {
            let (message, after) = after.split_at(u32::from_be_bytes(length) as usize);
            messages.push((flag, message.to_vec()));
            rest = after;
        }
        assert!(rest.is_empty(), "whole frames");
        messages
    }
}

/// A frame of any flag, right or wrong.
pub fn frame(flag: u8, message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).expect("small");
    [&[flag][..], &length.to_be_bytes(), message].concat()
}

/// POSTs a body in pieces over HTTP/2 by the headers of gRPC, but for those given.
pub async fn call(
    address: SocketAddr,
    path: &str,
    headers: &[(&str, &str)],
    pieces: Vec<Vec<u8>>,
) -> Reply {
    let request = Request::post(format!("http://{address}{path}"));
    send(address, request, headers, pieces).await
}

pub async fn send(
    address: SocketAddr,
    mut request: http::request::Builder,
    headers: &[(&str, &str)],
    pieces: Vec<Vec<u8>>,
) -> Reply {
    for (name, value) in [("content-type", "application/grpc"), ("te", "trailers")] {
        if headers.iter().all(|(own, _)| *own != name) {
            request = request.header(name, value);
        }
    }
    for (name, value) in headers.iter().filter(|(_, value)| !value.is_empty()) {
        request = request.header(*name, *value);
    }
    let pieces = stream::iter(pieces).then(|piece| async {
        // Each piece leaves by itself.
        tokio::task::yield_now().await;
        Ok::<_, std::convert::Infallible>(Frame::data(Bytes::from(piece)))
    });
    let request = request.body(StreamBody::new(Box::pin(pieces)));
    let request = request.expect("a request");
    let asking = async {
        let stream = tokio::net::TcpStream::connect(address).await;
        let io = TokioIo::new(stream.expect("a connection"));
        let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), io);
        let (mut sender, connection) = handshake.await.expect("HTTP/2");
        let connection = tokio::spawn(connection);
        let reply = sender.send_request(request).await.expect("a reply");
        let (head, body) = reply.into_parts();
        let body = body.collect().await.expect("a whole reply");
        let trailers = body.trailers().cloned().unwrap_or_default();
        connection.abort();
        Reply {
            http: head.status,
            headers: head.headers,
            data: body.to_bytes(),
            trailers,
        }
    };
    let reply = tokio::time::timeout(BOUND, asking).await;
    reply.unwrap_or_else(|_| panic!("{path} hangs", path = "the call"))
}
