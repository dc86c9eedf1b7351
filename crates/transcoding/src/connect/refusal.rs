//! Answers to requests that do not get as far as their method.

use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use prost_reflect::DescriptorPool;
use tonic::Status;

use super::{
    envelopes::{END, envelope},
    error::{end_of_stream, failed, status_of, unary},
    head::{Format, is_connect},
};
use crate::{body::ResponseBody, rejection::Rejection, response};

/// The response to a request that says that it is of the Connect protocol ([`is_connect`]) and ends with `status`
/// before it reaches a [`Transcoder`](crate::Transcoder); none for other requests.
pub fn connect_error<B>(
    request: &Request<B>,
    status: &Status,
    pool: &DescriptorPool,
) -> Option<Response<ResponseBody>> {
    is_connect(request).then(|| match Format::of_stream(request.headers()) {
        Some(format) => stream(status, format, pool),
        None => unary(status, pool),
    })
}

/// The response to a request that does not reach its method. `of_stream` is the format of the stream that its client
/// reads, if it does.
pub(super) fn refusal(
    rejection: &Rejection,
    of_stream: Option<Format>,
    pool: &DescriptorPool,
) -> Response<ResponseBody> {
    let status = status_of(rejection);
    let (http_status, name, value) = match rejection {
        Rejection::Codec { taken, .. } => (
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "accept-post",
            taken.join(", "),
        ),
        Rejection::MethodNotAllowed { allow, .. } => {
            (StatusCode::METHOD_NOT_ALLOWED, "allow", allow.clone())
        }
        _ => {
            return match of_stream {
                Some(format) => stream(&status, format, pool),
                None => unary(&status, pool),
            };
        }
    };
    let mut response = unary(&status, pool);
    *response.status_mut() = http_status;
    if let Ok(value) = HeaderValue::from_str(&value) {
        response.headers_mut().insert(name, value);
    }
    response
}

/// The response to a stream that failed before it began.
pub(super) fn stream(
    status: &Status,
    format: Format,
    pool: &DescriptorPool,
) -> Response<ResponseBody> {
    let mut headers = HeaderMap::new();
    let content_type = HeaderValue::from_static(format.stream_type());
    headers.insert(header::CONTENT_TYPE, content_type);
    let end = end_of_stream(&Err(status.clone()), &HeaderMap::new(), pool);
    let mut response = response::response(headers, envelope(END, end.as_bytes()));
    response.extensions_mut().insert(failed(status));
    response
}
