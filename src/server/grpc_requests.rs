//! Requests that say they are gRPC or gRPC-Web: which of them go on to the services, and what the others are
//! told. A gRPC client reads a status, so it gets one, whatever else the reply is.

use std::collections::HashSet;

use http::{HeaderValue, Method, Request, Response, StatusCode, Version, header};
use prost_reflect::DescriptorPool;
use tonic::Status;
use tonic::body::Body;
use transcoding::ResponseBody;

use super::{error, not_allowed};
use crate::contract::texts;

/// The prefix of the content types of all kinds of gRPC.
const FAMILY: &[u8] = b"application/grpc";
const GRPC: &str = "application/grpc";
const WEB: &str = "application/grpc-web+proto";
const WEB_TEXT: &str = "application/grpc-web-text+proto";

/// Methods that are served over gRPC, by path.
pub(crate) struct Methods {
    paths: HashSet<String>,
    /// Those whose replies are streams.
    streams: Vec<String>,
    services: HashSet<String>,
}

/// The encoding that a request names for its messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Grpc,
    Web,
    WebText,
    /// In messages that are not protobuf, as JSON or Thrift.
    Other {
        is_web: bool,
    },
    /// No gRPC, though the name begins like it.
    Stranger,
}

/// Whether a request says that it is gRPC of any kind.
pub(crate) fn concerns<B>(request: &Request<B>) -> bool {
    let content_type = request.headers().get(header::CONTENT_TYPE);
    let start = content_type.and_then(|value| value.as_bytes().get(..FAMILY.len()));
    start.is_some_and(|start| start.eq_ignore_ascii_case(FAMILY))
}

fn kind<B>(request: &Request<B>) -> Kind {
    let content_type = request.headers().get(header::CONTENT_TYPE);
    Kind::of(content_type.map_or(&b""[..], |value| value.as_bytes()))
}

/// The refusal of a request that says that it is gRPC of any kind.
pub(crate) fn refusal<B>(request: &Request<B>, status: &Status) -> Response<ResponseBody> {
    refused(kind(request), status)
}

impl Kind {
    fn of(content_type: &[u8]) -> Self {
        if content_type == FAMILY {
            return Self::Grpc;
        }
        let text = String::from_utf8_lossy(content_type).to_ascii_lowercase();
        let essence = text.split(';').next().unwrap_or_default().trim_end();
        match essence.strip_prefix(GRPC).unwrap_or(essence) {
            "" | "+proto" => Self::Grpc,
            "-web" | "-web+proto" => Self::Web,
            "-web-text" | "-web-text+proto" => Self::WebText,
            other if other.starts_with('+') => Self::Other { is_web: false },
            other if other.starts_with("-web+") || other.starts_with("-web-text+") => {
                Self::Other { is_web: true }
            }
            _ => Self::Stranger,
        }
    }

    /// The one way in which the layers behind know it.
    fn content_type(self) -> &'static str {
        match self {
            Self::Web | Self::Other { is_web: true } => WEB,
            Self::WebText => WEB_TEXT,
            Self::Grpc | Self::Other { is_web: false } | Self::Stranger => GRPC,
        }
    }
}

impl Methods {
    /// The methods of the named services.
    pub(crate) fn new<'s>(
        pool: &DescriptorPool,
        services: impl IntoIterator<Item = &'s str>,
    ) -> Self {
        let services: HashSet<String> = services.into_iter().map(str::to_owned).collect();
        let described = services
            .iter()
            .filter_map(|name| pool.get_service_by_name(name));
        let (mut paths, mut streams) = (HashSet::new(), Vec::new());
        for service in described {
            for method in service.methods() {
                let path = format!("/{}/{}", service.full_name(), method.name());
                if method.is_server_streaming() {
                    streams.push(path.clone());
                }
                paths.insert(path);
            }
        }
        Self {
            paths,
            streams,
            services,
        }
    }

    /// Whether a request is a gRPC call, not one of gRPC-Web, whose reply is one message.
    pub(crate) fn is_unary<B>(&self, request: &Request<B>) -> bool {
        let path = request.uri().path();
        concerns(request)
            && request.version() >= Version::HTTP_2
            && kind(request) == Kind::Grpc
            && !self.streams.iter().any(|stream| stream == path)
    }

    /// Lets a request go on to its method, under the content type that the layers behind know, or
    /// answers it.
    pub(crate) fn admit(
        &self,
        request: &mut Request<Body>,
        request_id: &str,
    ) -> Result<(), Box<Response<ResponseBody>>> {
        let content_type = request.headers().get(header::CONTENT_TYPE);
        let content_type = content_type.map_or(&b""[..], |value| value.as_bytes());
        let kind = Kind::of(content_type);
        let canonical = kind.content_type();
        let is_canonical = content_type == canonical.as_bytes();
        if request.version() < Version::HTTP_2
            && matches!(kind, Kind::Grpc | Kind::Other { is_web: false })
        {
            return Err(Box::new(needs_http2(request.version(), request_id)));
        }
        if matches!(kind, Kind::Other { .. } | Kind::Stranger) {
            return Err(Box::new(not_protobuf(kind, content_type, request_id)));
        }
        if *request.method() != Method::POST {
            return Err(Box::new(not_allowed(request, "POST", request_id)));
        }
        if !self.paths.contains(request.uri().path()) {
            let status = self.unimplemented(request.uri().path());
            return Err(Box::new(refused(kind, &status)));
        }
        if !is_canonical {
            let canonical = HeaderValue::from_static(canonical);
            request
                .headers_mut()
                .insert(header::CONTENT_TYPE, canonical);
        }
        Ok(())
    }

    #[cold]
    fn unimplemented(&self, path: &str) -> Status {
        let method = path.strip_prefix('/').and_then(|path| path.split_once('/'));
        let shown = texts::shown_path(path.trim_start_matches('/'));
        Status::unimplemented(match method {
            Some((service, _)) if self.services.contains(service) => {
                format!("the method {shown} is not served: the service has no such method here")
            }
            Some((_, method)) if !method.is_empty() && !method.contains('/') => {
                format!("the method {shown} is not served: there is no such service here")
            }
            _ => format!("{shown:?} is no method: a path has the form /package.Service/Method"),
        })
    }
}

