//! Knows the edge where connections arrive: the listener, request ids, who may ask at all, content
//! codings, the documentation, and the bytes of images, which travel outside of messages.
//! Never mentions a store or a file's place.

mod cors;
mod digest;
mod docs;
mod download;
mod encoding;
mod guard;
mod request_id;
mod server;
mod small_writes;
mod upload;

use std::convert::Infallible;
use std::sync::Arc;

use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use tonic::Status;
use tonic::body::Body;
use tonic::service::Routes;
use tonic_web::{GrpcWebLayer, GrpcWebService};
use tower::{Layer, Service};
use tower_http::cors::CorsLayer;
use tracing::Instrument;

use crate::contract;
use crate::images::Images;
use crate::transcoding::{self, Deadlines, Transcoder, errors};

pub use cors::AllowedOrigin;
use docs::Docs;
pub use guard::Guard;
pub use server::{Peer, serve};

/// All that this server answers. Cheap to clone.
#[derive(Clone)]
pub struct Edge {
    images: Images,
    services: Services,
    guard: Guard,
    cors: Option<Arc<CorsLayer>>,
    docs: Docs,
}

/// The gRPC services: by HTTP rules, by gRPC-Web and by gRPC, each call with its deadline.
type Services = Transcoder<GrpcWebService<Deadlines<Routes>>>;

impl Edge {
    /// The gRPC services under their own paths and, transcoded, under those of their HTTP rules.
    /// Pages of `origins`, beside those of this server itself, may call them.
    pub fn new(
        images: Images,
        routes: Routes,
        guard: Guard,
        origins: &[AllowedOrigin],
    ) -> Result<Self, transcoding::BuildError> {
        let services = Transcoder::new(
            contract::descriptor_pool(),
            contract::SERVICES,
            GrpcWebLayer::new().layer(Deadlines::new(routes.prepare())),
            transcoding::Settings::default(),
        )?;
        Ok(Self {
            images,
            services,
            guard,
            cors: cors::layer(origins).map(Arc::new),
            docs: Docs::new()?,
        })
    }

    /// Answers one request.
    pub async fn answer(&self, mut request: Request<Body>) -> Response<Body> {
        let ids = request_id::take(request.headers_mut());
        let span = tracing::info_span!(
            "request",
            request_id = ids.request_id,
            trace_id = ids.trace_id,
            method = %request.method(),
            path = request.uri().path(),
            peer = request.extensions().get::<Peer>().map(|peer| peer.address.to_string()),
        );
        async {
            let started = std::time::Instant::now();
            let mut response = self.guarded(request, &ids.request_id).await;
            request_id::give(&ids, response.headers_mut());
            tracing::info!(
                status = response.status().as_u16(),
                micros = started.elapsed().as_micros() as u64,
                "answered"
            );
            response
        }
        .instrument(span)
        .await
    }

    async fn guarded(&self, request: Request<Body>, request_id: &str) -> Response<Body> {
        if let Err(refused) = self.guard.check(&request) {
            return if transcoding::is_grpc(&request) {
                refused.into_http()
            } else {
                error(&refused, request_id)
            };
        }
        match &self.cors {
            Some(cors) if cors::concerns(&request) => {
                let dispatch = tower::service_fn(async |request| {
                    Ok::<_, Infallible>(self.dispatch(request, request_id).await)
                });
                let Ok(response) = cors.layer(dispatch).call(request).await;
                response
            }
            _ => self.dispatch(request, request_id).await,
        }
    }

    async fn dispatch(&self, request: Request<Body>, request_id: &str) -> Response<Body> {
        // Boxed, lest every request is as large as these.
        if request.uri().path() == upload::PATH {
            return match *request.method() {
                Method::POST => Box::pin(upload::answer(&self.images, request, request_id)).await,
                _ => not_allowed(&request, "OPTIONS, POST", request_id),
            };
        }
        if let Some(image_id) = download::image_id(request.uri().path()) {
            return match *request.method() {
                Method::GET | Method::HEAD => {
                    let (head, _) = request.into_parts();
                    Box::pin(download::answer(&self.images, &head, &image_id, request_id)).await
                }
                _ => not_allowed(&request, "GET, HEAD, OPTIONS", request_id),
            };
        }
        if Docs::has(request.uri().path()) {
            return match *request.method() {
                Method::GET | Method::HEAD => self.describe(request, request_id).await,
                _ => not_allowed(&request, "GET, HEAD, OPTIONS", request_id),
            };
        }
        let mut services = self.services.clone();
        if transcoding::is_grpc(&request) {
            let Ok(response) = services.call(request).await;
            return response;
        }
        encoding::call(services, request).await
    }

    async fn describe(&self, request: Request<Body>, request_id: &str) -> Response<Body> {
        let head = *request.method() == Method::HEAD;
        let answer = tower::service_fn(async |request: Request<_>| {
            let path = request.uri().path();
            let answer = self.docs.answer(path, request.headers());
            let mut answer = answer.unwrap_or_else(|| {
                let status = Status::not_found(format!("nothing is served at {path}"));
                error(&status, request_id)
            });
            if head {
                *answer.body_mut() = Body::empty();
            }
            Ok::<_, Infallible>(answer)
        });
        encoding::call(answer, request).await
    }
}

fn error(status: &Status, request_id: &str) -> Response<Body> {
    errors::error_response(status, Some(request_id), contract::descriptor_pool())
}

fn not_allowed(request: &Request<Body>, allow: &'static str, request_id: &str) -> Response<Body> {
    let mut response = if *request.method() == Method::OPTIONS {
        let mut response = Response::new(Body::empty());
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
