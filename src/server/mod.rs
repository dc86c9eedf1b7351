//! The gateway at which connections arrive. Knows listeners, the context of a request, which requests are refused
//! unread, content codings, the documentation, and the bytes of images, which travel outside of messages. Never
//! mentions a store or the path of a file.

mod answered;
mod conditions;
mod connections;
mod context;
mod cors;
mod descriptors;
mod digest;
mod docs;
mod download;
mod encoding;
mod event_ids;
mod file_name;
mod framing;
mod grpc_failures;
mod grpc_requests;
mod guard;
mod handshake;
mod health;
mod limits;
mod lingering;
mod listener;
mod occasionally;
mod open;
mod patient;
mod peer;
mod prefer;
mod proxies;
mod request_id;
mod serve;
mod small_writes;
mod stalls;
mod stream;
mod streams;
mod unread;
mod upload;

use std::convert::Infallible;
use std::future::ready;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::TryFutureExt;
use http::uri::Authority;
use http::{HeaderValue, Method, Request, Response, StatusCode, Version, header};
use http_body_util::BodyExt;
use tonic::Status;
use tonic::body::Body;
use tonic::service::Routes;
use tonic_web::{GrpcWebLayer, GrpcWebService};
use tower::{Layer, Service};
use tower_http::cors::CorsLayer;
use tracing::{Instrument, field};
use transcoding::{Deadlines, ResponseBody, Transcoder, errors};

use crate::auth::{ANONYMOUS, Authentication, Authenticator, Caller, Identity, NotAuthenticated};
use crate::contract;
use crate::grpc;
use crate::images::Images;

use answered::Asked;
pub use cors::AllowedOrigin;
pub(crate) use descriptors::raise_limit as raise_descriptor_limit;
use docs::Docs;
use event_ids::EventIds;
use grpc_requests::Methods;
pub use guard::AllowedHost;
pub(crate) use guard::Guard;
pub(crate) use health::{Check, Readiness};
pub(crate) use limits::SubjectLimits;
pub use limits::SubjectSettings;
pub use listener::Listener;
pub use open::{OPEN, Open};
pub(crate) use peer::Peer;
pub(crate) use proxies::TrustedProxies;
pub use proxies::TrustedProxy;
pub use serve::{Times, TransferSettings, serve};
use unread::RequestBody;

/// A reply on its way.
type Reply = Pin<Box<dyn Future<Output = Result<Response<ResponseBody>, Infallible>> + Send>>;

/// Identity of callers, and the limits of each.
pub(crate) struct Callers {
    pub authenticator: Arc<dyn Authenticator>,
    pub identity: Identity,
    pub limits: SubjectLimits,
}

/// All that this server answers.
pub(crate) struct Gateway {
    images: Images,
    callers: Callers,
    services: Services,
    methods: Methods,
    guard: Guard,
    readiness: Readiness,
    proxies: Arc<TrustedProxies>,
    cors: Option<CorsLayer>,
    docs: Docs,
}

/// The gRPC services: by HTTP rules, by gRPC-Web and by gRPC, each call with its deadline.
type Services = Transcoder<GrpcWebService<Deadlines<Routes>>>;

impl Gateway {
    /// The gRPC services under their own paths and, transcoded, under those of their HTTP rules.
    /// Pages of `origins`, beside those of this server itself, may call them.
    pub(crate) fn new(
        images: Images,
        routes: Routes,
        callers: Callers,
        guard: Guard,
        readiness: Readiness,
        proxies: Arc<TrustedProxies>,
        origins: &[AllowedOrigin],
    ) -> Result<Self, transcoding::BuildError> {
        let pool = grpc::descriptor_pool();
        let services = Transcoder::new(
            &pool,
            grpc::services(),
            GrpcWebLayer::new().layer(Deadlines::new(routes.prepare())),
            transcoding::Settings {
                events: Some(Arc::new(EventIds)),
                ..transcoding::Settings::default()
            },
        )?;
        Ok(Self {
            images,
            callers,
            services,
            methods: Methods::new(&pool, grpc::services()),
            guard,
            readiness,
            proxies,
            cors: cors::layer(origins),
            docs: Docs::new()?,
        })
    }

