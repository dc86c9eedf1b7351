//! Requests that do not reach a service: why, and with which codes.

use http::StatusCode;
use prost::Message;
use prost_types::Any;
use tonic::{Code, Status};
use tonic_types::pb;

use super::{json::JsonError, percent::DecodeError, shortened::shortened};

/// The prefix of the types of details.
pub(crate) const TYPE_URL: &str = "type.googleapis.com/";

const BAD_REQUEST: &str = "google.rpc.BadRequest";

/// A request that does not reach the service.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Rejection {
    /// No template matches the path.
    #[error("no method is served at {0}")]
    NoRoute(String),
    /// The path is known under other methods only.
    #[error("{method} is not served here, only {allow}")]
    MethodNotAllowed {
        /// The method asked for.
        method: String,
        /// The value of `Allow`.
        allow: String,
    },
    /// The path cannot be decoded.
    #[error("the path {0}")]
    BadPath(DecodeError),
    /// The query cannot be decoded.
    #[error("the query {0}")]
    BadQuery(DecodeError),
    /// One field, by the name the client used, is wrong.
    #[error("{field}: {problem}")]
    Field {
        /// The field.
        field: String,
        /// The problem with it, and what would be right.
        problem: String,
    },
    /// The body is not the JSON asked for.
    #[error("{0}")]
    Json(#[from] JsonError),
    /// A body where none is taken.
    #[error("this method takes no body; its fields go into the path and the query")]
    UnexpectedBody,
    /// The body ended early, or cannot be decoded.
    #[error(
        "the request body could not be read: it broke off, or is not what its content-encoding says"
    )]
    BodyBroken,
    /// A message with more levels than are read.
    #[error("the request body is nested too deeply")]
    TooDeep,
    /// The body is larger than the limit, in bytes.
    #[error("the request body is larger than the limit of {0} bytes")]
    BodyTooLarge(usize),
    /// The body did not end in time.
    #[error("the request body did not end within {} seconds", .0.as_secs())]
    BodyTooSlow(std::time::Duration),
    /// The body is not JSON by its own account.
    #[error("the request body must be JSON (content-type application/json), not {0}")]
    MediaType(String),
    /// The body is compressed, by what is not decoded here or before.
    #[error("the content-encoding {0} of the request body is not taken")]
    ContentEncoding(String),
    /// A method that takes a stream of requests.
    #[error("{0} takes a stream of requests and is served over gRPC only")]
    ClientStreaming(String),
    /// A method that is not served, over a protocol whose paths are methods.
    #[error("the method {0} is not served here")]
    NoMethod(String),
    /// Messages in a form that is not served.
    #[error("messages are not taken as {sent:?}, only as {}", taken.join(" or "))]
    Codec {
        /// The form, as the client names it.
        sent: String,
        /// The forms that are taken.
        taken: [&'static str; 2],
    },
    /// The client takes none of these media types.
    #[error("the reply is {0}, which the Accept header of the request leaves out")]
    NotAcceptable(String),
    /// A header that cannot be understood.
    #[error("the header {name} {problem}")]
    BadHeader {
        /// The header.
        name: String,
        /// The form that would be right.
        problem: &'static str,
    },
    /// The time that the client gave is over.
    #[error("the time that grpc-timeout gives is over")]
    DeadlineExceeded,
}

impl Rejection {
    pub(crate) fn field(field: &str, problem: String) -> Self {
        Self::Field {
            field: shortened(field),
            problem,
        }
    }

    fn codes(&self) -> (StatusCode, Code) {
        match self {
            Self::NoRoute(_) => (StatusCode::NOT_FOUND, Code::NotFound),
            Self::MethodNotAllowed { .. } => (StatusCode::METHOD_NOT_ALLOWED, Code::Unimplemented),
            Self::BodyTooSlow(_) => (StatusCode::REQUEST_TIMEOUT, Code::DeadlineExceeded),
            Self::BodyTooLarge(_) => (StatusCode::PAYLOAD_TOO_LARGE, Code::ResourceExhausted),
            Self::MediaType(_) | Self::ContentEncoding(_) | Self::Codec { .. } => {
                (StatusCode::UNSUPPORTED_MEDIA_TYPE, Code::InvalidArgument)
            }
            Self::NotAcceptable(_) => (StatusCode::NOT_ACCEPTABLE, Code::InvalidArgument),
            Self::DeadlineExceeded => (StatusCode::GATEWAY_TIMEOUT, Code::DeadlineExceeded),
            Self::ClientStreaming(_) | Self::NoMethod(_) => {
                (StatusCode::NOT_IMPLEMENTED, Code::Unimplemented)
            }
            Self::BadHeader { .. }
            | Self::BadPath(_)
            | Self::BadQuery(_)
            | Self::Field { .. }
            | Self::Json(_)
            | Self::UnexpectedBody
            | Self::BodyBroken
            | Self::TooDeep => (StatusCode::BAD_REQUEST, Code::InvalidArgument),
        }
    }

    fn violation(&self) -> Option<(&str, &str)> {
        match self {
            Self::Field { field, problem } => Some((field, problem)),
            Self::Json(error) => Some((error.field.as_deref()?, &error.problem)),
            _ => None,
        }
    }

    /// The HTTP code, and the status with a `google.rpc.BadRequest` where the field is known.
    pub(crate) fn to_status(&self) -> (StatusCode, Status) {
        let (http_status, code) = self.codes();
        let message = self.to_string();
        let mut full = pb::Status {
            code: code as i32,
            message: message.clone(),
            details: Vec::new(),
        };
        if let Some((field, description)) = self.violation() {
            let bad_request = pb::BadRequest {
                field_violations: vec![pb::bad_request::FieldViolation {
                    field: field.to_owned(),
                    description: description.to_owned(),
                    ..Default::default()
                }],
            };
            full.details.push(Any {
                type_url: format!("{TYPE_URL}{BAD_REQUEST}"),
                value: bad_request.encode_to_vec(),
            });
        }
        let details = full.encode_to_vec().into();
        (http_status, Status::with_details(code, message, details))
    }
}
