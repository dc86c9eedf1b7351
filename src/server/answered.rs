//! The line in the log for each request: what was answered, and why it was refused.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode, header};
use http_body::{Frame, SizeHint};
use percent_encoding::percent_decode;
use tonic::body::Body;
use tonic::{Code, Status};
use tracing::Span;
use transcoding::{Failed, ResponseBody, StreamEnd};

const STATUS: &str = "grpc-status";
const MESSAGE: &str = "grpc-message";
const NOT_AWAITED: &str = "the client did not wait for the end";

/// A request that is being answered.
pub(crate) struct Asked {
    span: Span,
    begun: Instant,
}

impl Asked {
    pub(crate) fn new(span: Span) -> Self {
        Self {
            span,
            begun: Instant::now(),
        }
    }

    /// Logs the response: at once where its status is known, else when it has been sent. That of gRPC is
    /// behind the messages.
    pub(crate) fn answered(self, mut response: Response<ResponseBody>) -> Response<ResponseBody> {
        let http = response.status();
        if let Some(failed) = response.extensions_mut().remove::<Failed>() {
            self.log(http, failed.code, &failed.message);
        } else if let Some(stream) = response.extensions_mut().remove::<StreamEnd>() {
            return response.map(|body| {
                body.on_end(move |_| match stream.get() {
                    Some((code, message)) => self.log(http, *code, message),
                    None => self.log(http, Code::Cancelled, NOT_AWAITED),
                })
            });
        } else if let Some((code, message)) = end(response.headers()) {
            self.log(http, code, &message);
        } else if !is_grpc(response.headers()) {
            self.log(http, code_of(http), "");
        } else if is_web(response.headers()) {
            let watched = |body| Body::new(WebBody::new(body, self, http)).into();
            return response.map(watched);
        } else {
            return response.map(|body| {
                body.on_end(move |trailers| match trailers.and_then(end) {
                    Some((code, message)) => self.log(http, code, &message),
                    None => self.log(http, Code::Cancelled, NOT_AWAITED),
                })
            });
        }
        response
    }

    fn log(&self, http: StatusCode, code: Code, message: &str) {
        let _entered = self.span.enter();
        let (status, grpc_status) = (http.as_u16(), name(code));
        let micros = self.begun.elapsed().as_micros() as u64;
        match code {
            Code::Ok => tracing::info!(status, grpc_status, micros, "answered"),
            Code::Internal | Code::Unknown | Code::DataLoss | Code::Unavailable => {
                tracing::warn!(status, grpc_status, micros, reason = message, "answered");
            }
            _ => tracing::info!(status, grpc_status, micros, reason = message, "answered"),
        }
    }
}

/// The end of a gRPC reply, where headers or trailers tell.
fn end(headers: &HeaderMap) -> Option<(Code, String)> {
    let code = Code::from_bytes(headers.get(STATUS)?.as_bytes());
    let message = headers.get(MESSAGE).map_or(&[][..], |it| it.as_bytes());
    let message = percent_decode(message).decode_utf8_lossy().into_owned();
    Some((code, message))
}

fn is_grpc(headers: &HeaderMap) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE);
    content_type.is_some_and(|it| it.as_bytes().starts_with(b"application/grpc"))
}

fn is_web(headers: &HeaderMap) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE);
    content_type.is_some_and(|it| it.as_bytes().starts_with(b"application/grpc-web"))
}

/// A reply over gRPC-Web, whose trailers are a frame of its data.
struct WebBody {
    body: ResponseBody,
    http: StatusCode,
    /// Until the end is logged.
    asked: Option<Asked>,
}

impl WebBody {
    fn new(body: ResponseBody, asked: Asked, http: StatusCode) -> Self {
        let asked = Some(asked);
        Self { body, http, asked }
    }
}

impl http_body::Body for WebBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(data) = frame.data_ref()
            && let Some((code, message)) = web_end(data)
            && let Some(asked) = self.asked.take()
        {
            asked.log(self.http, code, &message);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for WebBody {
    fn drop(&mut self) {
        if let Some(asked) = self.asked.take() {
            asked.log(self.http, Code::Cancelled, NOT_AWAITED);
        }
    }
}

/// The end of a reply, by its last frame: of the flag 0x80, or the same in base64.
fn web_end(frame: &[u8]) -> Option<(Code, String)> {
    let decoded = match frame.first()? {
        0x80 => frame.to_vec(),
        b'g' => BASE64_STANDARD.decode(frame).ok()?,
        _ => return None,
    };
    let [0x80, _, _, _, _, trailers @ ..] = &*decoded else {
        return None;
    };
    let trailers = std::str::from_utf8(trailers).ok()?;
    let value = |name: &str| {
        let mut lines = trailers.split("\r\n");
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
    };
    let code = Code::from_bytes(value(STATUS)?.trim().as_bytes());
    let message = value(MESSAGE).unwrap_or_default().trim();
    let message = percent_decode(message.as_bytes()).decode_utf8_lossy();
    Some((code, message.into_owned()))
}

/// The code of a reply that is neither an error in JSON nor gRPC.
fn code_of(http: StatusCode) -> Code {
    match http {
        StatusCode::PRECONDITION_FAILED => Code::FailedPrecondition,
        StatusCode::NOT_FOUND => Code::NotFound,
        http if http.is_client_error() => Code::InvalidArgument,
        http if http.is_server_error() => Code::Internal,
        _ => Code::Ok,
    }
}

/// The name of a code, as the gRPC specification writes it.
fn name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_reply_over_grpc_web_is_in_its_last_frame() {
        let trailers = b"\x80\0\0\0\x2agrpc-status:5\r\ngrpc-message:not%20there\r\n";
        let text = BASE64_STANDARD.encode(trailers);
        for frame in [&trailers[..], text.as_bytes()] {
            assert_eq!(
                web_end(frame),
                Some((Code::NotFound, "not there".to_owned()))
            );
        }
        let message = b"\0\0\0\0\x02\x0a\0";
        for frame in [
            &message[..],
            BASE64_STANDARD.encode(message).as_bytes(),
            b"",
            b"g",
        ] {
            assert_eq!(web_end(frame), None);
        }
    }
}
