//! The frames of gRPC (its protocol over HTTP/2): a flag, a length, a message.
//!
//! tonic is given plain frames only. [`plain`] makes them of whatever a client sends, and finds what is no
//! right request: tonic's own words and codes for that are those of its implementation. [`compressed`]
//! compresses what tonic replies.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::{HeaderMap, header};
use http_body::Frame;
use prost_reflect::{DynamicMessage, MessageDescriptor};
use tokio::time::Sleep;
use tonic::body::Body;
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};
use tower::BoxError;

use super::compression::{ACCEPT_ENCODING, ACCEPTED, Coding, ENCODING, Unreadable};
use super::texts;

/// The largest message of a request, in bytes: as in tonic.
pub(super) const MAX_REQUEST: usize = 4 << 20;
/// How long a request of one message may take to arrive: it is small.
const LONGEST_ARRIVAL: Duration = Duration::from_secs(30);
/// The flag of a message that is not compressed, and of one that is.
const PLAIN: u8 = 0;
const COMPRESSED: u8 = 1;

/// The part of a frame before its message.
#[derive(Debug, PartialEq, Eq)]
struct Prefix {
    flag: u8,
    /// The length of the message in bytes.
    length: usize,
}

impl Prefix {
    const SIZE: usize = 5;

    /// The prefix and the bytes behind it; `None` where it is not all there.
    fn split(data: &[u8]) -> Option<(Self, &[u8])> {
        let (&[flag, length @ ..], rest) = data.split_first_chunk::<{ Self::SIZE }>()?;
        let length = u32::from_be_bytes(length) as usize;
        Some((Self { flag, length }, rest))
    }

    /// `None` where the length does not fit.
    fn put(self, to: &mut impl BufMut) -> Option<()> {
        let length = u32::try_from(self.length).ok()?;
        to.put_u8(self.flag);
        to.put_u32(length);
        Some(())
    }
}

/// How the request messages of a method are read and bounded.
#[derive(Debug, Clone)]
pub(super) struct Takes {
    /// Whether a request is exactly one message.
    pub one_message: bool,
    /// The type of the messages, where what reads them later does not judge them in our words.
    pub checked: Option<MessageDescriptor>,
}

impl Takes {
    /// One message.
    pub(super) fn one() -> Self {
        Self {
            one_message: true,
            checked: None,
        }
    }
}

/// The request with plain frames; the error refuses its compression.
pub(super) fn plain<B>(
    request: http::Request<B>,
    takes: Takes,
) -> Result<http::Request<Body>, Status>
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let (mut head, body) = request.into_parts();
    let coding = Coding::of_request(&head.headers).map_err(|name| refused_coding(&name))?;
    head.headers.remove(ENCODING);
    let body = Plain {
        body: Body::new(body),
        coding,
        takes,
        buffer: BytesMut::new(),
        messages: 0,
        has_ended: false,
        arrival: None,
    };
    Ok(http::Request::from_parts(head, Body::new(body)))
}

fn refused_coding(name: &str) -> Status {
    let name = texts::shown(name);
    let mut status = Status::unimplemented(format!(
        "grpc-encoding {name:?} is not read here; messages may be compressed by gzip or zstd"
    ));
    *status.metadata_mut() =
        MetadataMap::from_headers(HeaderMap::from_iter([(ACCEPT_ENCODING, ACCEPTED)]));
    status
}

/// The body of a request in plain frames, one message in each piece.
struct Plain {
    body: Body,
    coding: Option<Coding>,
    takes: Takes,
    /// Bytes that have arrived and are not passed on.
    buffer: BytesMut,
    /// How many messages have been passed on.
    messages: usize,
    has_ended: bool,
    /// When a request of one message must have arrived, once that is waited for.
    arrival: Option<Pin<Box<Sleep>>>,
}

