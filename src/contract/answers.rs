//! Answers calls by tonic, with the frames of [`super::framing`]. The generated servers call these functions.

use std::convert::Infallible;

use futures_util::Stream;
use prost::{Message, Name};
use tonic::body::Body;
use tonic::server::Grpc;
use tonic::{Request, Response, Status};
use tower::service_fn;

use super::codec::MessageCodec;
use super::compression::Coding;
use super::framing::{Takes, compressed, plain};

/// Answers a call that replies with one message.
pub async fn unary<M, F, T, U>(
    method: M,
    request: http::Request<Body>,
) -> Result<http::Response<Body>, Infallible>
where
    M: FnMut(Request<U>) -> F,
    F: Future<Output = Result<Response<T>, Status>>,
    T: Message + Send + 'static,
    U: Message + Name + Default + Send + 'static,
{
    let coding = Coding::of_reply(request.headers());
    let request = match plain(request, Takes::one()) {
        Ok(request) => request,
        Err(refused) => return Ok(refused.into_http()),
    };
    let mut tonic = Grpc::new(MessageCodec::default());
    let reply = tonic.unary(service_fn(method), request).await;
    Ok(compressed(reply, coding))
}

/// Answers a call that replies with a stream of messages.
pub async fn server_streaming<M, F, S, T, U>(
    method: M,
    request: http::Request<Body>,
) -> Result<http::Response<Body>, Infallible>
where
    M: FnMut(Request<U>) -> F,
    F: Future<Output = Result<Response<S>, Status>>,
    S: Stream<Item = Result<T, Status>> + Send + 'static,
    T: Message + Send + 'static,
    U: Message + Name + Default + Send + 'static,
{
    let coding = Coding::of_reply(request.headers());
    let request = match plain(request, Takes::one()) {
        Ok(request) => request,
        Err(refused) => return Ok(refused.into_http()),
    };
    let mut tonic = Grpc::new(MessageCodec::default());
    let reply = tonic.server_streaming(service_fn(method), request).await;
    Ok(compressed(reply, coding))
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use bytes::Bytes;
    use http::{HeaderMap, HeaderName, HeaderValue};
    use http_body::Frame;
    use http_body_util::BodyExt;

    use super::super::framing::MAX_REQUEST;
    use super::*;

    const STATUS: &str = "grpc-status";

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
    async fn repeat(request: Request<String>) -> Result<Response<String>, Status> {
        let mut metadata = request.metadata().clone();
        metadata.insert("te", "not sent".parse().expect("a value"));
        if request.get_ref() == "refuse" {
            return Err(Status::with_metadata(tonic::Code::Aborted, "no", metadata));
        }
        let mut response = Response::new(request.into_inner().repeat(2));
        *response.metadata_mut() = metadata;
        Ok(response)
    }

    fn request(encoding: Option<&str>, steps: &[Step]) -> http::Request<Body> {
        let mut request = http::Request::post("/some.Service/Repeat")
            .header("content-type", "application/grpc")
            .header("x-header", "before");
        if let Some(encoding) = encoding {
            request = request.header("grpc-encoding", encoding);
        }
        request
            .body(Body::new(Arriving(steps.iter().cloned().collect())))
            .expect("a request")
    }

    /// The answer that a client sees: headers, data and trailers.
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

    async fn check(name: &str, encoding: Option<&str>, steps: &[Step]) -> i32 {
        let Ok(own) = unary(repeat, request(encoding, steps)).await;
        let own = seen(own).await;
        let status = |headers: &HeaderMap| headers.get(STATUS).cloned();
        let status = own.2.as_ref().and_then(status).or(status(&own.0));
        let status = status.expect(name).to_str().expect(name).parse();
        let status = status.expect(name);
        // tonic reads no compression here, and has other words for what is no request.
        if encoding.is_none() && matches!(status, 0 | 10) {
            let mut tonic = Grpc::new(MessageCodec::<String, String>::default());
            let theirs = tonic.unary(service_fn(repeat), request(encoding, steps));
            assert_eq!(own, seen(theirs.await).await, "{name}");
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
            assert_eq!(check(name, None, &steps).await, code, "{name}");
        }
        // The text's own prefix takes five bytes.
        for (length, code) in [(MAX_REQUEST - 5, 0), (MAX_REQUEST - 4, 8)] {
            let steps = [Data(message(0, &"x".repeat(length)))];
            assert_eq!(check("long", None, &steps).await, code, "{length}");
        }
        for (coding, steps, code) in [
            ("identity", vec![whole()], 0),
            ("gzip", vec![whole()], 0),
            ("gzip", vec![Wait, whole()], 0),
            ("gzip", vec![Data(message(1, "text"))], 13),
            ("br", vec![whole()], 12),
        ] {
            let status = check(coding, Some(coding), &steps).await;
            assert_eq!(status, code, "{coding}");
        }
    }
}
