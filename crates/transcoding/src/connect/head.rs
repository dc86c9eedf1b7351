//! The head of a request: how its messages are written, in which shape it comes, and how long its client waits.

use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method as HttpMethod, Request, Uri, header, request::Parts,
};

use crate::{
    deadline::{Deadline, connect_timeout},
    metadata::{self, Present},
    percent::{self, DecodeError},
    rejection::Rejection,
    request,
    rules::Method,
    shortened::shortened,
};

/// The prefix of the names of headers that belong to the protocol.
const RESERVED: &str = "connect-";
const STREAM_ENCODING: HeaderName = HeaderName::from_static("connect-content-encoding");
/// The largest number that gRPC has in a timeout.
const MOST_OF_GRPC: u64 = 99_999_999;

/// Whether a request says that it is of the Connect protocol.
pub fn is_connect<B>(request: &Request<B>) -> bool {
    let headers = request.headers();
    headers.contains_key(metadata::CONNECT_VERSION)
        || has_own_type(headers)
        || is_connect_get(request.method(), request.uri())
}

/// [`is_connect`], where the names of the headers have been looked at.
pub(crate) fn says_so(parts: &Parts, present: Present) -> bool {
    present.connect
        || present.content_type && has_own_type(&parts.headers)
        || is_connect_get(&parts.method, &parts.uri)
}

/// Whether the content type is one of the protocol alone.
fn has_own_type(headers: &HeaderMap) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE);
    let content_type = content_type.map_or(&b""[..], |value| value.as_bytes());
    let begins = |with: &str| {
        let start = content_type.get(..with.len());
        start.is_some_and(|start| start.eq_ignore_ascii_case(with.as_bytes()))
    };
    begins("application/proto") || begins("application/connect+")
}

fn is_connect_get(method: &HttpMethod, uri: &Uri) -> bool {
    is_read(method)
        && uri
            .query()
            .is_some_and(|query| query.split('&').any(|pair| pair == "connect=v1"))
}

pub(super) fn is_read(method: &HttpMethod) -> bool {
    *method == HttpMethod::GET || *method == HttpMethod::HEAD
}

/// How messages are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Json,
    Proto,
}

/// In which shape a request comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// One message, which is the body.
    Unary,
    /// One message, in the query.
    Get,
    /// A stream both ways, of any number of messages each.
    Stream,
}

/// The head of a request, as it is understood.
pub(super) struct Head {
    pub shape: Shape,
    pub format: Format,
    pub deadline: Option<Deadline>,
}

impl Format {
    fn named(name: &str) -> Option<Self> {
        match name {
            "json" => Some(Self::Json),
            "proto" => Some(Self::Proto),
            _ => None,
        }
    }

    /// The format of a request of one message.
    pub(super) fn of_unary(headers: &HeaderMap) -> Option<Self> {
        Self::named(essence(headers)?.strip_prefix("application/")?)
    }

    /// The format of a stream.
    pub(super) fn of_stream(headers: &HeaderMap) -> Option<Self> {
        Self::named(essence(headers)?.strip_prefix("application/connect+")?)
    }

    /// The content type of one message.
    pub(super) fn unary_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Proto => "application/proto",
        }
    }

    /// The content type of a stream.
    pub(super) fn stream_type(self) -> &'static str {
        match self {
            Self::Json => "application/connect+json",
            Self::Proto => "application/connect+proto",
        }
    }
}

/// The content type without its parameters, in lower case. JSON is UTF-8 whatever they say.
fn essence(headers: &HeaderMap) -> Option<String> {
    let content_type = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    Some(essence.to_ascii_lowercase())
}

