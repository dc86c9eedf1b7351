//! Messages between their envelopes and gRPC frames: both are a byte of flags, a length in four bytes, and a message.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http_body::Frame;
use pin_project_lite::pin_project;
use tonic::{Code, Status};
use tower::BoxError;

use super::{error::status_of, head::Format};
use crate::{
    codec::Codec,
    frames::{self, PREFIX},
    json::JsonError,
    rejection::Rejection,
    rules::Method,
};

/// The flag of a message that is compressed.
const COMPRESSED: u8 = 1;
/// The flag of the last envelope of a stream of replies.
pub(super) const END: u8 = 2;

/// The gRPC frame of a request message.
pub(super) fn frame(
    codec: &Codec,
    method: &Method,
    format: Format,
    message: &[u8],
) -> Result<Bytes, Rejection> {
    let mut frame = Vec::with_capacity(PREFIX + 16 + message.len());
    frame.resize(PREFIX, 0);
    match format {
        Format::Proto => frame.put_slice(message),
        // As everywhere else, nothing stands for a message of nothing.
        Format::Json if message.trim_ascii().is_empty() => {}
        Format::Json => codec
            .to_wire(method.input_type, message, &mut frame)
            .map_err(|error| Rejection::Json(JsonError::new(&error, message)))?,
    }
    let longest = u32::MAX.try_into().unwrap_or(usize::MAX);
    frames::close(&mut frame).ok_or(Rejection::BodyTooLarge(longest))?;
    Ok(Bytes::from(frame))
}

/// A message in its envelope.
pub(super) fn envelope(flags: u8, message: &[u8]) -> Bytes {
    let mut envelope = BytesMut::with_capacity(PREFIX + message.len());
    envelope.put_u8(flags);
    // A message that came in a frame fits an envelope, and its JSON is not much longer.
    envelope.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    envelope.put_slice(message);
    envelope.freeze()
}

pin_project! {
    /// The body of a stream of requests, as gRPC frames.
    pub(super) struct Envelopes<B> {
        #[pin]
        body: B,
        // Bytes that have arrived and are not taken yet.
        arrived: BytesMut,
        method: Arc<Method>,
        codec: Arc<Codec>,
        format: Format,
        // The longest message.
        limit: usize,
        is_over: bool,
    }
}

impl<B> Envelopes<B> {
    pub(super) fn new(
        body: B,
        method: Arc<Method>,
        codec: &Arc<Codec>,
        (format, limit): (Format, usize),
    ) -> Self {
        Self {
            body,
            arrived: BytesMut::new(),
            method,
            codec: Arc::clone(codec),
            format,
            limit,
            is_over: false,
        }
    }
}

/// The first message, if it has arrived as a whole.
fn take(arrived: &mut BytesMut, limit: usize) -> Result<Option<BytesMut>, Status> {
    let Some(&[flags, length @ ..]) = arrived.first_chunk::<PREFIX>() else {
        return Ok(None);
    };
    if flags & COMPRESSED != 0 {
        return Err(Status::invalid_argument(
            "a message is compressed, and Connect-Content-Encoding named no coding",
        ));
    }
    if flags != 0 {
        return Err(Status::invalid_argument(format!(
            "the envelope of a message has the flags {flags:#04x}, which mean nothing in a request"
        )));
    }
    let length = u32::from_be_bytes(length) as usize;
    if length > limit {
        return Err(Status::new(
            Code::ResourceExhausted,
            format!("a message of {length} bytes is larger than the limit of {limit} bytes"),
        ));
    }
    if arrived.len() < PREFIX + length {
        return Ok(None);
    }
    arrived.advance(PREFIX);
    Ok(Some(arrived.split_to(length)))
}

impl<B> http_body::Body for Envelopes<B>
where
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let mut this = self.project();
        loop {
            if *this.is_over {
                return Poll::Ready(None);
            }
            match take(this.arrived, *this.limit) {
                Ok(None) => {}
                Ok(Some(message)) => {
                    let framed = frame(this.codec, this.method, *this.format, &message);
                    *this.is_over = framed.is_err();
                    let framed = framed.map(Frame::data);
                    return Poll::Ready(Some(framed.map_err(|error| status_of(&error))));
                }
                Err(status) => {
                    *this.is_over = true;
                    return Poll::Ready(Some(Err(status)));
                }
            }
            match ready!(this.body.as_mut().poll_frame(context)) {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        this.arrived.extend_from_slice(&data);
                    }
                }
                Some(Err(error)) => {
                    let error: BoxError = error.into();
                    tracing::debug!(%error, "a stream of requests cannot be read");
                    *this.is_over = true;
                    return Poll::Ready(Some(Err(status_of(&Rejection::BodyBroken))));
                }
                None => {
                    *this.is_over = true;
                    if !this.arrived.is_empty() {
                        return Poll::Ready(Some(Err(status_of(&Rejection::BodyBroken))));
                    }
                }
            }
        }
    }
}
