//! The layer itself: a tower service around a gRPC service.

use std::{
    convert::Infallible,
    future::{Future, ready},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::FutureExt;
use http::{Extensions, HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use prost_reflect::DescriptorPool;
use tonic::{Status, body::Body};
use tower::{BoxError, Service};

use super::{
    accept::{self, StreamForm},
    codec::{self, Codec},
    deadline::Deadline,
    errors,
    frames::Messages,
    metadata::{self, Present},
    rejection::{Rejection, shortened},
    request,
    response::{Asked, Form, Only},
    router::{Match, Miss, Router},
    rules::{self, Binding, BuildError},
    stream,
};

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
        let codec = Codec::new(pool, settings.json);
        let shared = Shared {
            router: rules::compile(pool, &codec, services)?,
            codec: Arc::new(codec),
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
        let present = Present::of(request.headers());
        if present.content_type && is_grpc(&request) {
            return Box::pin(self.grpc.call(request.map(Body::new)));
        }
        let shared = Arc::clone(&self.shared);
        let (parts, body) = request.into_parts();
        let asked = Asked {
            method: parts.method.clone(),
            takes_trailers: present.te && metadata::takes_trailers(&parts.headers),
            request_id: match present.request_id {
                true => parts.headers.get(metadata::REQUEST_ID).cloned(),
                false => None,
            },
        };
        let opened = match shared.open(&parts, present) {
            Ok(opened) => opened,
            Err(rejection) => return Box::pin(ready(Ok(shared.reject(rejection, &asked)))),
        };
        if !body.is_end_stream() {
            // The clone takes its place because only this one was polled to be ready.
            let clone = self.grpc.clone();
            let mut grpc = std::mem::replace(&mut self.grpc, clone);
            let limit = shared.settings.max_request_body;
            let read = request::read_body(body, limit, opened.deadline);
            return Box::pin(read.then(move |body| {
                let made = body.and_then(|body| shared.request(parts, &opened, body));
                shared.call(&mut grpc, made, opened, asked)
            }));
        }
        drop(body);
        let made = shared.request(parts, &opened, Bytes::new());
        Box::pin(shared.call(&mut self.grpc, made, opened, asked))
    }
}

/// A request that leads to a method.
struct Opened {
    found: Match,
    form: Form,
    deadline: Option<Deadline>,
    present: Present,
}

/// A response that has to be waited for.
type Later = Pin<Box<dyn Future<Output = Response<Body>> + Send>>;

impl Shared {
    /// Finds out what is asked for. Nothing of the body has been read yet.
    fn open(&self, parts: &http::request::Parts, present: Present) -> Result<Opened, Rejection> {
        let found = match self.router.find(&parts.method, parts.uri.path()) {
            Ok(found) => found,
            Err(Miss::BadPath(error)) => return Err(Rejection::BadPath(error)),
            Err(Miss::NotFound) => return Err(Rejection::NoRoute(shortened(parts.uri.path()))),
            Err(Miss::MethodNotAllowed(allow)) => {
                return Err(Rejection::MethodNotAllowed {
                    method: shortened(parts.method.as_str()),
                    allow,
                });
            }
        };
        let binding = &self.router.route(found).value;
        if binding.method.client_streaming {
            return Err(Rejection::ClientStreaming(binding.method.name.clone()));
        }
        let opened = Opened {
            found,
            form: form(binding, &parts.headers, present)?,
            deadline: match present.timeout {
                true => Deadline::of(&parts.headers)?,
                false => None,
            },
            present,
        };
        if present.content_encoding {
            request::check_encoding(&parts.headers)?;
        }
        Ok(opened)
    }

    /// The gRPC request.
    fn request(
        &self,
        parts: http::request::Parts,
        opened: &Opened,
        body: Bytes,
    ) -> Result<Request<Body>, Rejection> {
        let Self { codec, router, .. } = self;
        let frame = request::frame(codec, router, opened.found, &parts, body, &self.settings)?;
        let method = &router.route(opened.found).value.method;
        let mut request = request::grpc_request(parts, method, frame, opened.present)?;
        if let Some(deadline) = opened.deadline {
            request.extensions_mut().insert(deadline);
        }
        Ok(request)
    }

    /// The response to a request, once it is made. Nothing is kept but what the reply is waited for with.
    fn call<S>(
        self: Arc<Self>,
        grpc: &mut S,
        request: Result<Request<Body>, Rejection>,
        opened: Opened,
        asked: Asked,
    ) -> impl Future<Output = Result<Response<Body>, Infallible>> + Send + use<S>
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
        S::Future: Send,
    {
        // An async block would keep the call twice: as captured, and as it is waited for.
        match request {
            Ok(request) => {
                let respond = move |reply| {
                    let Ok(reply) = reply;
                    match self.respond(reply, opened, asked) {
                        Ok(response) => ready(Ok(response)).left_future(),
                        Err(later) => later.map(Ok).right_future(),
                    }
                };
                grpc.call(request).then(respond).left_future()
            }
            Err(rejection) => ready(Ok(self.reject(rejection, &asked))).right_future(),
        }
    }

    /// The response to a call, at once or once its first message or its status is there.
    ///
    /// Nearly all replies are there as a whole, and read without a wait: what reading takes is not kept
    /// while a call goes on.
    fn respond(
        self: Arc<Self>,
        reply: Response<Body>,
        opened: Opened,
        asked: Asked,
    ) -> Result<Response<Body>, Later> {
        let (head, body) = reply.into_parts();
        let extensions = head.extensions;
        let messages = match Messages::new(head.status, head.headers, body) {
            Ok(messages) => messages,
            Err(status) => {
                return Ok(self.finish(Err(status), extensions, &asked));
            }
        };
        Err(match opened.form {
            Form::Single => {
                let mut only = Only::new(messages);
                let trailers = asked.takes_trailers;
                let binding = &self.router.route(opened.found).value;
                if let Some(read) = only.read(&binding.method).now_or_never() {
                    let answer = read.and_then(|()| only.respond(binding, trailers, &self.codec));
                    return Ok(self.finish(answer, extensions, &asked));
                }
                Box::pin(async move {
                    let binding = &self.router.route(opened.found).value;
                    let read = only.read(&binding.method).await;
                    let answer = read.and_then(|()| only.respond(binding, trailers, &self.codec));
                    self.finish(answer, extensions, &asked)
                })
            }
            Form::Stream(form) => Box::pin(async move {
                let binding = &self.router.route(opened.found).value;
                let (trailers, codec) = (asked.takes_trailers, &self.codec);
                let answer = match binding.gives_raw_body {
                    true => stream::raw(messages, binding).await,
                    false => {
                        stream::json(messages, binding, form, trailers, codec, &self.pool).await
                    }
                };
                self.finish(answer, extensions, &asked)
            }),
        })
    }

    /// The response with what belongs to every one.
    fn finish(
        &self,
        answer: Result<Response<Body>, Status>,
        extensions: Extensions,
        asked: &Asked,
    ) -> Response<Body> {
        let answer = answer.unwrap_or_else(|status| {
            errors::error_response(&status, asked.request_id(), &self.pool)
        });
        let mut response = match asked.method {
            Method::HEAD => without_body(answer),
            _ => answer,
        };
        *response.extensions_mut() = extensions;
        response
    }

    /// Answers a request that does not reach its method.
    fn reject(&self, rejection: Rejection, asked: &Asked) -> Response<Body> {
        if let Rejection::MethodNotAllowed { allow, .. } = &rejection
            && asked.method == Method::OPTIONS
        {
            return options(allow);
        }
        tracing::debug!(%rejection, "a request does not reach its method");
        let response = rejection.into_response(asked.request_id(), &self.pool);
        if asked.method == Method::HEAD {
            return without_body(response);
        }
        response
    }
}

/// The form of the reply, if the client takes it. What a `google.api.HttpBody` is, nobody knows
/// before it is there.
fn form(binding: &Binding, headers: &HeaderMap, present: Present) -> Result<Form, Rejection> {
    Ok(
        match (binding.method.server_streaming, binding.gives_raw_body) {
            (true, true) => Form::Stream(StreamForm::Array),
            (true, false) => Form::Stream(accept::stream_form(headers)?),
            (false, true) => Form::Single,
            (false, false) => {
                if present.accept {
                    accept::check_json(headers)?;
                }
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