impl Head {
    /// Reads what a request for a method asks for. Nothing of the body has been read yet.
    pub(super) fn read(parts: &Parts, method: &Method) -> Result<Self, Rejection> {
        let is_streaming = method.client_streaming || method.server_streaming;
        let not_allowed = |allow: &str| Rejection::MethodNotAllowed {
            method: shortened(parts.method.as_str()),
            allow: allow.to_owned(),
        };
        let (shape, format) = if is_read(&parts.method) {
            if is_streaming || !method.is_safe {
                return Err(not_allowed("POST"));
            }
            (Shape::Get, format_of_query(parts.uri.query())?)
        } else if parts.method != HttpMethod::POST {
            return Err(not_allowed("POST"));
        } else if is_streaming {
            let format = Format::of_stream(&parts.headers);
            let wrong = || wrong_type(&parts.headers, Format::stream_type);
            (Shape::Stream, format.ok_or_else(wrong)?)
        } else {
            let format = Format::of_unary(&parts.headers);
            let wrong = || wrong_type(&parts.headers, Format::unary_type);
            (Shape::Unary, format.ok_or_else(wrong)?)
        };
        check_version(&parts.headers)?;
        match shape {
            Shape::Unary => request::check_encoding(&parts.headers, &header::CONTENT_ENCODING)?,
            Shape::Stream => request::check_encoding(&parts.headers, &STREAM_ENCODING)?,
            Shape::Get => {}
        }
        Ok(Self {
            shape,
            format,
            deadline: Deadline::of_connect(&parts.headers)?,
        })
    }
}

#[cold]
fn wrong_type(headers: &HeaderMap, of: fn(Format) -> &'static str) -> Rejection {
    Rejection::Codec {
        sent: shortened(&essence(headers).unwrap_or_default()),
        taken: [Format::Json, Format::Proto].map(of),
    }
}

fn check_version(headers: &HeaderMap) -> Result<(), Rejection> {
    match headers.get(metadata::CONNECT_VERSION) {
        Some(version) if version != "1" => Err(Rejection::BadHeader {
            name: "Connect-Protocol-Version".to_owned(),
            problem: "must be 1",
        }),
        _ => Ok(()),
    }
}

/// Takes away what belongs to the protocol, and tells the timeout as gRPC writes it: what is left is metadata.
pub(super) fn into_metadata(headers: &mut HeaderMap) {
    let timeout = headers
        .get(metadata::CONNECT_TIMEOUT)
        .and_then(connect_timeout);
    let reserved: Vec<_> = headers
        .keys()
        .filter(|name| name.as_str().starts_with(RESERVED))
        .cloned()
        .collect();
    for name in reserved {
        headers.remove(name);
    }
    let Some(timeout) = timeout else {
        return;
    };
    let millis = timeout.as_millis();
    let text = match u64::try_from(millis) {
        Ok(millis) if millis <= MOST_OF_GRPC => format!("{millis}m"),
        _ => format!("{}S", timeout.as_secs()),
    };
    if let Ok(value) = HeaderValue::try_from(text) {
        headers.insert(metadata::TIMEOUT, value);
    }
}

/// The parameters of a query, escaped still.
fn parameter<'q>(query: &'q str, name: &str) -> Option<&'q str> {
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.find(|(key, _)| *key == name).map(|(_, value)| value)
}

fn wrong(name: &str, problem: &str) -> Rejection {
    Rejection::field(name, problem.to_owned())
}

fn format_of_query(query: Option<&str>) -> Result<Format, Rejection> {
    let query = query.unwrap_or_default();
    match parameter(query, "connect") {
        None | Some("v1") => {}
        Some(_) => return Err(wrong("connect", "must be v1")),
    }
    match parameter(query, "compression") {
        None | Some("" | "identity") => {}
        Some(other) => return Err(Rejection::ContentEncoding(shortened(other))),
    }
    let name = parameter(query, "encoding").unwrap_or_default();
    Format::named(name).ok_or_else(|| Rejection::Codec {
        sent: shortened(name),
        taken: ["json", "proto"],
    })
}

/// The message in a query.
pub(super) fn message_of_query(query: &str) -> Result<Bytes, Rejection> {
    let message = parameter(query, "message").ok_or_else(|| wrong("message", "must be sent"))?;
    percent::check(message).map_err(Rejection::BadQuery)?;
    let spaced = message.replace('+', " ");
    let bytes: Vec<u8> = percent_encoding::percent_decode_str(&spaced).collect();
    if parameter(query, "base64") != Some("1") {
        // Bytes that are no text come from a client that forgot to say base64.
        return match std::str::from_utf8(&bytes) {
            Ok(_) => Ok(Bytes::from(bytes)),
            Err(_) => Err(Rejection::BadQuery(DecodeError::NotUtf8)),
        };
    }
    let decoded = URL_SAFE.decode(bytes);
    let decoded =
        decoded.map_err(|_| wrong("message", "must be base64 of the alphabet for URLs"))?;
    Ok(Bytes::from(decoded))
}

/// The base64 of RFC 4648, section 5, padded or not.
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(
    &alphabet::URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);
