//! An HTTP request as a gRPC request: body, path and query become one message in one frame.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method as HttpMethod, Request, Version, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use prost::Message;
use prost_reflect::DynamicMessage;
use tonic::body::Body;

use super::{
    bindings,
    codec::Codec,
    errors::{Rejection, shortened},
    json::JsonError,
    params,
    response::FRAME_PREFIX,
    router::Match,
    rules::{Binding, BodyRule, Method},
};

/// The prefix of HTTP headers that stand for gRPC metadata of the rest of their name.
const METADATA_PREFIX: &str = "grpc-metadata-";

/// How long a body that becomes a message may take: it is small.
const LONGEST_BODY: Duration = Duration::from_secs(30);

/// Reads a whole body of at most `limit` bytes.
pub async fn read_body<B>(body: B, limit: usize) -> Result<Bytes, Rejection>
where
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<tower::BoxError>,
{
    if body.is_end_stream() {
        return Ok(Bytes::new());
    }
    if body.size_hint().lower() > limit as u64 {
        return Err(Rejection::BodyTooLarge(limit));
    }
    let reading = Limited::new(body, limit).collect();
    let Ok(read) = tokio::time::timeout(LONGEST_BODY, reading).await else {
        return Err(Rejection::BodyTooSlow(LONGEST_BODY));
    };
    match read {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Rejection::BodyTooLarge(limit)),
        Err(error) => Err(Rejection::BodyBroken(error.to_string())),
    }
}

/// Refuses bodies that by their headers are not JSON. Everything else may turn out to be JSON, as
/// what `curl -d` sends under `application/x-www-form-urlencoded` does; no type at all is JSON.
pub fn check_content_headers(headers: &HeaderMap) -> Result<(), Rejection> {
    if let Some(encoding) = headers.get(header::CONTENT_ENCODING)
        && !encoding.as_bytes().eq_ignore_ascii_case(b"identity")
    {
        return Err(Rejection::ContentEncoding(printable(encoding)));
    }
    let Some(content_type) = headers.get(header::CONTENT_TYPE) else {
        return Ok(());
    };
    let whole = printable(content_type);
    let essence = whole.split(';').next().unwrap_or_default().trim();
    let (kind, subtype) = essence.split_once('/').unwrap_or((essence, ""));
    let subtype = subtype.to_ascii_lowercase();
    let refused = match kind.to_ascii_lowercase().as_str() {
        "text" | "application" => {
            subtype.ends_with("+xml")
                || subtype.ends_with("protobuf")
                || matches!(
                    subtype.as_str(),
                    "html" | "xml" | "yaml" | "x-yaml" | "csv" | "octet-stream" | "zip" | "gzip"
                )
        }
        // Forms of several parts, pictures, sound and the like.
        _ => !subtype.ends_with("+json"),
    };
    match refused {
        true => Err(Rejection::MediaType(essence.to_owned())),
        false => Ok(()),
    }
}

/// The frame of the request message: the body first, then path variables, then query parameters.
pub fn frame(
    codec: &Codec,
    found: &Match<'_, '_, Binding>,
    query: &str,
    body: &[u8],
) -> Result<Vec<u8>, Rejection> {
    let binding = &found.route.value;
    let body = body.trim_ascii();
    let mut frame = Vec::with_capacity(FRAME_PREFIX + 64 + body.len());
    frame.resize(FRAME_PREFIX, 0);
    put_body(codec, binding, body, &mut frame)?;
    let body_end = frame.len();
    let is_put = query.is_empty() && bindings::append_path(found, FRAME_PREFIX, &mut frame)?;
    if !is_put {
        // Something may be there twice: a message tells.
        frame.truncate(body_end);
        let fields = &frame[FRAME_PREFIX..];
        let mut message = DynamicMessage::decode(binding.method.input.clone(), fields)
            .map_err(|error| Rejection::BodyBroken(error.to_string()))?;
        params::apply_path(&mut message, binding, found.captures())?;
        params::apply_query(&mut message, Some(binding), query)?;
        frame.truncate(FRAME_PREFIX);
        message.encode_raw(&mut frame);
    }
    let length = u32::try_from(frame.len() - FRAME_PREFIX)
        .map_err(|_| Rejection::BodyTooLarge(u32::MAX.try_into().unwrap_or(usize::MAX)))?;
    frame[1..FRAME_PREFIX].copy_from_slice(&length.to_be_bytes());
    Ok(frame)
}

