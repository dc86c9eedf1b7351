//! An HTTP request as a gRPC request: body, path and query become one message in one frame.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method as HttpMethod, Request, Version, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use prost::Message;
use prost_reflect::{DynamicMessage, Value};
use tonic::body::Body;

use super::{
    bindings,
    codec::Codec,
    deadline::Deadline,
    events::{self, Events, LAST_EVENT_ID},
    exact,
    frames::{self, PREFIX},
    json::JsonError,
    metadata::{self, Present},
    params::{self, Unknown},
    rejection::Rejection,
    router::{Match, Router},
    rules::{Binding, BodyRule, Method},
    settings::Settings,
    shortened::shortened,
};

/// How long a body that becomes a message may take: it is small.
const LONGEST_BODY: Duration = Duration::from_secs(30);

/// Reads a whole body of at most `limit` bytes, until `deadline`.
pub(crate) async fn read_body<B>(
    body: B,
    limit: usize,
    deadline: Option<Deadline>,
) -> Result<Bytes, Rejection>
where
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<tower::BoxError>,
{
    if body.size_hint().lower() > limit as u64 {
        return Err(Rejection::BodyTooLarge(limit));
    }
    let reading = tokio::time::timeout(LONGEST_BODY, Limited::new(body, limit).collect());
    let read = match deadline {
        None => reading.await,
        Some(deadline) => deadline
            .limit(reading)
            .await
            .ok_or(Rejection::DeadlineExceeded)?,
    };
    match read {
        Err(_) => Err(Rejection::BodyTooSlow(LONGEST_BODY)),
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Rejection::BodyTooLarge(limit)),
        Ok(Err(error)) => {
            tracing::debug!(%error, "a body cannot be read");
            Err(Rejection::BodyBroken)
        }
    }
}

/// Refuses bodies that are compressed still, by the header that says so.
pub(crate) fn check_encoding(headers: &HeaderMap, name: &HeaderName) -> Result<(), Rejection> {
    match headers.get(name) {
        Some(encoding) if !encoding.as_bytes().eq_ignore_ascii_case(b"identity") => {
            Err(Rejection::ContentEncoding(printable(encoding)))
        }
        _ => Ok(()),
    }
}

/// Refuses bodies that by their headers are not JSON. Taken is what calls itself JSON, what says
/// nothing, and the two types under which clients send whatever they have: that of forms, as `curl -d`
/// does, and plain text.
pub(crate) fn check_content_type(headers: &HeaderMap) -> Result<(), Rejection> {
    let Some(content_type) = headers.get(header::CONTENT_TYPE) else {
        return Ok(());
    };
    let whole = printable(content_type);
    let essence = whole.split(';').next().unwrap_or_default().trim();
    let is_taken = match essence.to_ascii_lowercase().as_str() {
        "" | "application/json" | "text/json" => true,
        "application/x-www-form-urlencoded" | "text/plain" => true,
        other => other.contains('/') && other.ends_with("+json"),
    };
    match is_taken {
        true => Ok(()),
        false => Err(Rejection::MediaType(essence.to_owned())),
    }
}

/// The frame of the request message: the body first, then path variables, then query parameters.
pub(crate) fn frame(
    codec: &Codec,
    router: &Router<Binding>,
    found: Match,
    parts: &http::request::Parts,
    body: Bytes,
    settings: &Settings,
) -> Result<Vec<u8>, Rejection> {
    let binding = &router.route(found).value;
    let mut frame = Vec::with_capacity(PREFIX + 64 + body.len());
    frame.resize(PREFIX, 0);
    if binding.takes_raw_body {
        raw_body(binding, &parts.headers, body)?.encode_raw(&mut frame);
    } else if !body.is_empty() {
        check_content_type(&parts.headers)?;
        json_body(codec, binding, &body, &mut frame)?;
    }
    let body_end = frame.len();
    let query = parts.uri.query().unwrap_or_default();
    let captures = router.captures(found, parts.uri.path());
    let is_put = query.is_empty() && bindings::append_path(binding, captures, PREFIX, &mut frame)?;
    if !is_put {
        frame.truncate(body_end);
        merge(router, found, parts, settings, &mut frame)?;
    }
    if binding.method.server_streaming
        && let Some(events) = &settings.events
        && let Some(last) = parts.headers.get(LAST_EVENT_ID)
    {
        resume(&**events, &binding.method, last, &mut frame)?;
    }
    let longest = u32::MAX.try_into().unwrap_or(usize::MAX);
    frames::close(&mut frame).ok_or(Rejection::BodyTooLarge(longest))?;
    Ok(frame)
}

