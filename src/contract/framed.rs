//! Services that other crates generate, with the frames of those that are generated here.

use std::collections::HashMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Request, Response};
use prost_reflect::DescriptorPool;
use tonic::body::Body;
use tonic::server::NamedService;
use tower::Service;

use super::compression::Coding;
use super::framing::{Takes, compressed, plain};

/// A service whose requests are read and whose replies are written as [`super::framing`] does.
#[derive(Clone)]
pub struct Framed<S> {
    service: S,
    /// How the requests of each method are read, by its path.
    methods: Arc<HashMap<String, Takes>>,
}

impl<S: NamedService> Framed<S> {
    /// `pool` describes the service.
    pub fn new(service: S, pool: &DescriptorPool) -> Self {
        let described = pool.get_service_by_name(S::NAME);
        let methods = described.iter().flat_map(|service| service.methods());
        let methods = methods.map(|method| {
            let takes = Takes {
                one_message: !method.is_client_streaming(),
                checked: Some(method.input()),
            };
            (format!("/{}/{}", S::NAME, method.name()), takes)
        });
        Self {
            service,
            methods: Arc::new(methods.collect()),
        }
    }
}

impl<S: NamedService> NamedService for Framed<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<Body>> for Framed<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let Some(takes) = self.methods.get(request.uri().path()) else {
            return Box::pin(self.service.call(request));
        };
        let coding = Coding::of_reply(request.headers());
        match plain(request, takes.clone()) {
            Ok(request) => {
                let reply = self.service.call(request);
                Box::pin(async move { Ok(compressed(reply.await?, coding)) })
            }
            Err(refused) => Box::pin(async move { Ok(refused.into_http()) }),
        }
    }
}
