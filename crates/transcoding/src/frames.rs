//! The messages of a gRPC reply, one after another, and how the reply ended.

use std::{
    pin::Pin,
    task::{Context, Poll, Waker},
};

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, StatusCode, response::Parts};
use http_body::Frame;
use http_body_util::BodyExt;
use tonic::{Code, Status, body::Body, metadata::MetadataMap};

use super::{codec, metadata, rules::Method};

/// The length of what stands before a message: a flag for compression and a 32-bit length.
pub(crate) const PREFIX: usize = 5;

/// The flag of the first message, its length, and what is behind both; `None` where they are not all there.
#[inline]
fn split(data: &[u8]) -> Option<(u8, usize, &[u8])> {
    let (&[flag, length @ ..], rest) = data.split_first_chunk::<PREFIX>()?;
    Some((flag, u32::from_be_bytes(length) as usize, rest))
}

/// Writes what stands before the message of a frame, for which there is room; `None` where it is too long for one.
pub(crate) fn close(frame: &mut [u8]) -> Option<()> {
    let (prefix, message) = frame.split_first_chunk_mut::<PREFIX>()?;
    let length = u32::try_from(message.len()).ok()?;
    prefix[0] = 0;
    prefix[1..].copy_from_slice(&length.to_be_bytes());
    Some(())
}

/// The first frames of a reply, as far as they were read.
pub(crate) type Read = [Option<Result<Frame<Bytes>, Status>>; 2];

/// Whether a reply can be one that [`whole`] takes, by its head: not where that says already how it ended.
pub(crate) fn may_be_whole(head: &Parts) -> bool {
    head.status == StatusCode::OK && head.headers.keys().all(|name| *name != metadata::STATUS)
}

/// The only message of a reply that has arrived, went well and has no metadata behind it, as nearly
/// all replies of one message. Of any other, what is read of it is in `read`.
pub(crate) fn whole(body: &mut Body, read: &mut Read) -> Option<Bytes> {
    let [first, second] = read;
    *first = arrived(body);
    let frame = first.as_mut()?.as_mut().ok()?;
    let data = frame.data_mut().filter(|data| is_one_message(data))?;
    // Trailers are the end of a body.
    *second = arrived(body);
    if !second.as_ref().is_some_and(is_well) {
        return None;
    }
    data.advance(PREFIX);
    Some(std::mem::take(data))
}

/// The next frame, if there is one already.
fn arrived(body: &mut Body) -> Option<Result<Frame<Bytes>, Status>> {
    let mut context = Context::from_waker(Waker::noop());
    match http_body::Body::poll_frame(Pin::new(body), &mut context) {
        Poll::Ready(None) => {
            // What has ended is not asked again.
            *body = Body::empty();
            None
        }
        Poll::Ready(frame) => frame,
        Poll::Pending => None,
    }
}

fn is_one_message(data: &Bytes) -> bool {
    split(data).is_some_and(|(flag, length, message)| flag == 0 && length == message.len())
}

/// Whether a frame is the end of a call that went well, and says nothing else.
fn is_well(frame: &Result<Frame<Bytes>, Status>) -> bool {
    let trailers = frame.as_ref().ok().and_then(Frame::trailers_ref);
    trailers.is_some_and(|trailers| {
        let mut trailers = trailers.iter();
        let is_ok = trailers
            .next()
            .is_some_and(|(name, value)| *name == metadata::STATUS && value == "0");
        is_ok && trailers.next().is_none()
    })
}

/// Reads a reply no further than it is asked for, so that a slow client slows the service down.
pub(crate) struct Messages {
    headers: HeaderMap,
    body: Body,
    /// Bytes that have arrived and are not taken yet.
    data: Bytes,
    /// The part that has arrived of a message that comes in several; then `data` is empty.
    part: BytesMut,
    trailers: HeaderMap,
}

impl Messages {
    /// The reply to a call, of which something may have been read. A status that came instead of
    /// messages is an error at once.
    pub(crate) fn new(
        status: StatusCode,
        headers: HeaderMap,
        read: Read,
        body: Body,
    ) -> Result<Self, Status> {
        end(&headers, &headers).unwrap_or(Ok(()))?;
        if status != StatusCode::OK {
            return Err(status_of_http(status));
        }
        let mut messages = Self {
            headers,
            body,
            data: Bytes::new(),
            part: BytesMut::new(),
            trailers: HeaderMap::new(),
        };
        for frame in read.into_iter().flatten() {
            messages.take_in(frame?);
        }
        Ok(messages)
    }

