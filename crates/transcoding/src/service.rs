//! The layer itself: a tower service around a gRPC service.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{Extensions, HeaderMap, Method, Request, Response, header};
use http_body::SizeHint;
use pin_project_lite::pin_project;
use prost_reflect::DescriptorPool;
use tonic::{Status, body::Body};
use tower::{BoxError, Service};

use super::{
    accept::{self, StreamForm},
    body::ResponseBody,
    codec::Codec,
    deadline::Deadline,
    errors,
    frames::{self, Messages},
    metadata::{self, Present},
    rejection::Rejection,
    request,
    response::{self, Asked, Form},
    router::{Match, Miss, Router},
    rules::{self, Binding, BuildError},
    settings::Settings,
    shortened::shortened,
    stream,
};

/// Up to this size a body is read before its type is looked at.
const SHORT_BODY: u64 = 64 << 10;

/// Serves HTTP with JSON by the `google.api.http` rules of gRPC services, through those services.
///
/// Requests whose content type starts with `application/grpc` pass untouched. All others are routed
/// by their raw path; each becomes one call of the inner service, with the request's headers as
/// metadata and with its extensions. A call whose client has gone is dropped.
///
/// - A method without a rule is served as `POST /package.Service/Method`. One that replies with a
///   stream is served in the form that `Accept` asks for: a JSON array (`application/json`), lines of
///   JSON (`application/x-ndjson`) or server-sent events (`text/event-stream`), with heartbeats while
///   it is quiet; events have the ids that [`Events`](crate::Events) gives, and go on behind
///   `Last-Event-ID`. One that takes a stream answers 501.
/// - HEAD is served from GET where the method is marked `idempotency_level = NO_SIDE_EFFECTS`;
///   OPTIONS tells the methods of a path. `X-HTTP-Method-Override` has no meaning here: it would make
///   a request another one than proxies, logs and browsers took it for.
/// - A body is JSON, under a type of JSON, none, that of forms (as `curl -d` sends) or plain text; other
///   types are refused (415). A server that browsers reach must check `Origin` in front of this layer.
/// - A `google.api.HttpBody` is taken and given as it is, with its content type.
/// - The query has the fields of the request and nothing else: there are no system parameters such as
///   `$alt` or `prettyPrint`.
/// - Every header that means the call becomes metadata of its own name, `Grpc-Metadata-x` becomes `x`
///   where `x` was not sent, and metadata of a reply becomes headers of both names. Metadata behind the
///   reply becomes trailers `Grpc-Trailer-x` where the client sends `TE: trailers`.
/// - `grpc-timeout` counts from the arrival of the request; the inner service ends at it if
///   [`Deadlines`](crate::Deadlines) are around it.
/// - Every error is a `google.rpc.Status` in JSON, see [`errors`].
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
    /// Compiles the `google.api.http` rules of every method of the services of these full names, which
    /// `grpc` serves. `pool` also resolves the types inside `google.protobuf.Any`.
    ///
    /// # Errors
    ///
    /// - [`BuildError::UnknownService`] for a service that the pool lacks;
    /// - [`BuildError::BadTemplate`] and [`BuildError::BadRule`] for a rule that cannot be served;
    /// - [`BuildError::Conflict`] for two rules that match the same requests.
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
    type Response = Response<ResponseBody>;
    type Error = Infallible;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.grpc.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        ResponseFuture {
            answer: self.answer(request),
        }
    }
}