impl Plain {
    /// The next message in a plain frame, if it is there.
    fn take_message(&mut self) -> Result<Option<Bytes>, Status> {
        if self.takes.one_message && self.messages > 0 && !self.buffer.is_empty() {
            return Err(Status::internal(
                "the request goes on behind its message: this method takes exactly one",
            ));
        }
        let Some((Prefix { flag, length }, rest)) = Prefix::split(&self.buffer) else {
            return Ok(None);
        };
        let has_arrived = rest.len() >= length;
        let coding = match (flag, self.coding) {
            (PLAIN, _) => None,
            (COMPRESSED, Some(coding)) => Some(coding),
            (COMPRESSED, None) => {
                return Err(Status::internal(
                    "a message is marked as compressed, and no grpc-encoding says how",
                ));
            }
            _ => {
                return Err(Status::internal(format!(
                    "a message has the flag {flag}: 0 is plain, 1 compressed, and there are no others"
                )));
            }
        };
        if length > MAX_REQUEST {
            return Err(Status::resource_exhausted(format!(
                "a message of {length} bytes is larger than the limit of {MAX_REQUEST} bytes"
            )));
        }
        if !has_arrived {
            return Ok(None);
        }
        let mut frame = self.buffer.split_to(Prefix::SIZE + length);
        let frame = match coding {
            None => frame.freeze(),
            Some(coding) => {
                frame.advance(Prefix::SIZE);
                let message = coding.decompress(&frame, MAX_REQUEST);
                let message = message.map_err(|unreadable| match unreadable {
                    Unreadable::TooLong => Status::resource_exhausted(format!(
                        "a message is larger than the limit of {MAX_REQUEST} bytes once it is decompressed"
                    )),
                    Unreadable::Damaged => Status::internal(
                        "a message cannot be decompressed by what grpc-encoding says",
                    ),
                })?;
                in_frame(PLAIN, &message)
            }
        };
        if let Some(descriptor) = &self.takes.checked {
            let read = DynamicMessage::decode(descriptor.clone(), &frame[Prefix::SIZE..]);
            read.map_err(|_| not_the_message(descriptor.full_name()))?;
        }
        self.messages += 1;
        Ok(Some(frame))
    }

    /// Whether the body may end here.
    fn end(&self) -> Result<(), Status> {
        if !self.buffer.is_empty() {
            return Err(Status::internal("the request ends within a message"));
        }
        if self.takes.one_message && self.messages == 0 {
            return Err(Status::internal(
                "the request has no message: this method takes exactly one",
            ));
        }
        Ok(())
    }

    fn poll_plain(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        loop {
            if let Some(frame) = self.take_message()? {
                return Poll::Ready(Some(Ok(Frame::data(frame))));
            }
            let Poll::Ready(read) = http_body::Body::poll_frame(Pin::new(&mut self.body), context)
            else {
                ready!(self.poll_arrival(context));
                return Poll::Ready(Some(Err(Status::deadline_exceeded(format!(
                    "the request did not arrive within {} seconds",
                    LONGEST_ARRIVAL.as_secs()
                )))));
            };
            let Some(read) = read else {
                self.end()?;
                return Poll::Ready(None);
            };
            match read.map_err(|status| broken(&status))?.into_data() {
                Ok(data) if self.buffer.is_empty() => self.buffer = data.into(),
                Ok(data) => self.buffer.extend_from_slice(&data),
                Err(other) => {
                    self.end()?;
                    return Poll::Ready(Some(Ok(other)));
                }
            }
        }
    }

    /// Ready when a request of one message took too long.
    fn poll_arrival(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if !self.takes.one_message {
            return Poll::Pending;
        }
        let sleep = || Box::pin(tokio::time::sleep(LONGEST_ARRIVAL));
        let arrival = self.arrival.get_or_insert_with(sleep);
        arrival.as_mut().poll(context)
    }
}

impl http_body::Body for Plain {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.has_ended {
            return Poll::Ready(None);
        }
        let frame = ready!(self.poll_plain(context));
        self.has_ended = !matches!(frame, Some(Ok(_)));
        Poll::Ready(frame)
    }
}

/// INTERNAL for bytes that are no message of their type, as the gRPC specification has it.
pub(super) fn not_the_message(name: &str) -> Status {
    Status::internal(format!(
        "the request is not a valid message of the type {name}"
    ))
}

/// The status of a body that could not be read, without what a library says of that.
fn broken(status: &Status) -> Status {
    let code = match status.code() {
        Code::Ok | Code::Unknown => Code::Internal,
        code => code,
    };
    Status::new(code, "the request broke off, or its body cannot be read")
}

#[expect(
    clippy::expect_used,
    reason = "messages here are no longer than a limit, or came with a length of 32 bits"
)]
fn in_frame(flag: u8, message: &[u8]) -> Bytes {
    let length = message.len();
    let mut frame = BytesMut::with_capacity(Prefix::SIZE + length);
    let put = Prefix { flag, length }.put(&mut frame);
    put.expect("a length of 32 bits");
    frame.put_slice(message);
    frame.freeze()
}

/// The frame of a message of a reply, compressed where that is worth it.
fn compressed_frame(frame: Bytes, coding: Coding) -> Bytes {
    match frame
        .get(Prefix::SIZE..)
        .and_then(|message| coding.compress(message))
    {
        Some(compressed) => in_frame(COMPRESSED, &compressed),
        None => frame,
    }
}

