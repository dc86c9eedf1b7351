//! The parts that all calls of a transcoder share, and the way of one from the head of its request to its response.

use std::{future::Future, pin::Pin, sync::Arc};

use bytes::Bytes;
use http::{Extensions, HeaderMap, Method, Request, Response, header, request::Parts};
use http_body::SizeHint;
use prost_reflect::DescriptorPool;
use tonic::{Status, body::Body};

use super::{
    accept::{self, StreamForm},
    body::ResponseBody,
    codec::Codec,
    connect::Connect,
    deadline::Deadline,
    errors,
    frames::{self, Messages},
    metadata::Present,
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

/// Compiled rules and settings.
pub(crate) struct Shared {
    pub router: Router<Binding>,
    pub codec: Arc<Codec>,
    pub pool: DescriptorPool,
    pub settings: Settings,
    pub connect: Arc<Connect>,
}

/// A request that leads to a method.
pub(crate) struct Opened {
    pub found: Match,
    pub form: Form,
    pub deadline: Option<Deadline>,
    pub present: Present,
}

/// A response that has to be waited for.
pub(crate) type Later = Pin<Box<dyn Future<Output = Response<ResponseBody>> + Send>>;

impl Shared {
    /// The parts that [`Transcoder::new`](crate::Transcoder::new) compiles.
    pub(crate) fn new(
        pool: &DescriptorPool,
        services: impl IntoIterator<Item = impl AsRef<str>>,
        settings: Settings,
    ) -> Result<Self, BuildError> {
        let codec = Arc::new(Codec::new(pool, settings.json));
        let router = rules::compile(pool, &codec, services)?;
        Ok(Self {
            connect: Arc::new(Connect::new(&router, &codec, pool, &settings)),
            router,
            codec,
            pool: pool.clone(),
            settings,
        })
    }

    /// Finds out what is asked for. Nothing of the body has been read yet.
    pub(crate) fn open(&self, parts: &Parts, present: Present) -> Result<Opened, Rejection> {
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
            request::check_encoding(&parts.headers, &header::CONTENT_ENCODING)?;
        }
        Ok(opened)
    }

    /// Refuses a body by what its head says, where reading it to its end would cost something: it is
    /// long, or its client waits to be asked for it.
    pub(crate) fn check_head(
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

    pub(crate) fn check_type(&self, headers: &HeaderMap, opened: &Opened) -> Result<(), Rejection> {
        match self.router.route(opened.found).value.takes_raw_body {
            true => Ok(()),
            false => request::check_content_type(headers),
        }
    }

    /// The gRPC request.
    pub(crate) fn request(
        &self,
        parts: Parts,
        opened: &Opened,
        body: Bytes,
    ) -> Result<Request<Body>, Rejection> {
        let Self { codec, router, .. } = self;
        let frame = request::frame(codec, router, opened.found, &parts, body, &self.settings)?;
        let method = &router.route(opened.found).value.method;
        let body = Body::new(http_body_util::Full::new(Bytes::from(frame)));
        let mut request = request::grpc_request(parts, method, body, opened.present)?;
        if let Some(deadline) = opened.deadline {
            request.extensions_mut().insert(deadline);
        }
        Ok(request)
    }

    /// The response to a call, at once or once its only message or its status is there.
    ///
    /// Nearly all replies are there as a whole, and read without a wait: what reading takes is not kept
    /// while a call goes on.
    pub(crate) fn respond(
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
    pub(crate) fn reject(&self, rejection: Rejection, asked: &Asked) -> Response<ResponseBody> {
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
