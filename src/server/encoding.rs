//! Content codings of requests and replies that are messages (RFC 9110, section 8.4): gzip and zstd,
//! both ways. The bytes of images never come here.

use std::convert::Infallible;
use std::io;

use async_compression::tokio::bufread::{GzipDecoder, ZstdDecoder};
use futures_util::TryStreamExt;
use http::{Method, Request, Response, header};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio::io::AsyncRead;
use tokio_util::io::{ReaderStream, StreamReader};
use tonic::body::Body;
use tower::Service;
use tower_http::compression::{Compression, Predicate, predicate::SizeAbove};
use transcoding::ResponseBody;

use super::Reply;

/// Decoded bytes of a request that are held at a time.
const PIECE: usize = 16 << 10;
/// The smallest reply that is encoded: a smaller one grows rather than shrinks.
const SMALLEST: u64 = 256;

/// Calls a service with what the client sent, decoded, and encodes the reply as the client likes.
/// Bodies in other codings go to the service as they are. It must limit what it reads, since a body
/// can be much larger decoded.
pub(crate) fn call<S>(mut service: S, request: Request<Body>) -> Reply
where
    S: Service<Request<Body>, Response = Response<ResponseBody>, Error = Infallible>
        + Send
        + 'static,
    S::Future: Send + 'static,
{
    let likes_codings = request.headers().contains_key(header::ACCEPT_ENCODING);
    let request = decoded(request);
    if !likes_codings {
        let reply = service.call(request);
        return Box::pin(async move {
            let Ok(mut response) = reply.await;
            if is_encoded_for_others(&response) {
                let vary = header::ACCEPT_ENCODING.into();
                response.headers_mut().insert(header::VARY, vary);
            }
            Ok(response)
        });
    }
    let head = *request.method() == Method::HEAD;
    let reply = Compression::new(service)
        .compress_when(worth())
        .call(request);
    Box::pin(async move {
        let Ok(mut response) = reply.await;
        if head {
            // That of GET may be another one, since its reply may be encoded.
            response.headers_mut().remove(header::CONTENT_LENGTH);
        }
        Ok(response.map(|body| Body::new(body).into()))
    })
}

/// The request with its body decoded. tower-http 0.7.1 has a [layer] for this, which takes the first of several gzip
/// members for the whole, and knows codings in lower case only.
///
/// [layer]: https://github.com/tower-rs/tower-http/blob/tower-http-0.7.1/tower-http/src/decompression/request/service.rs
fn decoded(request: Request<Body>) -> Request<Body> {
    let coding = request.headers().get(header::CONTENT_ENCODING);
    let is =
        |name: &str| coding.is_some_and(|it| it.as_bytes().eq_ignore_ascii_case(name.as_bytes()));
    let (gzip, zstd) = (is("gzip") || is("x-gzip"), is("zstd"));
    if !gzip && !zstd {
        return request;
    }
    let (mut parts, body) = request.into_parts();
    parts.headers.remove(header::CONTENT_ENCODING);
    parts.headers.remove(header::CONTENT_LENGTH);
    let bytes = StreamReader::new(body.into_data_stream().map_err(io::Error::other));
    let body = if gzip {
        let mut decoder = GzipDecoder::new(bytes);
        decoder.multiple_members(true);
        body_of(decoder)
    } else {
        let mut decoder = ZstdDecoder::new(bytes);
        decoder.multiple_members(true);
        body_of(decoder)
    };
    Request::from_parts(parts, body)
}

fn body_of(decoder: impl AsyncRead + Send + 'static) -> Body {
    let pieces = ReaderStream::with_capacity(decoder, PIECE);
    Body::new(StreamBody::new(pieces.map_ok(Frame::data)))
}

/// Whether clients that like a coding get a reply in another one.
fn is_encoded_for_others(response: &Response<ResponseBody>) -> bool {
    let headers = response.headers();
    !headers.contains_key(header::CONTENT_ENCODING)
        && !headers.contains_key(header::VARY)
        && worth().should_compress(response)
}

/// Replies that are worth encoding: long enough, and text or a message.
fn worth() -> impl Predicate {
    SizeAbove::new(SMALLEST).and(Text)
}

/// Replies that are text, or messages of protobuf, which are mostly text. Anything else may be dense already.
#[derive(Clone, Copy)]
struct Text;

impl Predicate for Text {
    fn should_compress<B: http_body::Body>(&self, response: &Response<B>) -> bool {
        let content_type = response.headers().get(header::CONTENT_TYPE);
        let content_type = content_type.map_or(&b""[..], |value| value.as_bytes());
        [
            &b"text/"[..],
            b"application/json",
            b"application/x-ndjson",
            b"application/proto",
        ]
        .iter()
        .any(|prefix| content_type.starts_with(prefix))
    }
}