    /// The only message of a reply, which is read to its end.
    pub(crate) async fn only(&mut self, method: &Method) -> Result<Bytes, Status> {
        let mut only = None;
        while let Some(message) = self.next(method).await? {
            if only.replace(message).is_some() {
                return Err(method.defect("its reply has more than one message"));
            }
        }
        only.ok_or_else(|| method.defect("its reply has no message"))
    }

    /// The next message, encoded; `None` where the reply ended well.
    pub(crate) async fn next(&mut self, method: &Method) -> Result<Option<Bytes>, Status> {
        loop {
            if let Some(message) = self.take_message(method)? {
                return Ok(Some(message));
            }
            let Some(frame) = self.body.frame().await else {
                return self.end(method).map(|()| None);
            };
            self.take_in(frame?);
        }
    }

    fn take_in(&mut self, frame: Frame<Bytes>) {
        match frame.into_data() {
            // A message that arrives in one piece, as they do as a rule, is not copied.
            Ok(part) if self.data.is_empty() && self.part.is_empty() => self.data = part,
            Ok(part) => {
                self.part.extend_from_slice(&std::mem::take(&mut self.data));
                self.part.extend_from_slice(&part);
                if is_message(&self.part) {
                    self.data = std::mem::take(&mut self.part).freeze();
                }
            }
            Err(frame) => {
                if let Ok(part) = frame.into_trailers() {
                    match self.trailers.is_empty() {
                        true => self.trailers = part,
                        false => self.trailers.extend(part),
                    }
                }
            }
        }
    }

    /// The metadata that came behind the messages, once they are all read.
    pub(crate) fn trailers(&self) -> &HeaderMap {
        &self.trailers
    }

    /// The metadata before and behind the messages, once they are all read.
    pub(crate) fn into_metadata(self) -> (HeaderMap, HeaderMap) {
        (self.headers, self.trailers)
    }

    /// The metadata before the messages.
    pub(crate) fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    fn take_message(&mut self, method: &Method) -> Result<Option<Bytes>, Status> {
        let Some((flag, length, rest)) = split(&self.data) else {
            return Ok(None);
        };
        if flag != 0 {
            return Err(method.defect("its reply is compressed, which was not asked for"));
        }
        if rest.len() < length {
            return Ok(None);
        }
        self.data.advance(PREFIX);
        Ok(Some(self.data.split_to(length)))
    }

    fn end(&self, method: &Method) -> Result<(), Status> {
        let end = end(&self.trailers, &self.headers).or_else(|| end(&self.headers, &self.headers));
        end.ok_or_else(|| method.defect("its reply has no status"))??;
        if !self.data.is_empty() || !self.part.is_empty() {
            return Err(method.defect("its reply ends within a frame"));
        }
        Ok(())
    }
}

/// Whether data begins with a whole message, or with what will be none.
fn is_message(data: &[u8]) -> bool {
    split(data).is_some_and(|(flag, length, rest)| flag != 0 || length <= rest.len())
}

/// How a reply ended, by its trailers, or by the headers of one without a message. The metadata of a
/// failure is that of the headers and the trailers together.
fn end(trailers: &HeaderMap, headers: &HeaderMap) -> Option<Result<(), Status>> {
    // There are few, and to look at them is quicker than to hash the name.
    let (_, code) = trailers
        .iter()
        .find(|(name, _)| **name == metadata::STATUS)?;
    let code = Code::from_bytes(code.as_bytes());
    if code == Code::Ok {
        return Some(Ok(()));
    }
    let message = trailers
        .get("grpc-message")
        .map(|message| percent_encoding::percent_decode(message.as_bytes()).decode_utf8_lossy())
        .unwrap_or_default();
    let details = trailers
        .get("grpc-status-details-bin")
        .and_then(|details| details.to_str().ok())
        .and_then(codec::from_base64)
        .unwrap_or_default();
    let mut metadata = headers.clone();
    // One that is in both was sent again.
    metadata.extend(trailers.clone());
    Some(Err(Status::with_details_and_metadata(
        code,
        message,
        details.into(),
        MetadataMap::from_headers(metadata),
    )))
}

impl Method {
    /// INTERNAL for a reply that no right service gives.
    pub(crate) fn defect(&self, problem: &str) -> Status {
        let method = &*self.name;
        tracing::error!(method, problem, "a gRPC reply is wrong");
        Status::internal(format!("{method}: {problem}"))
    }
}

/// The gRPC code of a reply that some layer gave without one, as the gRPC specification maps them.
fn status_of_http(http: StatusCode) -> Status {
    let code = match http.as_u16() {
        400 => Code::Internal,
        401 => Code::Unauthenticated,
        403 => Code::PermissionDenied,
        404 => Code::Unimplemented,
        429 | 502..=504 => Code::Unavailable,
        _ => Code::Unknown,
    };
    Status::new(code, format!("the call ended with HTTP status {http}"))
}