impl<S> Transcoder<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send + 'static,
{
    /// Calls at once where no body has to be waited for.
    fn answer<B>(&mut self, request: Request<B>) -> Answer<S::Future>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let present = Present::of(request.headers());
        if present.content_type && is_grpc(&request) {
            return Answer::Called {
                call: self.grpc.call(request.map(Body::new)),
                asked: None,
            };
        }
        let (parts, body) = request.into_parts();
        let asked = Asked {
            method: parts.method.clone(),
            takes_trailers: present.te && metadata::takes_trailers(&parts.headers),
            request_id: match present.request_id {
                true => parts.headers.get(metadata::REQUEST_ID).cloned(),
                false => None,
            },
        };
        let shared = &self.shared;
        let opened = match shared.open(&parts, present) {
            Ok(opened) => opened,
            Err(rejection) => return Answer::now(shared.reject(rejection, &asked)),
        };
        if !body.is_end_stream() {
            if let Err(rejection) = shared.check_head(&parts.headers, &opened, &body.size_hint()) {
                return Answer::now(shared.reject(rejection, &asked));
            }
            return self.call_with_body(parts, body, opened, asked);
        }
        drop(body);
        match shared.request(parts, &opened, Bytes::new()) {
            Ok(request) => Answer::Called {
                call: self.grpc.call(request),
                asked: Some((Arc::clone(shared), opened, asked)),
            },
            Err(rejection) => Answer::now(shared.reject(rejection, &asked)),
        }
    }

    /// Calls once the body is there.
    fn call_with_body<B>(
        &mut self,
        parts: http::request::Parts,
        body: B,
        opened: Opened,
        asked: Asked,
    ) -> Answer<S::Future>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        // The clone takes its place because only this one was polled to be ready.
        let clone = self.grpc.clone();
        let mut grpc = std::mem::replace(&mut self.grpc, clone);
        let shared = Arc::clone(&self.shared);
        let limit = shared.settings.max_request_body;
        let read = request::read_body(body, limit, opened.deadline);
        Answer::Later {
            later: Box::pin(async move {
                let read = read.await.map_err(|rejection| match rejection {
                    // A body of the wrong type is told so, whatever its size.
                    Rejection::BodyTooLarge(_) => shared
                        .check_type(&parts.headers, &opened)
                        .err()
                        .unwrap_or(rejection),
                    rejection => rejection,
                });
                let made = read.and_then(|body| shared.request(parts, &opened, body));
                match made {
                    Ok(request) => {
                        let Ok(reply) = grpc.call(request).await;
                        match shared.respond(reply, opened, asked) {
                            Ok(response) => response,
                            Err(later) => later.await,
                        }
                    }
                    Err(rejection) => shared.reject(rejection, &asked),
                }
            }),
        }
    }
}

pin_project! {
    /// The future of the response of a [`Transcoder`].
    pub struct ResponseFuture<F> {
        #[pin]
        answer: Answer<F>,
    }
}

