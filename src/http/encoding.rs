//! Content codings of requests and replies that are messages (RFC 9110, section 8.4): gzip and zstd,
//! both ways. The bytes of images never come here.

use std::convert::Infallible;

use http::{HeaderValue, Method, Request, Response, header};
use tonic::body::Body;
use tower::Service;
use tower_http::compression::{Compression, Predicate, predicate::SizeAbove};
use tower_http::decompression::{DecompressionBody, RequestDecompression};

/// What is smaller grows rather than shrinks.
const SMALLEST: u64 = 256;

/// Calls a service with what the client sent, decoded, and encodes the reply as the client likes.
/// Bodies in other codings go to the service as they are. It must limit what it reads, since a body
/// can be much larger decoded.
pub async fn call<S>(mut service: S, mut request: Request<Body>) -> Response<Body>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
{
    let headers = request.headers_mut();
    let likes_codings = headers.contains_key(header::ACCEPT_ENCODING);
    if !likes_codings && !headers.contains_key(header::CONTENT_ENCODING) {
        let Ok(mut response) = service.call(request).await;
        if is_encoded_for_others(&response) {
            let vary = header::ACCEPT_ENCODING.into();
            response.headers_mut().insert(header::VARY, vary);
        }
        return response;
    }
    if let Some(name) = headers.get_mut(header::CONTENT_ENCODING) {
        for (coding, known) in [("gzip", "gzip"), ("x-gzip", "gzip"), ("zstd", "zstd")] {
            if name.as_bytes().eq_ignore_ascii_case(coding.as_bytes()) {
                *name = HeaderValue::from_static(known);
            }
        }
    }
    let head = *request.method() == Method::HEAD && likes_codings;
    let service = tower::service_fn(move |request: Request<DecompressionBody<Body>>| {
        service.call(request.map(Body::new))
    });
    let compression = Compression::new(service).compress_when(worth());
    let mut service = RequestDecompression::new(compression).pass_through_unaccepted(true);
    let Ok(mut response) = service.call(request).await;
    if head {
        // That of GET may be another one, since its reply may be encoded.
        response.headers_mut().remove(header::CONTENT_LENGTH);
    }
    response.map(Body::new)
}

/// Whether clients that like a coding get a reply in another one.
fn is_encoded_for_others(response: &Response<Body>) -> bool {
    let headers = response.headers();
    !headers.contains_key(header::CONTENT_ENCODING)
        && !headers.contains_key(header::VARY)
        && worth().should_compress(response)
}

/// Replies that are worth encoding: long enough, and text.
fn worth() -> impl Predicate {
    SizeAbove::new(SMALLEST).and(Text)
}

/// Replies that are text. Anything else may be dense already.
#[derive(Clone, Copy)]
struct Text;

impl Predicate for Text {
    fn should_compress<B: http_body::Body>(&self, response: &Response<B>) -> bool {
        let content_type = response.headers().get(header::CONTENT_TYPE);
        let content_type = content_type.map_or(&b""[..], |value| value.as_bytes());
        [&b"text/"[..], b"application/json", b"application/x-ndjson"]
            .iter()
            .any(|prefix| content_type.starts_with(prefix))
    }
}
