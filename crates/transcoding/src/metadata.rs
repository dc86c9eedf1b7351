//! HTTP headers as gRPC metadata and back.
//!
//! - Every header of a request that means the call becomes metadata under its own name;
//!   `Grpc-Metadata-x` becomes `x` where `x` itself was not sent.
//! - Every metadata of a reply becomes a header of its own name and, for clients that know the
//!   gateways' custom, one of that name behind `Grpc-Metadata-`. Names that mean something to HTTP are
//!   sent in the second form only.
//! - Metadata behind the reply becomes trailers `Grpc-Trailer-x` where the client sends `TE: trailers`.
//! - A name that ends in `-bin` has a value in base64, in either alphabet, on both sides.

use base64::{Engine, prelude::BASE64_STANDARD_NO_PAD};
use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::{codec, rejection::Rejection};

/// How a call ended.
pub(crate) const STATUS: HeaderName = HeaderName::from_static("grpc-status");
/// How long the client waits: of the headers of the protocol itself, the one that means the call.
pub(crate) const TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
/// How long the client waits, in the Connect protocol.
pub(crate) const CONNECT_TIMEOUT: HeaderName = HeaderName::from_static("connect-timeout-ms");
/// Tells a request of the Connect protocol from others.
pub(crate) const CONNECT_VERSION: HeaderName = HeaderName::from_static("connect-protocol-version");
/// By what the client calls its request.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const METADATA_PREFIX: &str = "grpc-metadata-";
const TRAILER_PREFIX: &str = "grpc-trailer-";

/// Which of the headers that say how to serve a request are there. One look at the few names that most
/// requests have is less than to ask for each of these.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Present {
    pub accept: bool,
    pub connect: bool,
    pub content_encoding: bool,
    pub content_type: bool,
    pub request_id: bool,
    pub te: bool,
    pub timeout: bool,
    /// Whether there are any that do not become metadata as they are.
    pub others: bool,
}

impl Present {
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let mut present = Self::default();
        for name in headers.keys() {
            let this = match name.as_str() {
                "x-request-id" => {
                    present.request_id = true;
                    continue;
                }
                "accept" => &mut present.accept,
                "connect-protocol-version" => &mut present.connect,
                "content-encoding" => &mut present.content_encoding,
                "content-type" => &mut present.content_type,
                "grpc-timeout" => &mut present.timeout,
                "te" => &mut present.te,
                _ if is_forwarded(name) && !is_binary(name) => continue,
                _ => &mut present.others,
            };
            *this = true;
            present.others = true;
        }
        present
    }
}

/// The metadata of a call, made of the headers of a request.
pub(crate) fn of_request(mut headers: HeaderMap, present: Present) -> Result<HeaderMap, Rejection> {
    if present.others {
        headers = renamed(headers)?;
    }
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/grpc"),
    );
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
    Ok(headers)
}

/// The headers that become metadata, under their names there.
fn renamed(mut headers: HeaderMap) -> Result<HeaderMap, Rejection> {
    let connection = named_by_connection(&headers);
    let mut dropped = Vec::new();
    // What becomes metadata under another name or with another value.
    let mut changed = Vec::new();
    // Of several the first one counts.
    let mut timeout = None;
    for (name, value) in &headers {
        if let Some(own) = name.as_str().strip_prefix(METADATA_PREFIX) {
            if let Ok(own) = HeaderName::from_bytes(own.as_bytes())
                && is_forwarded(&own)
                && !headers.contains_key(&own)
            {
                changed.push((own, value.clone()));
            }
            dropped.push(name.clone());
        } else if *name == TIMEOUT {
            timeout.get_or_insert_with(|| value.clone());
        } else if !is_forwarded(name) || connection.contains(name) {
            dropped.push(name.clone());
        } else if is_binary(name) {
            changed.push((name.clone(), value.clone()));
            dropped.push(name.clone());
        }
    }
    for name in &dropped {
        headers.remove(name);
    }
    if let Some(timeout) = timeout {
        headers.insert(TIMEOUT, timeout);
    }
    for (name, value) in changed {
        append(&mut headers, name, value)?;
    }
    Ok(headers)
}

