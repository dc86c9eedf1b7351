//! The body of a response: as a rule one piece that is there.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use tonic::{Status, body::Body};

/// The body of a response. That of most is not boxed, as [`Body`] is.
pub struct ResponseBody {
    kind: Kind,
    end: Option<End>,
}

/// Is told of the trailers of a body, or of its end without any.
type End = Box<dyn FnOnce(Option<&HeaderMap>) + Send>;

impl ResponseBody {
    /// Calls `end` once: with the trailers, or with none when the body ends or is dropped without any.
    pub fn on_end(mut self, end: impl FnOnce(Option<&HeaderMap>) + Send + 'static) -> Self {
        self.end = Some(Box::new(end));
        self
    }

    fn ended(&mut self, trailers: Option<&HeaderMap>) {
        if let Some(end) = self.end.take() {
            end(trailers);
        }
    }
}

impl From<Kind> for ResponseBody {
    fn from(kind: Kind) -> Self {
        Self { kind, end: None }
    }
}

impl fmt::Debug for ResponseBody {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kind.fmt(formatter)
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        self.ended(None);
    }
}

#[derive(Debug)]
enum Kind {
    /// Bytes that are there, or none.
    Whole(Bytes),
    /// Bytes that arrive.
    Arriving(Body),
}

impl Default for ResponseBody {
    fn default() -> Self {
        Kind::Whole(Bytes::new()).into()
    }
}

impl From<Bytes> for ResponseBody {
    fn from(bytes: Bytes) -> Self {
        Kind::Whole(bytes).into()
    }
}

impl From<Body> for ResponseBody {
    fn from(body: Body) -> Self {
        Kind::Arriving(body).into()
    }
}

impl http_body::Body for ResponseBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let body = match &mut self.kind {
            Kind::Whole(bytes) if bytes.is_empty() => return Poll::Ready(None),
            Kind::Whole(bytes) => {
                return Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes)))));
            }
            Kind::Arriving(body) => body,
        };
        let polled = Pin::new(body).poll_frame(context);
        if self.end.is_some() {
            match &polled {
                Poll::Ready(Some(Ok(frame))) => {
                    if let Some(trailers) = frame.trailers_ref() {
                        self.ended(Some(trailers));
                    }
                }
                Poll::Ready(_) => self.ended(None),
                Poll::Pending => {}
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Whole(bytes) => bytes.is_empty(),
            Kind::Arriving(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Arriving(body) => body.size_hint(),
        }
    }
}