    /// Answers one request.
    ///
    /// Futures that wait for a reply keep little else: a thousand requests may wait for one commit,
    /// and their memory should stay in the processor's caches.
    pub(crate) fn answer(
        self: &Arc<Self>,
        request: Request<RequestBody>,
    ) -> impl Future<Output = Result<Response<ResponseBody>, Infallible>> + Send + use<> {
        let mut request = request.map(Body::new);
        let ids = request_id::take(request.headers_mut());
        let forwarded = self.proxies.apply(&mut request);
        // Of the highest level: whatever is logged has its ids.
        let span = tracing::error_span!(
            "request",
            request_id = ids.request_id,
            trace_id = ids.trace_id,
            method = %request.method(),
            path = request.uri().path(),
            peer = request.extensions().get::<Peer>().map(|peer| peer.address.to_string()),
            certificate = field::Empty,
            subject = field::Empty,
            operation_id = field::Empty,
            image_id = field::Empty,
            folder_id = field::Empty,
        );
        let peer = request.extensions().get::<Peer>();
        if let Some(certificate) = peer.and_then(|peer| peer.certificate.as_deref()) {
            span.record("certificate", certificate);
        }
        let asked = Asked::new(span.clone());
        let is_head = *request.method() == Method::HEAD;
        let is_unary = self.methods.is_unary(&request);
        let reply = span.in_scope(|| self.guarded(request, forwarded, &ids.request_id));
        async move {
            let Ok(mut response) = reply.await;
            if is_head {
                response = without_body(response);
            }
            request_id::give(&ids, response.headers_mut());
            let response = asked.answered(response);
            Ok(match is_unary {
                true => grpc_failures::in_two_parts(response),
                false => response,
            })
        }
        .instrument(span)
    }

    fn guarded(
        self: &Arc<Self>,
        mut request: Request<Body>,
        forwarded: Result<Option<Authority>, Status>,
        request_id: &str,
    ) -> Reply {
        // The host that a trusted proxy was asked for is what counts, where the proxy has put another in its place.
        let authority = forwarded.and_then(|told| Ok((framing::authority(&request)?, told)));
        let authority = match authority {
            Ok((authority, told)) => told.or(authority),
            Err(refused) => return at_once(not_framed(&request, &refused, request_id)),
        };
        if let Some(answer) = health::answer(&request, &self.readiness) {
            return at_once(answer);
        }
        if self.readiness.refuses(&request) {
            return at_once(refused(&request, &grpc::stopping(), request_id));
        }
        if let Err(refusal) = self.guard.check(&request, authority.as_ref()) {
            return at_once(refused(&request, &refusal, request_id));
        }
        tell_asked_host(&mut request, authority.as_ref());
        match &self.cors {
            Some(cors) if cors::concerns(&request) => {
                let (gateway, request_id) = (Arc::clone(self), request_id.to_owned());
                let dispatch =
                    tower::service_fn(move |request| gateway.dispatch(request, &request_id));
                Box::pin(cors.layer(dispatch).call(request))
            }
            _ => self.dispatch(request, request_id),
        }
    }

    fn dispatch(self: &Arc<Self>, request: Request<Body>, request_id: &str) -> Reply {
        if open::concerns(&request) {
            return self.dispatch_unknown(request, request_id);
        }
        match context::authenticate(&*self.callers.authenticator, &request) {
            Authentication::Known(known) => self.dispatch_known(known, request, request_id),
            Authentication::Asked(asked) => {
                let (gateway, request_id) = (Arc::clone(self), request_id.to_owned());
                Box::pin(async move {
                    let known = asked.await;
                    gateway.dispatch_known(known, request, &request_id).await
                })
            }
        }
    }

    /// Answers a request at an open path, whoever sends it.
    fn dispatch_unknown(self: &Arc<Self>, request: Request<Body>, request_id: &str) -> Reply {
        if !self.callers.identity.is_required() {
            return self.dispatch_for(None, request, request_id);
        }
        let Some(permit) = self.callers.limits.unknown() else {
            let status = grpc::busy("Too many requests of unknown callers are under way");
            return at_once(refused(&request, &status, request_id));
        };
        let reply = self.dispatch_for(None, request, request_id);
        Box::pin(reply.map_ok(|response| {
            response.map(|body| {
                let counted = body.map_frame(move |frame| {
                    // The permit is kept until the end of the body.
                    let _ = &permit;
                    frame
                });
                Body::new(counted).into()
            })
        }))
    }

