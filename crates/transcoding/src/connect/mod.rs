//! The [Connect protocol](https://connectrpc.com/docs/protocol): calls of a method under its own path, in JSON or
//! protobuf, which need neither trailers nor a client of gRPC.
//!
//! `head` reads what a request asks for, `envelopes` turns the messages of a stream of requests into gRPC frames,
//! `reply` turns gRPC replies into responses, `error` writes what went wrong, and `refusal` answers what does not get
//! as far as its method.
//!
//! A request is of the protocol if it says so: by `Connect-Protocol-Version`, by a content type that nothing else
//! has, or by `connect=v1` in its query. One that does not say so is taken for one where no HTTP rule has its path.

mod envelopes;
mod error;
mod head;
mod refusal;
mod reply;

use std::{collections::HashMap, convert::Infallible, sync::Arc};

use bytes::Bytes;
use http::{Method as HttpMethod, Request, Response, request::Parts};
use prost_reflect::DescriptorPool;
use tonic::body::Body;
use tower::{BoxError, Service};

use super::{
    body::ResponseBody,
    codec::Codec,
    metadata::Present,
    rejection::Rejection,
    request,
    router::Router,
    rules::{Binding, Method},
    settings::Settings,
    shortened::shortened,
};
use envelopes::Envelopes;
use head::{Format, Head, Shape, is_read};

pub use head::is_connect;
pub(crate) use head::says_so;
pub use refusal::connect_error;

/// The methods that are served, and what is needed to serve them.
pub(crate) struct Connect {
    methods: HashMap<String, Arc<Method>>,
    codec: Arc<Codec>,
    pool: DescriptorPool,
    max_message: usize,
}

/// The method that a request names.
pub(crate) enum Target {
    Known(Arc<Method>),
    /// None that is served, by its path.
    Unknown(String),
}

impl Connect {
    /// Serves the methods of a router.
    pub(crate) fn new(
        router: &Router<Binding>,
        codec: &Arc<Codec>,
        pool: &DescriptorPool,
        settings: &Settings,
    ) -> Self {
        let methods = router.routes().iter().map(|route| &route.value.method);
        Self {
            methods: methods
                .map(|method| (method.path.to_string(), Arc::clone(method)))
                .collect(),
            codec: Arc::clone(codec),
            pool: pool.clone(),
            max_message: settings.max_request_body,
        }
    }

    /// The method of a request that says that it is of the protocol.
    pub(crate) fn method(&self, parts: &Parts) -> Option<Target> {
        let method = self.methods.get(parts.uri.path())?;
        Some(Target::Known(Arc::clone(method)))
    }

    /// The call that a request asks for, where no HTTP rule matches.
    #[cold]
    pub(crate) fn unmatched(&self, parts: &Parts, says_so: bool) -> Option<Target> {
        let is_post = parts.method == HttpMethod::POST;
        if !is_post && !is_read(&parts.method) {
            return None;
        }
        if says_so {
            let unknown = || Target::Unknown(shortened(parts.uri.path()));
            return Some(self.method(parts).unwrap_or_else(unknown));
        }
        let is_call = match is_post {
            true => Format::of_unary(&parts.headers).is_some(),
            false => parts.uri.query().is_some_and(|query| {
                let mut pairs = query.split('&');
                pairs.any(|pair| pair.starts_with("encoding="))
            }),
        };
        self.method(parts).filter(|_| is_call)
    }

    /// Answers a request.
    pub(crate) async fn answer<S, B>(
        self: Arc<Self>,
        target: Target,
        grpc: S,
        parts: Parts,
        body: B,
    ) -> Response<ResponseBody>
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Send + 'static,
        S::Future: Send + 'static,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let stream = Format::of_stream(&parts.headers);
        let refuse = |rejection: &Rejection| {
            tracing::debug!(%rejection, "a Connect request does not reach its method");
            refusal::refusal(rejection, stream, &self.pool)
        };
        let method = match target {
            Target::Known(method) => method,
            Target::Unknown(path) => return refuse(&Rejection::NoMethod(path)),
        };
        let head = match Head::read(&parts, &method) {
            Ok(head) => head,
            Err(rejection) => return refuse(&rejection),
        };
        match self.call(&method, head, grpc, parts, body).await {
            Ok(response) => response,
            Err(rejection) => refuse(&rejection),
        }
    }

    async fn call<S, B>(
        &self,
        method: &Arc<Method>,
        head: Head,
        mut grpc: S,
        mut parts: Parts,
        body: B,
    ) -> Result<Response<ResponseBody>, Rejection>
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Send + 'static,
        S::Future: Send + 'static,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let Head {
            shape,
            format,
            deadline,
        } = head;
        let message = match shape {
            Shape::Stream => {
                let format = (format, self.max_message);
                let frames = Envelopes::new(body, Arc::clone(method), &self.codec, format);
                Body::new(frames)
            }
            Shape::Unary => {
                let body = request::read_body(body, self.max_message, deadline).await?;
                self.frame(method, format, &body)?
            }
            Shape::Get => {
                let message = head::message_of_query(parts.uri.query().unwrap_or_default())?;
                if message.len() > self.max_message {
                    return Err(Rejection::BodyTooLarge(self.max_message));
                }
                self.frame(method, format, &message)?
            }
        };
        head::into_metadata(&mut parts.headers);
        let present = Present::of(&parts.headers);
        let mut request = request::grpc_request(parts, method, message, present)?;
        if let Some(deadline) = deadline {
            request.extensions_mut().insert(deadline);
        }
        let Ok(reply) = grpc.call(request).await;
        let reply_to = reply::To {
            method: Arc::clone(method),
            format,
            codec: Arc::clone(&self.codec),
            pool: self.pool.clone(),
        };
        Ok(match shape {
            Shape::Stream => reply_to.stream(reply),
            Shape::Unary | Shape::Get => reply_to.unary(reply).await,
        })
    }

    /// The frame of a request of one message.
    fn frame(&self, method: &Method, format: Format, message: &[u8]) -> Result<Body, Rejection> {
        let frame = envelopes::frame(&self.codec, method, format, message)?;
        Ok(Body::new(http_body_util::Full::new(frame)))
    }
}
