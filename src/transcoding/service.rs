//! The layer itself: a tower service around a gRPC service.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use prost_reflect::DescriptorPool;
use tonic::body::Body;
use tower::{BoxError, Service};

use super::{
    accept::{self, StreamForm},
    codec::{self, Codec},
    deadline::Deadline,
    metadata,
    rejection::{Rejection, shortened},
    request,
    response::{self, Asked, Form},
    router::{Miss, Router},
    rules::{self, Binding, BuildError},
};

const REQUEST_ID: &str = "x-request-id";

/// What a [`Transcoder`] takes and gives, where there is a choice.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The largest body of a request that becomes a message, in bytes. Requests that are gRPC already
    /// are not limited here.
    pub max_request_body: usize,
    /// Whether query parameters that name no field are passed over instead of refused.
    pub ignore_unknown_parameters: bool,
    /// How messages are written as JSON, and what is read. Errors have one form always.
    pub json: codec::Settings,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_request_body: 4 * 1024 * 1024,
            ignore_unknown_parameters: false,
            json: codec::Settings::default(),
        }
    }
}

/// Serves HTTP with JSON by the `google.api.http` rules of gRPC services, through those services.
///
/// Requests whose content type starts with `application/grpc` pass untouched. All others are routed
/// by their raw path; each becomes one call of the inner service, with the request's headers as
/// metadata and with its extensions. Where nobody waits for the reply any more, the call is dropped.
///
/// - A method without a rule is served as `POST /package.Service/Method`. One that replies with a
///   stream is served in the form that `Accept` asks for: a JSON array (`application/json`), lines of
///   JSON (`application/x-ndjson`) or server-sent events (`text/event-stream`). One that takes a
///   stream answers 501.
/// - HEAD is served from GET where the method is marked `idempotency_level = NO_SIDE_EFFECTS`;
///   OPTIONS tells the methods of a path. `X-HTTP-Method-Override` has no meaning here: it would make
///   a request another one than those who stand in between, logs and browsers among them, took it for.
/// - A body is JSON, under a type of JSON, none, that of forms (as `curl -d` sends) or plain text; other
///   types are refused (415). Whoever listens where browsers reach must check `Origin` before this layer.
/// - A `google.api.HttpBody` is taken and given as it is, with its content type.
/// - The query has the fields of the request and nothing else: there are no system parameters such as
///   `$alt` or `prettyPrint`.
/// - Headers and metadata are passed both ways as `metadata` says. `grpc-timeout` counts from the
///   arrival of the request; the inner service ends at it if [`super::Deadlines`] are around it.
/// - Every error is a `google.rpc.Status` in JSON, see [`super::errors`].
pub struct Transcoder<S> {
    shared: Arc<Shared>,
    grpc: S,
}

struct Shared {
    router: Router<Binding>,
    codec: Arc<Codec>,
    pool: DescriptorPool,
    settings: Settings,
}

impl<S: Clone> Clone for Transcoder<S> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            grpc: self.grpc.clone(),
        }
    }
}

impl<S> Transcoder<S> {
    /// Compiles the `google.api.http` rules of every method of the named services. `pool` also
    /// resolves the types inside `google.protobuf.Any`.
    pub fn new(
        pool: &DescriptorPool,
        services: impl IntoIterator<Item = impl AsRef<str>>,
        grpc: S,
        settings: Settings,
    ) -> Result<Self, BuildError> {
        let shared = Shared {
            router: rules::compile(pool, services)?,
            codec: Arc::new(Codec::new(pool, settings.json)),
            pool: pool.clone(),
            settings,
        };
        Ok(Self {
            shared: Arc::new(shared),
            grpc,
        })
    }
}

