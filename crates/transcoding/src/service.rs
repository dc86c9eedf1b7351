//! The layer itself: a tower service around a gRPC service.

use std::{
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response, header, request::Parts};
use prost_reflect::DescriptorPool;
use tonic::body::Body;
use tower::{BoxError, Service};

use super::{
    answer::{Answer, ResponseFuture},
    body::ResponseBody,
    connect::{self, Target},
    metadata::{self, Present},
    rejection::Rejection,
    request,
    response::Asked,
    rules::BuildError,
    settings::Settings,
    shared::{Opened, Shared},
};

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
/// - A call of the [Connect protocol](https://connectrpc.com/docs/protocol) is served under the path of its method,
///   in JSON and in protobuf, streams both ways included.
pub struct Transcoder<S> {
    shared: Arc<Shared>,
    grpc: S,
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
        let shared = Shared::new(pool, services, settings)?;
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
        let says_connect = connect::says_so(&parts, present);
        if says_connect && let Some(target) = self.shared.connect.method(&parts) {
            return self.connect(target, parts, body);
        }
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
            Err(rejection) => {
                let is_unmatched = matches!(
                    rejection,
                    Rejection::NoRoute(_) | Rejection::MethodNotAllowed { .. }
                );
                if is_unmatched && let Some(target) = shared.connect.unmatched(&parts, says_connect)
                {
                    return self.connect(target, parts, body);
                }
                return Answer::now(shared.reject(rejection, &asked));
            }
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

    /// Answers a request of the Connect protocol.
    #[cold]
    fn connect<B>(&mut self, target: Target, parts: Parts, body: B) -> Answer<S::Future>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let connect = Arc::clone(&self.shared.connect);
        let later = Box::pin(connect.answer(target, self.take_grpc(), parts, body));
        Answer::Later { later }
    }

    /// The service that was polled to be ready; a clone takes its place.
    fn take_grpc(&mut self) -> S {
        let clone = self.grpc.clone();
        std::mem::replace(&mut self.grpc, clone)
    }

    /// Calls once the body is there.
    fn call_with_body<B>(
        &mut self,
        parts: Parts,
        body: B,
        opened: Opened,
        asked: Asked,
    ) -> Answer<S::Future>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let mut grpc = self.take_grpc();
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

/// Whether a request is gRPC already, by its content type: `application/grpc`, `application/grpc-web`
/// and what else begins so.
pub fn is_grpc<B>(request: &Request<B>) -> bool {
    request
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}