    fn dispatch_known(
        self: &Arc<Self>,
        known: Result<Arc<Caller>, NotAuthenticated>,
        request: Request<Body>,
        request_id: &str,
    ) -> Reply {
        match known {
            Ok(caller) => self.dispatch_for(Some(&caller), request, request_id),
            Err(unknown) => {
                let status = grpc::not_authenticated(unknown);
                at_once(refused(&request, &status, request_id))
            }
        }
    }

    fn dispatch_for(
        self: &Arc<Self>,
        caller: Option<&Caller>,
        mut request: Request<Body>,
        request_id: &str,
    ) -> Reply {
        // Where nobody says who calls, all are one subject.
        if let Some(caller) = caller.filter(|caller| caller.subject() != ANONYMOUS) {
            tracing::Span::current().record("subject", caller.subject());
            let limits = &self.callers.limits;
            if let Err(wait) = limits.count(caller.subject()) {
                let status = grpc::too_many_requests(wait);
                return at_once(refused(&request, &status, request_id));
            }
            if let Some(share) = limits.share(caller.subject()) {
                request.extensions_mut().insert(share);
            }
        }
        let identity = &self.callers.identity;
        let is_signed = context::give(identity, caller, &mut request, request_id);
        let reply = self.answer_to(request, request_id);
        match is_signed {
            false => reply,
            true => Box::pin(reply.map_ok(not_to_be_passed_on)),
        }
    }

    fn answer_to(self: &Arc<Self>, request: Request<Body>, request_id: &str) -> Reply {
        // OPTIONS * asks for nothing but an answer.
        if request.uri().path() == "*" {
            let allow = "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT";
            return at_once(not_allowed(&request, allow, request_id));
        }
        if grpc_requests::concerns(&request) {
            return self.call(request, request_id);
        }
        if request.uri().path() == upload::PATH {
            return match *request.method() {
                Method::POST => {
                    let (images, request_id) = (self.images.clone(), request_id.to_owned());
                    Box::pin(async move { Ok(upload::answer(&images, request, &request_id).await) })
                }
                _ => at_once(not_allowed(&request, "OPTIONS, POST", request_id)),
            };
        }
        if let Some(image_id) = download::image_id(request.uri().path()) {
            return match *request.method() {
                Method::GET | Method::HEAD => {
                    let (head, _) = request.into_parts();
                    let (images, request_id) = (self.images.clone(), request_id.to_owned());
                    Box::pin(async move {
                        Ok(download::answer(&images, head, &image_id, &request_id).await)
                    })
                }
                _ => at_once(not_allowed(&request, "GET, HEAD, OPTIONS", request_id)),
            };
        }
        if Docs::has(request.uri().path()) {
            return match *request.method() {
                Method::GET | Method::HEAD => {
                    let (gateway, request_id) = (Arc::clone(self), request_id.to_owned());
                    let describe = tower::service_fn(move |request| {
                        ready(Ok(gateway.describe(&request, &request_id)))
                    });
                    encoding::call(describe, request)
                }
                _ => at_once(not_allowed(&request, "GET, HEAD, OPTIONS", request_id)),
            };
        }
        encoding::call(self.services.clone(), request)
    }

    /// A call over gRPC or gRPC-Web.
    fn call(self: &Arc<Self>, mut request: Request<Body>, request_id: &str) -> Reply {
        if let Err(answer) = self.methods.admit(&mut request, request_id) {
            return at_once(*answer);
        }
        let is_web = is_grpc_web(&request);
        let call = self.services.clone().call(request);
        match is_web {
            false => Box::pin(call),
            true => Box::pin(call.map_ok(unbuffered)),
        }
    }

