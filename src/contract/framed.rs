//! Services with the frames of gRPC read and written by [`super::framing`], whoever generated them.

use std::collections::HashMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Request, Response};
use prost_reflect::{DescriptorPool, MessageDescriptor, MethodDescriptor};
use tonic::body::Body;
use tonic::server::NamedService;
use tower::Service;

use super::compression::Coding;
use super::framing::{MAX_REQUEST, Takes, compressed, plain};

/// A service of tonic's that is given plain frames, and whose replies are compressed as clients like.
#[derive(Clone)]
pub struct Framed<S> {
    service: S,
    /// How the requests of each method are read, by its path.
    methods: Arc<HashMap<String, Takes>>,
}

impl<S: NamedService> Framed<S> {
    /// A service that judges its messages itself, by [`super::codec::MessageCodec`]. `pool` describes it.
    pub fn new(service: S, pool: &DescriptorPool) -> Self {
        Self::of(service, pool, |_| None)
    }

    /// A service whose codec speaks in the words of its library: messages are judged before it sees them.
    pub fn checked(service: S, pool: &DescriptorPool) -> Self {
        Self::of(service, pool, |method| Some(method.input()))
    }

    fn of(
        service: S,
        pool: &DescriptorPool,
        checked: impl Fn(&MethodDescriptor) -> Option<MessageDescriptor>,
    ) -> Self {
        let described = pool.get_service_by_name(S::NAME);
        let methods = described.iter().flat_map(|service| service.methods());
        let methods = methods.map(|method| {
            let takes = Takes {
                one_message: !method.is_client_streaming(),
                limit: MAX_REQUEST,
                checked: checked(&method),
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

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use bytes::Bytes;
    use http::{HeaderMap, HeaderName, HeaderValue};
    use http_body::Frame;
    use http_body_util::BodyExt;
    use prost::Message;
    use tonic::Status;
    use tonic::server::Grpc;

    use super::super::codec::MessageCodec;
    use super::*;

    const STATUS: &str = "grpc-status";

    /// A service of tonic's with one method.
    #[derive(Clone)]
    struct Repeat;

    impl NamedService for Repeat {
        const NAME: &'static str = "some.Service";
    }

    impl Service<Request<Body>> for Repeat {
        type Response = Response<Body>;
        type Error = Infallible;
        type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, request: Request<Body>) -> Self::Future {
            let mut grpc = Grpc::new(MessageCodec::<String, String>::default());
            Box::pin(async move { Ok(grpc.unary(tower::service_fn(repeat), request).await) })
        }
    }

    /// One step of a body that arrives.
    #[derive(Debug, Clone)]
    enum Step {
        Data(Vec<u8>),
        Trailers,
        Wait,
        Fail,
    }
    use Step::{Data, Fail, Trailers, Wait};

    struct Arriving(VecDeque<Step>);

    impl http_body::Body for Arriving {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            Poll::Ready(match self.0.pop_front() {
                None => None,
                Some(Data(data)) => Some(Ok(Frame::data(data.into()))),
                Some(Trailers) => {
                    let behind = HeaderValue::from_static("behind");
                    let trailers = [(HeaderName::from_static("x-trailer"), behind)];
                    Some(Ok(Frame::trailers(trailers.into_iter().collect())))
                }
                Some(Wait) => {
                    context.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Some(Fail) => Some(Err(Status::data_loss("broken off"))),
            })
        }

        fn is_end_stream(&self) -> bool {
            self.0.is_empty()
        }
    }

    /// Repeats the message and what metadata it saw, or refuses.
    async fn repeat(request: tonic::Request<String>) -> Result<tonic::Response<String>, Status> {
        let mut metadata = request.metadata().clone();
        metadata.insert("te", "not sent".parse().expect("a value"));
        if request.get_ref() == "refuse" {
            return Err(Status::with_metadata(tonic::Code::Aborted, "no", metadata));
        }
        let mut response = tonic::Response::new(request.into_inner().repeat(2));
        *response.metadata_mut() = metadata;
        Ok(response)
    }

    fn request(encoding: Option<&str>, steps: &[Step]) -> http::Request<Arriving> {
        let mut request = http::Request::post("/some.Service/Repeat")
            .header("content-type", "application/grpc")
            .header("x-header", "before");
        if let Some(encoding) = encoding {
            request = request.header("grpc-encoding", encoding);
        }
        request
            .body(Arriving(steps.iter().cloned().collect()))
            .expect("a request")
    }

    /// What a client sees: headers, data and trailers.
    async fn seen(response: http::Response<Body>) -> (HeaderMap, Bytes, Option<HeaderMap>) {
        let (head, body) = response.into_parts();
        assert_eq!(head.status, 200);
        let body = body.collect().await.expect("a whole body");
        let trailers = body.trailers().cloned();
        (head.headers, body.to_bytes(), trailers)
    }

    fn message(flag: u8, text: &str) -> Vec<u8> {
        let message = text.to_owned().encode_to_vec();
        let length = u32::try_from(message.len()).expect("few").to_be_bytes();
        [&[flag][..], &length, &message].concat()
    }

    async fn check(
        name: &str,
        encoding: Option<&str>,
        steps: &[Step],
        limit: Option<usize>,
    ) -> i32 {
        let path = "/some.Service/Repeat".to_owned();
        let takes = Takes {
            one_message: true,
            limit: limit.unwrap_or(MAX_REQUEST),
            checked: None,
        };
        let mut framed = Framed {
            service: Repeat,
            methods: Arc::new(HashMap::from([(path, takes)])),
        };
        let asked = request(encoding, steps).map(Body::new);
        let Ok(own) = framed.call(asked).await;
        let own = seen(own).await;
        let status = |headers: &HeaderMap| headers.get(STATUS).cloned();
        let status = own.2.as_ref().and_then(status).or(status(&own.0));
        let status = status.expect(name).to_str().expect(name).parse();
        let status = status.expect(name);
        // tonic reads no compression here, and has other words for what is no request.
        if encoding.is_none() && matches!(status, 0 | 10) {
            let Ok(theirs) = Repeat.call(request(encoding, steps).map(Body::new)).await;
            assert_eq!(own, seen(theirs).await, "{name}");
        }
        status
    }

    #[tokio::test]
    async fn calls_are_answered_as_tonic_answers_them() {
        let whole = || Data(message(0, "text"));
        let halves = |at| {
            let message = message(0, "text");
            let (front, back) = message.split_at(at);
            vec![Data(front.to_vec()), Data(back.to_vec())]
        };
        let cases: [(&str, Vec<Step>, i32); 21] = [
            ("whole", vec![whole()], 0),
            ("empty message", vec![Data(message(0, ""))], 0),
            ("an empty frame behind", vec![whole(), Data(vec![])], 0),
            (
                "two empty frames behind",
                vec![whole(), Data(vec![]), Data(vec![])],
                0,
            ),
            ("an empty frame before", vec![Data(vec![]), whole()], 0),
            ("trailers", vec![whole(), Trailers], 0),
            (
                "an empty frame and trailers",
                vec![whole(), Data(vec![]), Trailers],
                0,
            ),
            ("late", vec![Wait, Wait, whole()], 0),
            ("a late end", vec![whole(), Wait], 0),
            ("late trailers", vec![whole(), Wait, Trailers], 0),
            ("in the prefix", halves(3), 0),
            ("in the message", halves(7), 0),
            ("refused", vec![Data(message(0, "refuse"))], 10),
            ("nothing", vec![], 13),
            (
                "two messages in a frame",
                vec![Data([message(0, "a"), message(0, "b")].concat())],
                13,
            ),
            ("two messages", vec![whole(), whole()], 13),
            (
                "less than it says",
                vec![Data(message(0, "text")[..9].to_vec())],
                13,
            ),
            ("compressed", vec![Data(message(1, "text"))], 13),
            ("no message", vec![Data(vec![0, 0, 0, 0, 1, 0xff])], 13),
            ("broken off", vec![Fail], 15),
            ("broken off behind", vec![whole(), Fail], 15),
        ];
        for (name, steps, code) in cases {
            assert_eq!(check(name, None, &steps, None).await, code, "{name}");
        }
        let steps = [whole()];
        // The text takes six bytes.
        for (name, limit, code) in [("at the limit", 6, 0), ("too long", 5, 8)] {
            assert_eq!(check(name, None, &steps, Some(limit)).await, code, "{name}");
        }
        for (coding, steps, code) in [
            ("identity", vec![whole()], 0),
            ("gzip", vec![whole()], 0),
            ("gzip", vec![Wait, whole()], 0),
            ("gzip", vec![Data(message(1, "text"))], 13),
            ("br", vec![whole()], 12),
        ] {
            assert_eq!(
                check(coding, Some(coding), &steps, None).await,
                code,
                "{coding}"
            );
        }
    }
}
