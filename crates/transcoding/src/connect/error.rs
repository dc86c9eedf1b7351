//! Errors, as the protocol writes them.

use base64::{Engine, prelude::BASE64_STANDARD_NO_PAD};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, header};
use prost_reflect::{DescriptorPool, DynamicMessage};
use prost_types::Any;
use tonic::{Code, Status};

use crate::{
    accept::JSON,
    body::ResponseBody,
    errors::{self, Failed},
    json, metadata,
    rejection::Rejection,
    response,
};

/// The status of a rejection in this protocol.
pub(super) fn status_of(rejection: &Rejection) -> Status {
    let (_, status) = rejection.to_status();
    match rejection {
        // The codings that are taken depend on what stands in front, and this one is always.
        Rejection::ContentEncoding(_) => Status::new(
            Code::Unimplemented,
            format!("{rejection}; one that is taken is identity"),
        ),
        _ => status,
    }
}

/// The response to a call of one message that failed.
pub(super) fn unary(status: &Status, pool: &DescriptorPool) -> Response<ResponseBody> {
    let http_status = errors::http_status(status.code());
    let mut headers = metadata::under_own_names(status.metadata().as_ref());
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(JSON));
    errors::advise(&mut headers, http_status, &errors::full_status(status));
    let body = Bytes::from(error_json(status, pool));
    let mut response = response::response(headers, body);
    *response.status_mut() = http_status;
    response.extensions_mut().insert(failed(status));
    response
}

pub(super) fn failed(status: &Status) -> Failed {
    Failed {
        code: status.code(),
        message: status.message().to_owned(),
    }
}

/// The last message of a stream.
pub(super) fn end_of_stream(
    end: &Result<(), Status>,
    trailers: &HeaderMap,
    pool: &DescriptorPool,
) -> String {
    let (error, metadata) = match end {
        Ok(()) => (None, metadata_json(trailers)),
        // Headers in front of the messages were sent already, and do no harm here.
        Err(status) => (
            Some(format!("\"error\":{}", error_json(status, pool))),
            metadata_json(status.metadata().as_ref()),
        ),
    };
    let metadata = metadata.map(|metadata| format!("\"metadata\":{metadata}"));
    let members: Vec<_> = error.into_iter().chain(metadata).collect();
    format!("{{{}}}", members.join(","))
}

fn error_json(status: &Status, pool: &DescriptorPool) -> String {
    let full = errors::full_status(status);
    let mut text = format!(
        "{{\"code\":\"{}\",\"message\":{}",
        code_name(status.code()),
        serde_json::Value::from(full.message.as_str()),
    );
    let details: Vec<_> = full
        .details
        .iter()
        .map(|detail| detail_json(detail, pool))
        .collect();
    if !details.is_empty() {
        text.push_str(&format!(",\"details\":[{}]", details.join(",")));
    }
    text.push('}');
    text
}

fn detail_json(detail: &Any, pool: &DescriptorPool) -> String {
    let name = errors::type_name(detail);
    let debug = debug_json(name, &detail.value, pool)
        .or_else(|| debug_json(name, &detail.value, errors::standard_details()))
        .map(|json| format!(",\"debug\":{json}"));
    format!(
        "{{\"type\":{},\"value\":\"{}\"{}}}",
        serde_json::Value::from(name),
        BASE64_STANDARD_NO_PAD.encode(&detail.value),
        debug.unwrap_or_default(),
    )
}

/// A detail for people to read.
fn debug_json(name: &str, value: &[u8], pool: &DescriptorPool) -> Option<String> {
    let message = DynamicMessage::decode(pool.get_message_by_name(name)?, value).ok()?;
    String::from_utf8(json::write(&message).ok()?).ok()
}

fn code_name(code: Code) -> &'static str {
    match code {
        // No error has this code.
        Code::Ok | Code::Unknown => "unknown",
        Code::Cancelled => "canceled",
        Code::InvalidArgument => "invalid_argument",
        Code::DeadlineExceeded => "deadline_exceeded",
        Code::NotFound => "not_found",
        Code::AlreadyExists => "already_exists",
        Code::PermissionDenied => "permission_denied",
        Code::ResourceExhausted => "resource_exhausted",
        Code::FailedPrecondition => "failed_precondition",
        Code::Aborted => "aborted",
        Code::OutOfRange => "out_of_range",
        Code::Unimplemented => "unimplemented",
        Code::Internal => "internal",
        Code::Unavailable => "unavailable",
        Code::DataLoss => "data_loss",
        Code::Unauthenticated => "unauthenticated",
    }
}

/// The metadata behind a reply, as the last message of a stream has it.
fn metadata_json(metadata: &HeaderMap) -> Option<String> {
    let mut members = Vec::new();
    for name in metadata.keys() {
        if metadata::is_of_protocol(name) {
            continue;
        }
        let values = metadata.get_all(name).iter();
        let values: Vec<_> = values
            .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
            .collect();
        let name = serde_json::Value::from(name.as_str());
        members.push(format!("{name}:{}", serde_json::Value::from(values)));
    }
    (!members.is_empty()).then(|| format!("{{{}}}", members.join(",")))
}