impl<S, B> Service<Request<B>> for Transcoder<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send + 'static,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.grpc.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        // The clone takes its place because only this one was polled to be ready.
        let clone = self.grpc.clone();
        let mut grpc = std::mem::replace(&mut self.grpc, clone);
        if is_grpc(&request) {
            return Box::pin(grpc.call(request.map(Body::new)));
        }
        let shared = Arc::clone(&self.shared);
        Box::pin(async move {
            let head = *request.method() == Method::HEAD;
            let request_id = request.headers().get(REQUEST_ID).cloned();
            let request_id = request_id.as_ref().and_then(|value| value.to_str().ok());
            let response = shared
                .transcode(request, grpc, request_id)
                .await
                .unwrap_or_else(|rejection| {
                    tracing::debug!(%rejection, "a request does not reach its method");
                    rejection.into_response(request_id, &shared.pool)
                });
            Ok(if head {
                without_body(response)
            } else {
                response
            })
        })
    }
}

impl Shared {
    async fn transcode<S, B>(
        &self,
        request: Request<B>,
        mut grpc: S,
        request_id: Option<&str>,
    ) -> Result<Response<Body>, Rejection>
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
        B: http_body::Body<Data = Bytes>,
        B::Error: Into<BoxError>,
    {
        let (parts, body) = request.into_parts();
        let found = match self.router.find(&parts.method, parts.uri.path()) {
            Ok(found) => found,
            Err(Miss::BadPath(error)) => return Err(Rejection::BadPath(error)),
            Err(Miss::NotFound) => return Err(Rejection::NoRoute(shortened(parts.uri.path()))),
            Err(Miss::MethodNotAllowed(allow)) if parts.method == Method::OPTIONS => {
                return Ok(options(&allow));
            }
            Err(Miss::MethodNotAllowed(allow)) => {
                return Err(Rejection::MethodNotAllowed {
                    method: shortened(parts.method.as_str()),
                    allow,
                });
            }
        };
        let binding = &found.route.value;
        if binding.method.client_streaming {
            return Err(Rejection::ClientStreaming(binding.method.name.clone()));
        }
        let asked = Asked {
            form: form(binding, &parts.headers)?,
            trailers: metadata::takes_trailers(&parts.headers),
            request_id,
        };
        let deadline = Deadline::of(&parts.headers)?;
        request::check_encoding(&parts.headers)?;
        let body = request::read_body(body, self.settings.max_request_body, deadline).await?;
        let frame = request::frame(&self.codec, &found, &parts, body, &self.settings)?;
        let mut request = request::grpc_request(parts, &binding.method, frame)?;
        if let Some(deadline) = deadline {
            request.extensions_mut().insert(deadline);
        }
        match grpc.call(request).await {
            Ok(reply) => {
                Ok(response::into_http(reply, binding, &asked, &self.codec, &self.pool).await)
            }
            Err(never) => match never {},
        }
    }
}

/// The form of the reply, if the client takes it. What a `google.api.HttpBody` is, nobody knows
/// before it is there.
fn form(binding: &Binding, headers: &HeaderMap) -> Result<Form, Rejection> {
    Ok(
        match (binding.method.server_streaming, binding.gives_raw_body) {
            (true, true) => Form::Stream(StreamForm::Array),
            (true, false) => Form::Stream(accept::stream_form(headers)?),
            (false, true) => Form::Single,
            (false, false) => {
                accept::check_json(headers)?;
                Form::Single
            }
        },
    )
}

/// Whether a request is gRPC already, by its content type.
pub fn is_grpc<B>(request: &Request<B>) -> bool {
    request
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

fn options(allow: &str) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    if let Ok(allow) = HeaderValue::from_str(allow) {
        response.headers_mut().insert(header::ALLOW, allow);
    }
    response
}

/// What HEAD answers: the headers of the reply that GET would have, its length among them.
fn without_body(response: Response<Body>) -> Response<Body> {
    let (mut parts, body) = response.into_parts();
    if let Some(length) = http_body::Body::size_hint(&body).exact() {
        parts
            .headers
            .insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    Response::from_parts(parts, Body::empty())
}
