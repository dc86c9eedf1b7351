//! Knows the edge where connections arrive: the listener, request ids, who may ask at all, and the
//! bytes of images, which travel outside of messages. Never mentions a store or a file's place.

mod digest;
mod download;
mod guard;
mod request_id;
mod server;
mod small_writes;
mod upload;

use std::convert::Infallible;

use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use tonic::Status;
use tonic::body::Body;
use tonic::service::Routes;
use tower::Service;
use tracing::Instrument;

use crate::contract;
use crate::images::Images;
use crate::transcoding::{self, Transcoder, errors};

pub use guard::Guard;
pub use server::{Peer, serve};

/// All that this server answers. Cheap to clone.
#[derive(Clone)]
pub struct Edge {
    images: Images,
    services: Transcoder<Routes>,
    guard: Guard,
}

impl Edge {
    /// The gRPC services under their own paths and, transcoded, under those of their HTTP rules.
    pub fn new(
        images: Images,
        routes: Routes,
        guard: Guard,
    ) -> Result<Self, transcoding::BuildError> {
        let services = Transcoder::new(
            contract::descriptor_pool(),
            contract::SERVICES,
            routes.prepare(),
            transcoding::Settings::default(),
        )?;
        Ok(Self {
            images,
            services,
            guard,
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
            let mut response = self.dispatch(request, &ids.request_id).await;
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

    async fn dispatch(&self, request: Request<Body>, request_id: &str) -> Response<Body> {
        if let Err(refused) = self.guard.check(&request) {
            return if transcoding::is_grpc(&request) {
                refused.into_http()
            } else {
                error(&refused, request_id)
            };
        }
        // Boxed, lest every request is as large as these.
        if request.uri().path() == upload::PATH {
            return match *request.method() {
                Method::POST => Box::pin(upload::answer(&self.images, request, request_id)).await,
                _ => not_allowed(&request, "POST", request_id),
            };
        }
        if let Some(image_id) = download::image_id(request.uri().path()) {
            return match *request.method() {
                Method::GET | Method::HEAD => {
                    let (head, _) = request.into_parts();
                    Box::pin(download::answer(&self.images, &head, &image_id, request_id)).await
                }
                _ => not_allowed(&request, "GET, HEAD", request_id),
            };
        }
        let mut services = self.services.clone();
        let Ok(response): Result<_, Infallible> = services.call(request).await;
        response
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