/// The reply with its messages compressed, where the client takes that.
pub(super) fn compressed(
    response: http::Response<Body>,
    coding: Option<Coding>,
) -> http::Response<Body> {
    let (mut head, body) = response.into_parts();
    let is_grpc = head.headers.get(header::CONTENT_TYPE).is_some();
    match coding {
        Some(coding) if is_grpc && !head.headers.contains_key(Status::GRPC_STATUS) => {
            head.headers.insert(ENCODING, coding.name());
            let buffer = BytesMut::new();
            let body = Body::new(Compressed {
                body,
                coding,
                buffer,
            });
            http::Response::from_parts(head, body)
        }
        _ => http::Response::from_parts(head, body),
    }
}

/// The body of a reply with compressed messages.
struct Compressed {
    body: Body,
    coding: Coding,
    /// The beginning of a frame whose end has not come.
    buffer: BytesMut,
}

impl Compressed {
    /// The frames that are there as a whole, compressed.
    fn take_frames(&mut self) -> Bytes {
        let mut frames = BytesMut::new();
        while let Some((prefix, _)) = Prefix::split(&self.buffer) {
            let end = Prefix::SIZE + prefix.length;
            if self.buffer.len() < end {
                break;
            }
            let frame = self.buffer.split_to(end).freeze();
            frames.extend_from_slice(&compressed_frame(frame, self.coding));
        }
        frames.freeze()
    }
}

impl http_body::Body for Compressed {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        loop {
            let read = ready!(http_body::Body::poll_frame(
                Pin::new(&mut self.body),
                context
            ));
            let Some(read) = read else {
                return Poll::Ready(None);
            };
            match read?.into_data() {
                Ok(data) => {
                    self.buffer.extend_from_slice(&data);
                    let frames = self.take_frames();
                    if !frames.is_empty() {
                        return Poll::Ready(Some(Ok(Frame::data(frames))));
                    }
                }
                Err(other) => return Poll::Ready(Some(Ok(other))),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt, stream};
    use http_body_util::{BodyExt, StreamBody};

    use super::*;

    fn body(pieces: Vec<Bytes>) -> Body {
        let frames = pieces
            .into_iter()
            .map(|piece| Ok::<_, Status>(Frame::data(piece)));
        Body::new(StreamBody::new(stream::iter(frames)))
    }

    fn of(body: Body, arrival: Option<Duration>) -> Plain {
        Plain {
            body,
            coding: None,
            takes: Takes::one(),
            buffer: BytesMut::new(),
            messages: 0,
            has_ended: false,
            arrival: arrival.map(|arrival| Box::pin(tokio::time::sleep(arrival))),
        }
    }

    #[tokio::test]
    async fn a_request_that_does_not_arrive_is_given_up() {
        let silent = || {
            Body::new(StreamBody::new(stream::pending::<
                Result<Frame<Bytes>, Status>,
            >()))
        };
        let late = of(silent(), Some(Duration::ZERO)).frame().await;
        let status = late.expect("an end").expect_err("no message");
        assert_eq!(status.code(), Code::DeadlineExceeded);
        let mut early = of(silent(), None);
        assert!(early.frame().now_or_never().is_none(), "there is time yet");
        // A stream of messages may be silent.
        let mut stream = of(silent(), Some(Duration::ZERO));
        stream.takes.one_message = false;
        assert!(stream.frame().now_or_never().is_none());
    }

    #[tokio::test]
    async fn what_a_library_says_of_a_body_is_not_passed_on() {
        let broken = stream::iter([Err::<Frame<Bytes>, _>(Status::unknown("h2 protocol error"))]);
        let frame = of(Body::new(StreamBody::new(broken)), None).frame().await;
        let status = frame.expect("an end").expect_err("no message");
        assert_eq!(status.code(), Code::Internal);
        assert!(!status.message().contains("h2"), "{status}");
    }

    #[tokio::test]
    async fn frames_of_a_reply_are_compressed_whatever_pieces_they_come_in() {
        let long = in_frame(0, &b"desktop ".repeat(200));
        let short = in_frame(0, b"short");
        let all = [&long[..], &short, &long].concat();
        for size in [1, 7, 1000, all.len()] {
            let pieces = all.chunks(size).map(Bytes::copy_from_slice).collect();
            let compressed = Compressed {
                body: body(pieces),
                coding: Coding::Gzip,
                buffer: BytesMut::new(),
            };
            let bytes = compressed.collect().await.expect("frames").to_bytes();
            let mut rest = &bytes[..];
            let mut flags = Vec::new();
            while let Some((prefix, after)) = Prefix::split(rest) {
                flags.push(prefix.flag);
                rest = &after[prefix.length..];
            }
            assert_eq!(flags, [1, 0, 1], "pieces of {size}");
        }
    }
}