    fn describe(&self, request: &Request<Body>, request_id: &str) -> Response<ResponseBody> {
        let path = request.uri().path();
        let mut answer = self.docs.answer(path).unwrap_or_else(|| {
            let status = Status::not_found(format!("nothing is served at {path}"));
            error(&status, request_id)
        });
        if *request.method() == Method::HEAD {
            *answer.body_mut() = ResponseBody::default();
        }
        answer
    }
}

fn is_grpc_web(request: &Request<Body>) -> bool {
    let content_type = request.headers().get(header::CONTENT_TYPE);
    content_type.is_some_and(|value| value.as_bytes().starts_with(b"application/grpc-web"))
}

/// The answer to HEAD, which has no body over HTTP/2 either.
fn without_body(mut response: Response<ResponseBody>) -> Response<ResponseBody> {
    let length = http_body::Body::size_hint(response.body()).exact();
    *response.body_mut() = ResponseBody::default();
    if let Some(length) = length.filter(|length| *length > 0) {
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    response
}

/// The reply to a signed URL, which gives its right to whoever learns of it.
fn not_to_be_passed_on(mut response: Response<ResponseBody>) -> Response<ResponseBody> {
    let headers = response.headers_mut();
    let no_referrer = HeaderValue::from_static("no-referrer");
    headers.insert(header::REFERRER_POLICY, no_referrer);
    let cache = headers.entry(header::CACHE_CONTROL);
    cache.or_insert(HeaderValue::from_static("private"));
    response
}

/// The reply over gRPC-Web, which may be a stream: nginx is to pass it on as it comes.
fn unbuffered(mut response: Response<ResponseBody>) -> Response<ResponseBody> {
    let no = HeaderValue::from_static("no");
    response.headers_mut().insert("x-accel-buffering", no);
    response
}

fn at_once(response: Response<ResponseBody>) -> Reply {
    Box::pin(ready(Ok(response)))
}

fn error(status: &Status, request_id: &str) -> Response<ResponseBody> {
    errors::error_response(status, Some(request_id), contract::descriptor_pool())
}

/// Notes the host that a request was sent to, where nobody on the way could have changed it, else the address that its
/// connection came to.
fn tell_asked_host(request: &mut Request<Body>, authority: Option<&Authority>) {
    let Some(peer) = request.extensions().get::<Peer>() else {
        return;
    };
    let sure = match peer {
        peer if peer.is_tls => Some(443),
        peer if peer.is_proxied => Some(80),
        _ => None,
    };
    let named = sure.zip(authority);
    let named = named.map(|(port, authority)| grpc::AskedHost::Named(authority.clone(), port));
    let reached = || peer.reached.map(grpc::AskedHost::Reached);
    if let Some(asked) = named.or_else(reached) {
        request.extensions_mut().insert(asked);
    }
}

/// Refuses a request before a service sees it, in the protocol that its client speaks.
fn refused(request: &Request<Body>, status: &Status, request_id: &str) -> Response<ResponseBody> {
    if grpc_requests::concerns(request) {
        return grpc_requests::refusal(request, status);
    }
    transcoding::connect_error(request, status, contract::descriptor_pool())
        .unwrap_or_else(|| error(status, request_id))
}

/// Refuses a request that could be read in two ways, in the words of HTTP whatever it carries. What
/// comes behind it on its connection could be read in two ways as well.
fn not_framed(
    request: &Request<Body>,
    refused: &Status,
    request_id: &str,
) -> Response<ResponseBody> {
    let mut response = error(refused, request_id);
    if request.version() < Version::HTTP_2 {
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(header::CONNECTION, close);
    }
    response
}

fn not_allowed(
    request: &Request<Body>,
    allow: &'static str,
    request_id: &str,
) -> Response<ResponseBody> {
    let mut response = if *request.method() == Method::OPTIONS {
        let mut response = Response::new(ResponseBody::default());
        *response.status_mut() = StatusCode::NO_CONTENT;
        response
    } else {
        let status = Status::unimplemented(format!(
            "{} is not served here, only {allow}",
            request.method()
        ));
        let mut response = error(&status, request_id);
        *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
        response
    };
    response
        .headers_mut()
        .insert(header::ALLOW, HeaderValue::from_static(allow));
    response
}