fn is_binary(name: &HeaderName) -> bool {
    name.as_str().ends_with("-bin")
}

fn append(metadata: &mut HeaderMap, name: HeaderName, value: HeaderValue) -> Result<(), Rejection> {
    if !is_binary(&name) {
        metadata.append(name, value);
        return Ok(());
    }
    // Several values may have been joined on the way.
    for text in value.to_str().unwrap_or("?").split(',') {
        let text =
            codec::from_base64(text.trim()).map(|bytes| BASE64_STANDARD_NO_PAD.encode(bytes));
        let value = text.and_then(|text| text.parse().ok());
        let value = value.ok_or_else(|| Rejection::BadHeader {
            name: name.to_string(),
            problem: "must be base64 (either alphabet), as its name ends in -bin",
        })?;
        metadata.append(&name, value);
    }
    Ok(())
}

/// The headers of an HTTP reply, made of the metadata of a reply, and of the type of its body if it has one.
pub(crate) fn of_reply(metadata: HeaderMap, content_type: Option<HeaderValue>) -> HeaderMap {
    // Most replies have no metadata, and their map serves again.
    let has_none = metadata.keys().all(|name| *name == header::CONTENT_TYPE);
    let mut headers = match has_none {
        true => metadata,
        false => passed_on(&metadata),
    };
    let Some(content_type) = content_type else {
        headers.remove(header::CONTENT_TYPE);
        return headers;
    };
    // The type of the reply itself, alone in its map, is found without a search.
    if has_none && headers.len() == 1 {
        headers
            .values_mut()
            .for_each(|value| *value = content_type.clone());
    } else {
        headers.insert(header::CONTENT_TYPE, content_type);
    }
    headers
}

fn passed_on(metadata: &HeaderMap) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in metadata {
        if !is_of_hop_or_content(name) {
            headers.append(name, value.clone());
        }
        if !is_of_protocol(name)
            && let Some(name) = prefixed(METADATA_PREFIX, name)
        {
            headers.append(name, value.clone());
        }
    }
    headers
}

/// Metadata of a reply as headers of its own names.
pub(crate) fn under_own_names(metadata: &HeaderMap) -> HeaderMap {
    let own = metadata
        .iter()
        .filter(|(name, _)| !is_of_hop_or_content(name));
    own.map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

/// The trailers of an HTTP reply, of the metadata behind a gRPC reply.
pub(crate) fn into_trailers(metadata: &HeaderMap) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    append_prefixed(&mut trailers, TRAILER_PREFIX, metadata);
    trailers
}

/// Adds metadata under its names behind a prefix.
pub(crate) fn append_prefixed(headers: &mut HeaderMap, prefix: &str, metadata: &HeaderMap) {
    let own = metadata.iter().filter(|(name, _)| !is_of_protocol(name));
    headers.extend(own.filter_map(|(name, value)| Some((prefixed(prefix, name)?, value.clone()))));
}

/// Whether a client takes trailers.
pub(crate) fn takes_trailers(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::TE).iter();
    values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|coding| coding.trim().eq_ignore_ascii_case("trailers"))
}

fn prefixed(prefix: &str, name: &HeaderName) -> Option<HeaderName> {
    HeaderName::from_bytes(format!("{prefix}{name}").as_bytes()).ok()
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
/// passed on under their own name, in either direction.
fn is_of_hop_or_content(name: &HeaderName) -> bool {
    is_of_protocol(name)
        || name.as_str().starts_with("content-")
        || name.as_str().starts_with("proxy-")
        || matches!(
            name.as_str(),
            "connection" | "keep-alive" | "trailer" | "transfer-encoding" | "upgrade"
        )
}

/// Headers of the gRPC protocol itself, which are no metadata.
pub(crate) fn is_of_protocol(name: &HeaderName) -> bool {
    name.as_str().starts_with("grpc-") || matches!(name.as_str(), "content-type" | "te")
}
