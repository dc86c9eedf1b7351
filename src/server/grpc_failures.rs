//! Failures over gRPC in two parts, headers and trailers, as servers of the public API send them.
//!
//! tonic answers a call that fails at once with headers alone ("Trailers-Only"). Clients in Go take these for trailers and
//! have no headers then, and the public SDKs look for the request ids of a failure in its headers
//! ([go-sdk 0.33](https://github.com/yandex-cloud/go-sdk/blob/v0.33.0/pkg/requestid/interceptor.go)).
//!
//! UNAVAILABLE keeps headers alone, unless the change may have been made: by that form the retry policy of gRPC knows that
//! a call may be sent again, and after headers without a status it never does
//! ([gRFC A6](https://github.com/grpc/proposal/blob/master/A6-client-retries.md#when-retries-are-valid)).

use http::{HeaderMap, Response, header};
use http_body::Frame;
use http_body_util::StreamBody;
use tonic::Status;
use tonic::body::Body;
use transcoding::ResponseBody;

use crate::grpc;

const STATUS: &str = "grpc-status";
/// Headers that belong to a status, and stand in trailers alone.
const OF_STATUS: [&str; 3] = [STATUS, "grpc-message", "grpc-status-details-bin"];
/// Headers that belong to messages, and stand in headers alone.
const OF_MESSAGES: [&str; 3] = ["content-type", "grpc-encoding", "grpc-accept-encoding"];
const GRPC: &[u8] = b"application/grpc";

/// The response to a call of one message with its status in trailers, if it is one of gRPC that has it in its headers. All
/// of its metadata is in both parts: clients look for it in either. A stream keeps its form, by which clients learn that it
/// failed before they ask for its first message.
pub(super) fn in_two_parts(response: Response<ResponseBody>) -> Response<ResponseBody> {
    let headers = response.headers();
    if !headers.contains_key(STATUS) || !is_grpc(headers) || grpc::may_be_sent_again(headers) {
        return response;
    }
    let (mut head, _) = response.into_parts();
    let mut trailers = head.headers.clone();
    for name in OF_MESSAGES {
        trailers.remove(name);
    }
    for name in OF_STATUS {
        head.headers.remove(name);
    }
    let frame = Ok::<_, Status>(Frame::trailers(trailers));
    let frames = futures_util::stream::iter([frame]);
    Response::from_parts(head, Body::new(StreamBody::new(frames)).into())
}

/// Whether a reply is gRPC over HTTP/2, and not gRPC-Web, which has no trailers.
fn is_grpc(headers: &HeaderMap) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE);
    content_type.is_some_and(|it| {
        let rest = it.as_bytes().strip_prefix(GRPC);
        rest.is_some_and(|rest| !rest.starts_with(b"-web"))
    })
}
