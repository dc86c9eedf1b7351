//! Everything that goes wrong as `google.rpc.Status` in JSON, with the HTTP code of its gRPC code.

use std::sync::OnceLock;

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, Value};
use prost_types::Any;
use tonic::{Code, Status};
use tonic_types::pb;

use super::{
    accept::JSON,
    body::ResponseBody,
    json, metadata,
    rejection::{Rejection, TYPE_URL},
};

const STATUS: &str = "google.rpc.Status";
const REQUEST_INFO: &str = "google.rpc.RequestInfo";
const RETRY_INFO: &str = "google.rpc.RetryInfo";

/// The HTTP code of a gRPC code, by the table in `google/rpc/code.proto`.
pub fn http_status(code: Code) -> StatusCode {
    match code {
        Code::Ok => StatusCode::OK,
        // 499, "client closed request", has no name in the registry of HTTP codes.
        Code::Cancelled => StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST),
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => {
            StatusCode::BAD_REQUEST
        }
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::Aborted => StatusCode::CONFLICT,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::Unknown | Code::Internal | Code::DataLoss => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// In the extensions of the response to a call that failed: how it ended.
#[derive(Debug, Clone)]
pub struct Failed {
    /// The gRPC code.
    pub code: Code,
    /// The message of the status.
    pub message: String,
}

/// The reply to a call that ended with `status`: `{"code", "message", "details"}`, the details from
/// the status (its `grpc-status-details-bin`, a `google.rpc.Status`), those of types that `pool` lacks
/// as `@type` and base64 `value`; a `google.rpc.RequestInfo` with `request_id` unless there is one;
/// `WWW-Authenticate: Bearer` with 401, and `Retry-After` with a `google.rpc.RetryInfo`. The status's
/// own metadata becomes headers, and wins over these two.
pub fn error_response(
    status: &Status,
    request_id: Option<&str>,
    pool: &DescriptorPool,
) -> Response<ResponseBody> {
    error_response_with(http_status(status.code()), status, request_id, pool)
}

/// [`error_response`] with another HTTP code than that of the gRPC code.
fn error_response_with(
    http_status: StatusCode,
    status: &Status,
    request_id: Option<&str>,
    pool: &DescriptorPool,
) -> Response<ResponseBody> {
    let mut full = full_status(status);
    let has_request_info = full
        .details
        .iter()
        .any(|detail| type_name(detail) == REQUEST_INFO);
    if let Some(request_id) = request_id
        && !has_request_info
    {
        full.details.push(request_info(request_id));
    }
    let text = status_json(&full, pool);
    let mut response = Response::new(ResponseBody::from(Bytes::from(text)));
    *response.status_mut() = http_status;
    let json = HeaderValue::from_static(JSON);
    *response.headers_mut() = metadata::of_reply(status.metadata().as_ref().clone(), Some(json));
    response.extensions_mut().insert(Failed {
        code: status.code(),
        message: full.message.clone(),
    });
    advise(response.headers_mut(), http_status, &full);
    response
}

/// Tells in headers what a client may do: authenticate, or come back later.
pub(crate) fn advise(headers: &mut HeaderMap, http_status: StatusCode, full: &pb::Status) {
    if http_status == StatusCode::UNAUTHORIZED {
        // A service that knows better has sent its own challenge.
        headers
            .entry(header::WWW_AUTHENTICATE)
            .or_insert(HeaderValue::from_static("Bearer"));
    }
    if let Some(seconds) = retry_after(full) {
        headers
            .entry(header::RETRY_AFTER)
            .or_insert(HeaderValue::from(seconds));
    }
}

/// The reply to a request that does not reach its method.
pub(super) fn rejection_response(
    rejection: &Rejection,
    request_id: Option<&str>,
    pool: &DescriptorPool,
) -> Response<ResponseBody> {
    let (http_status, status) = rejection.to_status();
    let mut response = error_response_with(http_status, &status, request_id, pool);
    if let Rejection::MethodNotAllowed { allow, .. } = rejection
        && let Ok(allow) = HeaderValue::from_str(allow)
    {
        response.headers_mut().insert(header::ALLOW, allow);
    }
    response
}

fn status_json(full: &pb::Status, pool: &DescriptorPool) -> String {
    format!("{{{}}}", status_fields(full, pool))
}

/// A status as it stands in a `google.protobuf.Any`.
pub(super) fn status_any_json(status: &Status, pool: &DescriptorPool) -> String {
    format!(
        "{{\"@type\":\"{TYPE_URL}{STATUS}\",{}}}",
        status_fields(&full_status(status), pool)
    )
}

fn status_fields(full: &pb::Status, pool: &DescriptorPool) -> String {
    let details: Vec<_> = full
        .details
        .iter()
        .map(|detail| any_json(detail, pool))
        .collect();
    format!(
        "\"code\":{},\"message\":{},\"details\":[{}]",
        full.code,
        serde_json::Value::from(full.message.as_str()),
        details.join(",")
    )
}

/// The status with its details.
pub(crate) fn full_status(status: &Status) -> pb::Status {
    // Details that cannot be decoded are a defect of the service; its code and message still stand.
    let mut full = pb::Status::decode(status.details()).unwrap_or_default();
    if full.code != status.code() as i32 || full.message.is_empty() {
        full.code = status.code() as i32;
        full.message = status.message().to_owned();
    }
    full
}

/// How many whole seconds a `google.rpc.RetryInfo` asks to wait.
fn retry_after(full: &pb::Status) -> Option<u64> {
    let detail = full
        .details
        .iter()
        .find(|detail| type_name(detail) == RETRY_INFO)?;
    let delay = pb::RetryInfo::decode(detail.value.as_slice())
        .ok()?
        .retry_delay?;
    let seconds = u64::try_from(delay.seconds).ok()?;
    Some(seconds + u64::from(delay.nanos > 0))
}

fn request_info(request_id: &str) -> Any {
    let info = pb::RequestInfo {
        request_id: request_id.to_owned(),
        serving_data: String::new(),
    };
    Any {
        type_url: format!("{TYPE_URL}{REQUEST_INFO}"),
        value: info.encode_to_vec(),
    }
}

/// The full name of the type of a detail.
pub(crate) fn type_name(any: &Any) -> &str {
    any.type_url.rsplit('/').next().unwrap_or_default()
}

/// The standard details are known even where the pool of the services lacks them.
pub(crate) fn standard_details() -> &'static DescriptorPool {
    static POOL: OnceLock<DescriptorPool> = OnceLock::new();
    POOL.get_or_init(|| DescriptorPool::decode(pb::FILE_DESCRIPTOR_SET).unwrap_or_default())
}

fn any_json(any: &Any, pool: &DescriptorPool) -> String {
    known_any_json(any, pool)
        .or_else(|| known_any_json(any, standard_details()))
        .unwrap_or_else(|| {
            format!(
                "{{\"@type\":{},\"value\":\"{}\"}}",
                serde_json::Value::from(any.type_url.as_str()),
                BASE64_STANDARD.encode(&any.value)
            )
        })
}

fn known_any_json(any: &Any, pool: &DescriptorPool) -> Option<String> {
    let mut message = DynamicMessage::new(pool.get_message_by_name("google.protobuf.Any")?);
    message
        .try_set_field_by_number(1, Value::String(any.type_url.clone()))
        .ok()?;
    message
        .try_set_field_by_number(2, Value::Bytes(Bytes::from(any.value.clone())))
        .ok()?;
    String::from_utf8(json::write(&message).ok()?).ok()
}