pin_project! {
    /// How far an answer is.
    #[project = Step]
    enum Answer<F> {
        Now { response: Option<Response<ResponseBody>> },
        /// Of a request that was gRPC already nothing is asked, and its reply passes as it is.
        Called { #[pin] call: F, asked: Option<(Arc<Shared>, Opened, Asked)> },
        Later { later: Later },
    }
}

impl<F> Answer<F> {
    fn now(response: Response<ResponseBody>) -> Self {
        let response = Some(response);
        Self::Now { response }
    }
}

impl<F: Future<Output = Result<Response<Body>, Infallible>>> Future for ResponseFuture<F> {
    type Output = Result<Response<ResponseBody>, Infallible>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut answer = self.project().answer;
        loop {
            let later = match answer.as_mut().project() {
                Step::Now { response } => match response.take() {
                    Some(response) => return Poll::Ready(Ok(response)),
                    // Nobody polls what was ready.
                    None => return Poll::Pending,
                },
                Step::Later { later } => return later.as_mut().poll(context).map(Ok),
                Step::Called { call, asked } => {
                    let Ok(reply) = ready!(call.poll(context));
                    let Some((shared, opened, asked)) = asked.take() else {
                        return Poll::Ready(Ok(reply.map(ResponseBody::from)));
                    };
                    match shared.respond(reply, opened, asked) {
                        Ok(response) => return Poll::Ready(Ok(response)),
                        Err(later) => later,
                    }
                }
            };
            answer.set(Answer::Later { later });
        }
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
type Later = Pin<Box<dyn Future<Output = Response<ResponseBody>> + Send>>;

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

    /// Refuses a body by what its head says, where reading it to its end would cost something: it is
    /// long, or its client waits to be asked for it.
    fn check_head(
        &self,
        headers: &HeaderMap,
        opened: &Opened,
        size: &SizeHint,
    ) -> Result<(), Rejection> {
        match size.lower() > SHORT_BODY || headers.contains_key(header::EXPECT) {
            true => self.check_type(headers, opened),
            false => Ok(()),
        }
    }

    fn check_type(&self, headers: &HeaderMap, opened: &Opened) -> Result<(), Rejection> {
        match self.router.route(opened.found).value.takes_raw_body {
            true => Ok(()),
            false => request::check_content_type(headers),
        }
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

    /// The response to a call, at once or once its only message or its status is there.
    ///
    /// Nearly all replies are there as a whole, and read without a wait: what reading takes is not kept
    /// while a call goes on.
    fn respond(
        self: Arc<Self>,
        reply: Response<Body>,
        opened: Opened,
        asked: Asked,
    ) -> Result<Response<ResponseBody>, Later> {
        let (head, mut body) = reply.into_parts();
        let mut read = frames::Read::default();
        if matches!(opened.form, Form::Single)
            && frames::may_be_whole(&head)
            && let Some(message) = frames::whole(&mut body, &mut read)
        {
            let binding = &self.router.route(opened.found).value;
            let answer = response::single(&message, head.headers, binding, &self.codec);
            return Ok(self.finish(answer, head.extensions, &asked));
        }
        self.respond_in_parts(head, read, body, opened, asked)
    }

    #[cold]
    #[inline(never)]
    fn respond_in_parts(
        self: Arc<Self>,
        head: http::response::Parts,
        read: frames::Read,
        body: Body,
        opened: Opened,
        asked: Asked,
    ) -> Result<Response<ResponseBody>, Later> {
        let extensions = head.extensions;
        let mut messages = match Messages::new(head.status, head.headers, read, body) {
            Ok(messages) => messages,
            Err(status) => return Ok(self.finish(Err(status), extensions, &asked)),
        };
        Err(Box::pin(async move {
            let binding = &self.router.route(opened.found).value;
            let (trailers, codec) = (asked.takes_trailers, &self.codec);
            let answer = match (opened.form, binding.gives_raw_body) {
                (Form::Single, _) => match messages.only(&binding.method).await {
                    Ok(message) => {
                        response::single_of(&message, messages, binding, trailers, codec)
                    }
                    Err(status) => Err(status),
                },
                (Form::Stream(_), true) => stream::raw(messages, binding).await,
                (Form::Stream(form), false) => stream::json(
                    messages,
                    binding,
                    form,
                    trailers,
                    codec,
                    &self.pool,
                    &self.settings,
                ),
            };
            self.finish(answer, extensions, &asked)
        }))
    }

    /// The response with what belongs to every one.
    fn finish(
        &self,
        answer: Result<Response<ResponseBody>, Status>,
        extensions: Extensions,
        asked: &Asked,
    ) -> Response<ResponseBody> {
        let answer = answer.unwrap_or_else(|status| {
            errors::error_response(&status, asked.request_id(), &self.pool)
        });
        let mut response = match asked.method {
            Method::HEAD => response::without_body(answer),
            _ => answer,
        };
        let own = std::mem::replace(response.extensions_mut(), extensions);
        response.extensions_mut().extend(own);
        response
    }

    /// Answers a request that does not reach its method.
    #[cold]
    #[inline(never)]
    fn reject(&self, rejection: Rejection, asked: &Asked) -> Response<ResponseBody> {
        if let Rejection::MethodNotAllowed { allow, .. } = &rejection
            && asked.method == Method::OPTIONS
        {
            return response::options(allow);
        }
        tracing::debug!(%rejection, "a request does not reach its method");
        let response = errors::rejection_response(&rejection, asked.request_id(), &self.pool);
        if asked.method == Method::HEAD {
            return response::without_body(response);
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

/// Whether a request is gRPC already, by its content type: `application/grpc`, `application/grpc-web`
/// and what else begins so.
pub fn is_grpc<B>(request: &Request<B>) -> bool {
    request
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}