/// Appends the fields that the body gives.
fn put_body(
    codec: &Codec,
    binding: &Binding,
    body: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), Rejection> {
    let input = &binding.method.input;
    let message = || {
        codec
            .find(input)
            .ok_or_else(|| Rejection::BodyBroken(format!("{} is not known", input.full_name())))
    };
    let read = match &binding.body {
        _ if body.is_empty() => return Ok(()),
        BodyRule::Whole => codec.to_wire(message()?, body, out),
        BodyRule::Field(field) => codec.field_to_wire(message()?, field.number(), body, out),
        BodyRule::None if is_empty_object(body) => return Ok(()),
        BodyRule::None => return Err(Rejection::UnexpectedBody),
    };
    read.map_err(|error| Rejection::Json(JsonError::new(&error, body)))
}

fn is_empty_object(body: &[u8]) -> bool {
    body.strip_prefix(b"{")
        .and_then(|rest| rest.strip_suffix(b"}"))
        .is_some_and(|inside| inside.trim_ascii().is_empty())
}

/// The gRPC request that carries the frame, the headers as metadata, and the facts of the
/// connection that are in the extensions.
pub fn grpc_request(parts: http::request::Parts, method: &Method, frame: Vec<u8>) -> Request<Body> {
    let mut request = Request::new(Body::new(http_body_util::Full::new(Bytes::from(frame))));
    *request.method_mut() = HttpMethod::POST;
    *request.version_mut() = Version::HTTP_2;
    *request.uri_mut() = method.path.clone().into();
    *request.headers_mut() = metadata(&parts.headers);
    *request.extensions_mut() = parts.extensions;
    request
}

/// The headers of the gRPC request: those of the HTTP request that mean the call, not the hop or the
/// body. A header wins over its `Grpc-Metadata-` form.
fn metadata(headers: &HeaderMap) -> HeaderMap {
    let connection = named_by_connection(headers);
    let mut metadata = HeaderMap::with_capacity(headers.len() + 2);
    for (name, value) in headers {
        if is_forwarded(name) && !connection.contains(name) {
            metadata.append(name, value.clone());
        }
    }
    for (name, value) in headers {
        let Some(name) = name.as_str().strip_prefix(METADATA_PREFIX) else {
            continue;
        };
        if let Ok(name) = HeaderName::from_bytes(name.as_bytes())
            && is_forwarded(&name)
            && !headers.contains_key(&name)
        {
            metadata.append(name, value.clone());
        }
    }
    if let Some(timeout) = headers.get("grpc-timeout") {
        metadata.insert("grpc-timeout", timeout.clone());
    }
    metadata.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/grpc"),
    );
    metadata.insert(header::TE, HeaderValue::from_static("trailers"));
    metadata
}

fn named_by_connection(headers: &HeaderMap) -> Vec<HeaderName> {
    headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect()
}

fn is_forwarded(name: &HeaderName) -> bool {
    !is_of_hop_or_content(name)
        && !matches!(
            name.as_str(),
            "host" | "accept" | "accept-encoding" | "expect" | "range"
        )
}

/// Headers of one connection or of one body, and those of the gRPC protocol itself: they are never
/// passed on, in either direction.
pub fn is_of_hop_or_content(name: &HeaderName) -> bool {
    let name = name.as_str();
    name.starts_with("content-")
        || name.starts_with("grpc-")
        || name.starts_with("proxy-")
        || matches!(
            name,
            "connection" | "keep-alive" | "te" | "trailer" | "transfer-encoding" | "upgrade"
        )
}

fn printable(value: &HeaderValue) -> String {
    shortened(&String::from_utf8_lossy(value.as_bytes()))
}