/// Puts path and query into the message of a frame. Something may be there twice: a message tells.
#[inline(never)]
fn merge(
    router: &Router<Binding>,
    found: Match,
    parts: &http::request::Parts,
    settings: &Settings,
    frame: &mut Vec<u8>,
) -> Result<(), Rejection> {
    let binding = &router.route(found).value;
    let mut message = DynamicMessage::decode(binding.method.input.clone(), &frame[PREFIX..])
        .map_err(|_| Rejection::TooDeep)?;
    params::apply_path(
        &mut message,
        binding,
        router.captures(found, parts.uri.path()),
    )?;
    let unknown = match settings.ignore_unknown_parameters {
        true => Unknown::Ignored,
        false => Unknown::Refused,
    };
    let query = parts.uri.query().unwrap_or_default();
    params::apply_query(&mut message, Some(binding), query, unknown)?;
    frame.truncate(PREFIX);
    exact::encode(&message, frame);
    Ok(())
}

/// Has a stream begin behind the event that its client saw last.
#[cold]
#[inline(never)]
fn resume(
    events: &dyn Events,
    method: &Method,
    last: &HeaderValue,
    frame: &mut Vec<u8>,
) -> Result<(), Rejection> {
    let wrong = |problem| Rejection::BadHeader {
        name: "Last-Event-ID".to_owned(),
        problem,
    };
    let Some(id) = events::last_id(last).map_err(wrong)? else {
        return Ok(());
    };
    let mut message = DynamicMessage::decode(method.input.clone(), &frame[PREFIX..])
        .map_err(|_| Rejection::TooDeep)?;
    events
        .resume(&method.name, id, &mut message)
        .map_err(wrong)?;
    frame.truncate(PREFIX);
    exact::encode(&message, frame);
    Ok(())
}

/// Appends the fields that a body of JSON gives.
#[inline(never)]
fn json_body(
    codec: &Codec,
    binding: &Binding,
    body: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), Rejection> {
    let input = binding.method.input_type;
    let read = match &binding.body {
        _ if trimmed(body).is_empty() => return Ok(()),
        BodyRule::Whole => codec.to_wire(input, body, out),
        BodyRule::Field(field) => codec.field_to_wire(input, field.number(), body, out),
        BodyRule::None if is_empty_object(body) => return Ok(()),
        BodyRule::None => return Err(Rejection::UnexpectedBody),
    };
    read.map_err(|error| Rejection::Json(JsonError::new(&error, body)))
}

/// A request with a body that is taken as it is.
#[cold]
#[inline(never)]
fn raw_body(
    binding: &Binding,
    headers: &HeaderMap,
    body: Bytes,
) -> Result<DynamicMessage, Rejection> {
    let mut message = DynamicMessage::new(binding.method.input.clone());
    let target = match &binding.body {
        BodyRule::Field(field) => message.get_field_mut(field).as_message_mut(),
        _ => Some(&mut message),
    };
    let Some(target) = target else {
        return Ok(message);
    };
    if let Some(content_type) = headers.get(header::CONTENT_TYPE) {
        let text = content_type
            .to_str()
            .map_err(|_| Rejection::MediaType(printable(content_type)))?;
        target.set_field_by_name("content_type", Value::String(text.to_owned()));
    }
    target.set_field_by_name("data", Value::Bytes(body));
    Ok(message)
}

fn is_empty_object(body: &[u8]) -> bool {
    trimmed(body)
        .strip_prefix(b"{")
        .and_then(|rest| rest.strip_suffix(b"}"))
        .is_some_and(|inside| trimmed(inside).is_empty())
}

/// A text without what JSON takes for white space around it.
fn trimmed(text: &[u8]) -> &[u8] {
    let is_space = |byte: &u8| b" \n\r\t".contains(byte);
    let start = text.iter().position(|byte| !is_space(byte));
    let end = text.iter().rposition(|byte| !is_space(byte));
    match (start, end) {
        (Some(start), Some(end)) => &text[start..=end],
        _ => &[],
    }
}

/// The gRPC request of this body, the headers as metadata, and the facts of the
/// connection that are in the extensions.
pub(crate) fn grpc_request(
    mut parts: http::request::Parts,
    method: &Method,
    body: Body,
    present: Present,
) -> Result<Request<Body>, Rejection> {
    parts.method = HttpMethod::POST;
    parts.version = Version::HTTP_2;
    parts.uri = method.path.clone().into();
    parts.headers = metadata::of_request(parts.headers, present)?;
    Ok(Request::from_parts(parts, body))
}

fn printable(value: &HeaderValue) -> String {
    shortened(&String::from_utf8_lossy(value.as_bytes()))
}