/// The refusal of messages that are not protobuf: to clients of gRPC a status, to others a code of HTTP.
#[cold]
fn not_protobuf(kind: Kind, content_type: &[u8], request_id: &str) -> Response<ResponseBody> {
    let words = format!(
        "the content-type {} is not served: messages of gRPC are protobuf here (application/grpc+proto or \
         application/grpc-web+proto), and JSON is plain HTTP (application/json)",
        texts::shown_path(&String::from_utf8_lossy(content_type))
    );
    if kind != Kind::Stranger {
        return refused(kind, &Status::unimplemented(words));
    }
    let mut response = error(&Status::invalid_argument(words), request_id);
    *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
    response
}

/// A refusal in headers alone.
fn refused(kind: Kind, status: &Status) -> Response<ResponseBody> {
    let mut response = status.clone().into_http::<Body>();
    let content_type = HeaderValue::from_static(kind.content_type());
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, content_type);
    response.map(ResponseBody::from)
}

/// The refusal of gRPC over HTTP/1. As a rule a proxy stands between, and passes on what a gRPC client sent:
/// that client reads the status in the headers, people read the body.
fn needs_http2(version: Version, request_id: &str) -> Response<ResponseBody> {
    let status = Status::unimplemented(format!(
        "gRPC needs HTTP/2 from end to end, and this request came by {version:?}: a proxy must speak HTTP/2 \
         to this server (nginx: grpc_pass), or the client gRPC-Web"
    ));
    let mut response = error(&status, request_id);
    *response.status_mut() = StatusCode::HTTP_VERSION_NOT_SUPPORTED;
    let told = status.add_header(response.headers_mut());
    // The words are of ASCII.
    debug_assert!(told.is_ok());
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_types_are_read_as_they_may_be_written() {
        for (content_type, kind) in [
            ("application/grpc", Kind::Grpc),
            ("application/grpc+proto", Kind::Grpc),
            ("Application/GRPC", Kind::Grpc),
            ("application/grpc;charset=utf-8", Kind::Grpc),
            ("application/grpc+proto ; x=y", Kind::Grpc),
            ("application/grpc-web", Kind::Web),
            ("application/grpc-web+proto", Kind::Web),
            ("application/grpc-web+proto; charset=utf-8", Kind::Web),
            ("application/grpc-web-text", Kind::WebText),
            ("application/grpc-web-text+proto", Kind::WebText),
            ("application/grpc+json", Kind::Other { is_web: false }),
            ("application/grpc+thrift", Kind::Other { is_web: false }),
            ("application/grpc+", Kind::Other { is_web: false }),
            ("application/grpc+protox", Kind::Other { is_web: false }),
            ("application/grpc-web+json", Kind::Other { is_web: true }),
            ("application/grpc-web+thrift", Kind::Other { is_web: true }),
            (
                "application/grpc-web-text+json",
                Kind::Other { is_web: true },
            ),
            ("application/grpcx", Kind::Stranger),
            ("application/grpc-websocket", Kind::Stranger),
            ("application/grpc/x", Kind::Stranger),
        ] {
            let request = Request::builder().header("content-type", content_type);
            assert!(concerns(&request.body(()).expect("a request")));
            assert_eq!(Kind::of(content_type.as_bytes()), kind, "{content_type}");
        }
        for content_type in ["application/json", "application/grp", ""] {
            let request = Request::builder().header("content-type", content_type);
            assert!(!concerns(&request.body(()).expect("a request")));
        }
    }
}
