//! A gRPC reply as an HTTP response with JSON.

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use http_body_util::BodyExt;
use prost_reflect::DescriptorPool;
use tonic::{Code, Status, body::Body, metadata::MetadataMap};

use super::{codec::Codec, errors, request::is_of_hop_or_content, rules::Method, values};

/// The length of what stands before a message: a flag for compression and a 32-bit length.
pub const FRAME_PREFIX: usize = 5;

/// Reads the whole reply of a unary call.
pub async fn into_http(
    reply: Response<Body>,
    method: &Method,
    request_id: Option<&str>,
    (codec, pool): (&Codec, &DescriptorPool),
) -> Response<Body> {
    let (parts, body) = reply.into_parts();
    let mut response = match unary(&parts, body, method, codec).await {
        Ok(text) => {
            let mut response = Response::new(Body::new(http_body_util::Full::new(text)));
            forward_headers(&parts.headers, response.headers_mut());
            response.headers_mut().insert(
                header::CONTENT_TYPE,
                HeaderValue::from_static("application/json"),
            );
            response
        }
        Err(status) => errors::error_response(&status, request_id, pool),
    };
    *response.extensions_mut() = parts.extensions;
    response
}

/// Passes on the metadata of a reply as headers of the same names.
pub fn forward_headers(metadata: &HeaderMap, headers: &mut HeaderMap) {
    for (name, value) in metadata {
        if !is_of_hop_or_content(name) {
            headers.append(name, value.clone());
        }
    }
}

async fn unary(
    parts: &http::response::Parts,
    mut body: Body,
    method: &Method,
    codec: &Codec,
) -> Result<Bytes, Status> {
    // A reply without a message has its status in the headers.
    if let Some(status) = grpc_status(&parts.headers, &parts.headers)
        && status.code() != Code::Ok
    {
        return Err(status);
    }
    if parts.status != StatusCode::OK {
        return Err(status_of_http(parts.status));
    }
    let mut data = BytesMut::new();
    let mut trailers = HeaderMap::new();
    while let Some(frame) = body.frame().await {
        match frame?.into_data() {
            Ok(part) => data.extend_from_slice(&part),
            Err(frame) => {
                if let Ok(part) = frame.into_trailers() {
                    trailers.extend(part);
                }
            }
        }
    }
    match grpc_status(&trailers, &parts.headers).or(grpc_status(&parts.headers, &parts.headers)) {
        None => return Err(defect(method, "its reply has no status")),
        Some(status) if status.code() != Code::Ok => return Err(status),
        Some(_) => {}
    }
    let payload = one_message(data.freeze()).map_err(|problem| defect(method, problem))?;
    let message = codec
        .find(&method.output)
        .ok_or_else(|| defect(method, "the type of its reply is not known"))?;
    // JSON is a good deal longer than the wire bytes, by names and quotes.
    let mut text = Vec::with_capacity(256 + payload.len() * 2);
    match codec.to_json(message, &payload, &mut text) {
        Ok(()) => Ok(Bytes::from(text)),
        Err(error) if error.is_malformed() => Err(defect(
            method,
            &format!("its reply cannot be decoded: {error}"),
        )),
        Err(error) => Err(defect(
            method,
            &format!("its reply cannot be written as JSON: {error}"),
        )),
    }
}

/// The payload of the only frame of a reply.
fn one_message(mut data: Bytes) -> Result<Bytes, &'static str> {
    if data.is_empty() {
        return Err("its reply has no message");
    }
    if data.len() < FRAME_PREFIX {
        return Err("its reply ends within a frame");
    }
    if data.get_u8() != 0 {
        return Err("its reply is compressed, which was not asked for");
    }
    let length = data.get_u32() as usize;
    match data.len() {
        have if have < length => Err("its reply ends within a frame"),
        have if have > length => Err("its reply has more than one message"),
        _ => Ok(data),
    }
}

/// The status in trailers, or in headers of a reply without a message; the initial metadata goes along.
fn grpc_status(trailers: &HeaderMap, initial: &HeaderMap) -> Option<Status> {
    let code = Code::from_bytes(trailers.get("grpc-status")?.as_bytes());
    let message = trailers
        .get("grpc-message")
        .map(|message| percent_encoding::percent_decode(message.as_bytes()).decode_utf8_lossy())
        .unwrap_or_default();
    let details = trailers
        .get("grpc-status-details-bin")
        .and_then(|details| details.to_str().ok())
        .and_then(values::bytes)
        .unwrap_or_default();
    let metadata = MetadataMap::from_headers(initial.clone());
    Some(Status::with_details_and_metadata(
        code,
        message,
        details.into(),
        metadata,
    ))
}

/// The gRPC code of a reply that some layer gave without one, as the gRPC specification maps them.
fn status_of_http(http: StatusCode) -> Status {
    let code = match http.as_u16() {
        400 => Code::Internal,
        401 => Code::Unauthenticated,
        403 => Code::PermissionDenied,
        404 => Code::Unimplemented,
        429 | 502..=504 => Code::Unavailable,
        _ => Code::Unknown,
    };
    Status::new(code, format!("the call ended with HTTP status {http}"))
}

fn defect(method: &Method, problem: &str) -> Status {
    tracing::error!(method = method.name, problem, "a gRPC reply makes no JSON");
    Status::internal(format!("{}: {problem}", method.name))
}
