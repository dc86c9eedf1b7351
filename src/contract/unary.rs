//! Answers calls of one message each way. Those of all services that are generated here pass it: `build.rs`
//! puts [`answer`] in the place where tonic's generated code has its own.
//!
//! tonic reads every request as a stream of messages and writes every reply as one. For a small call that
//! is most of the work, and it keeps what it needs for as long as the call takes. Nearly all requests
//! are one message in one piece; what is anything else goes on to tonic as it came.

use std::any::Any;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::LazyLock;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use futures_util::FutureExt;
use http::{HeaderMap, HeaderName, HeaderValue, Version, header};
use http_body::Frame;
use http_body_util::BodyExt;
use prost::{Message, Name};
use tonic::body::Body;
use tonic::metadata::MetadataMap;
use tonic::server::{Grpc, UnaryService};
use tonic::{Request, Response, Status};
use tower::BoxError;

use super::codec::MessageCodec;
use super::compression::{ACCEPT_ENCODING, Coding, ENCODING};
use super::encode::{self, Encode};
use super::framing::{MAX_REQUEST, PREFIX, Takes, compressed, compressed_frame, plain};

const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const OK: HeaderValue = HeaderValue::from_static("0");
const CONTENT_TYPE: HeaderValue = HeaderValue::from_static("application/grpc");
/// Behind a reply that went well: to copy the map takes half of what it takes to make one.
static TRAILERS: LazyLock<HeaderMap> = LazyLock::new(|| HeaderMap::from_iter([(STATUS, OK)]));
/// Names that are no metadata: a handler's are not sent, as in tonic.
const RESERVED: [HeaderName; 5] = [
    header::TE,
    header::CONTENT_TYPE,
    HeaderName::from_static("grpc-message"),
    HeaderName::from_static("grpc-message-type"),
    STATUS,
];

/// Answers one call by `method`, or by `tonic` where the request has not arrived, is not one message in one
/// piece, or names a compression, and where there is a limit for replies. Limits are in bytes of a message.
/// Replies are compressed as the client likes.
pub fn answer<M, T, U, B>(
    tonic: Grpc<MessageCodec<T, U>>,
    mut method: M,
    request: http::Request<B>,
    max_request: Option<usize>,
    max_reply: Option<usize>,
) -> impl Future<Output = Result<http::Response<Body>, Infallible>>
where
    M: UnaryService<U, Response = T>,
    T: Encode + Message + Send + 'static,
    U: Message + Name + Default + Send + 'static,
    B: http_body::Body + Send + 'static,
    B::Error: Into<BoxError> + Send,
{
    let (head, body) = request.into_parts();
    let (mut is_plain, mut takes_codings) = (max_reply.is_none(), false);
    for name in head.headers.keys() {
        is_plain &= *name != ENCODING;
        takes_codings |= *name == ACCEPT_ENCODING;
    }
    let coding = match takes_codings {
        true => Coding::of_reply(&head.headers),
        false => None,
    };
    let read = match is_plain {
        true => read(into_body(body), max_request.unwrap_or(MAX_REQUEST)),
        false => Err(Partly::new([None, None], into_body(body))),
    };
    let called = match read {
        Ok(message) => {
            let metadata = MetadataMap::from_headers(head.headers);
            Ok(method.call(Request::from_parts(metadata, head.extensions, message)))
        }
        Err(body) => {
            let request = http::Request::from_parts(head, body);
            Err(by_tonic(tonic, method, request, max_request))
        }
    };
    async move {
        Ok(match called {
            Ok(reply) => reply
                .await
                .and_then(|reply| respond(reply, coding))
                .unwrap_or_else(Status::into_http),
            Err(tonic) => compressed(tonic.await, coding),
        })
    }
}

/// Answers one call by tonic. Boxed, lest every call is as large as these.
#[cold]
#[inline(never)]
fn by_tonic<M, T, U>(
    mut tonic: Grpc<MessageCodec<T, U>>,
    method: M,
    request: http::Request<Box<Partly>>,
    max_request: Option<usize>,
) -> Pin<Box<impl Future<Output = http::Response<Body>>>>
where
    M: UnaryService<U, Response = T>,
    T: Encode + Message + Send + 'static,
    U: Message + Name + Default + Send + 'static,
{
    let request = plain(request, Takes::one(max_request));
    Box::pin(async move {
        match request {
            Ok(request) => tonic.unary(method, request).await,
            Err(refused) => refused.into_http(),
        }
    })
}

/// The only message of a body, if all of it has arrived, or the body as it came.
fn read<U: Message + Default>(mut body: Body, limit: usize) -> Result<U, Box<Partly>> {
    let first = body.frame().now_or_never().flatten();
    let data = first
        .as_ref()
        .and_then(|frame| frame.as_ref().ok()?.data_ref());
    let Some(message) = data.and_then(|data| whole(data, limit)) else {
        return Err(Partly::new([first, None], body));
    };
    loop {
        match body.frame().now_or_never() {
            Some(None) => return Ok(message),
            // Many clients end a request with a frame without data.
            Some(Some(Ok(frame))) if frame.data_ref().is_some_and(Bytes::is_empty) => {}
            more => return Err(Partly::new([first, more.flatten()], body)),
        }
    }
}

/// The message that is all of `data`.
fn whole<U: Message + Default>(data: &[u8], limit: usize) -> Option<U> {
    let ([flag, length @ ..], message) = data.split_first_chunk::<PREFIX>()?;
    let is_whole = *flag == 0
        && u32::from_be_bytes(*length) as usize == message.len()
        && message.len() <= limit;
    is_whole.then(|| U::decode(message).ok())?
}

/// A body as tonic's own type, which it is as a rule.
fn into_body<B>(body: B) -> Body
where
    B: http_body::Body + Send + 'static,
    B::Error: Into<BoxError> + Send,
{
    let mut body = Some(body);
    let own = (&mut body as &mut dyn Any).downcast_mut::<Option<Body>>();
    match (own.and_then(Option::take), body) {
        (Some(own), _) => own,
        (None, Some(other)) => boxed(other),
        (None, None) => Body::empty(),
    }
}

#[cold]
#[inline(never)]
fn boxed<B>(body: B) -> Body
where
    B: http_body::Body + Send + 'static,
    B::Error: Into<BoxError> + Send,
{
    let bytes = |mut data: B::Data| data.copy_to_bytes(data.remaining());
    Body::new(body.map_frame(move |frame| frame.map_data(bytes)))
}

/// A body whose first frames have been read.
struct Partly {
    read: [Option<Result<Frame<Bytes>, Status>>; 2],
    rest: Body,
}

impl Partly {
    #[cold]
    #[inline(never)]
    fn new(read: [Option<Result<Frame<Bytes>, Status>>; 2], rest: Body) -> Box<Self> {
        Box::new(Self { read, rest })
    }
}

impl http_body::Body for Partly {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        match self.read.iter_mut().find_map(Option::take) {
            Some(frame) => Poll::Ready(Some(frame)),
            None => Pin::new(&mut self.rest).poll_frame(context),
        }
    }
}

/// The response with the only message of a reply.
fn respond<T: Encode>(
    response: Response<T>,
    coding: Option<Coding>,
) -> Result<http::Response<Body>, Status> {
    let (metadata, message, extensions) = response.into_parts();
    let mut frame = encode::frame(&message)
        .ok_or_else(|| Status::resource_exhausted("the reply is longer than a message can be"))?;
    if let Some(coding) = coding {
        frame = compressed_frame(frame, coding);
    }
    let mut response = http::Response::new(Body::new(Reply::Message(frame)));
    *response.version_mut() = Version::HTTP_2;
    *response.extensions_mut() = extensions;
    let mut headers = metadata.into_headers();
    if !headers.is_empty() {
        for name in &RESERVED {
            headers.remove(name);
        }
    }
    headers.insert(header::CONTENT_TYPE, CONTENT_TYPE);
    if let Some(coding) = coding {
        headers.insert(ENCODING, coding.name());
    }
    *response.headers_mut() = headers;
    Ok(response)
}

/// What of a reply has not left: the message and the status, the status, or nothing.
enum Reply {
    Message(Bytes),
    Status,
    Nothing,
}

impl http_body::Body for Reply {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let frame = match std::mem::replace(&mut *self, Self::Nothing) {
            Self::Message(message) => {
                *self = Self::Status;
                Some(Ok(Frame::data(message)))
            }
            Self::Status => Some(Ok(Frame::trailers(TRAILERS.clone()))),
            Self::Nothing => None,
        };
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Nothing)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

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
        type Data = VecDeque<u8>;
        type Error = Status;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<VecDeque<u8>>, Status>>> {
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
        (max_request, max_reply): (Option<usize>, Option<usize>),
    ) -> i32 {
        let grpc = || {
            let grpc = Grpc::new(MessageCodec::<String, String>::default());
            grpc.apply_max_message_size_config(max_request, max_reply)
        };
        let (method, asked) = (tower::service_fn(repeat), request(encoding, steps));
        let Ok(own) = answer(grpc(), method, asked, max_request, max_reply).await;
        let own = seen(own).await;
        let status = |headers: &HeaderMap| headers.get(STATUS).cloned();
        let status = own.2.as_ref().and_then(status).or(status(&own.0));
        let status = status.expect(name).to_str().expect(name).parse();
        let status = status.expect(name);
        // tonic reads no compression here, and has other words for what is no request.
        if encoding.is_none() && matches!(status, 0 | 10) {
            let theirs = grpc().unary(method, request(encoding, steps)).await;
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
        let no_limits = (None, None);
        for (name, steps, code) in cases {
            assert_eq!(check(name, None, &steps, no_limits).await, code, "{name}");
        }
        let steps = [whole()];
        for (name, limits, code) in [
            // The text takes six bytes, twice the text ten.
            ("at the limit", (Some(6), None), 0),
            ("too long", (Some(5), None), 8),
            ("a reply at the limit", (None, Some(10)), 0),
            ("a reply too long", (None, Some(9)), 11),
        ] {
            assert_eq!(check(name, None, &steps, limits).await, code, "{name}");
        }
        for (coding, steps, code) in [
            ("identity", vec![whole()], 0),
            ("gzip", vec![whole()], 0),
            ("gzip", vec![Wait, whole()], 0),
            ("gzip", vec![Data(message(1, "text"))], 13),
            ("br", vec![whole()], 12),
        ] {
            assert_eq!(
                check(coding, Some(coding), &steps, no_limits).await,
                code,
                "{coding}"
            );
        }
    }
}
