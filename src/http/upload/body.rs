//! The body of an upload: its pieces, and what is left of it when nobody takes more.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use http::Version;
use http_body::Body as _;
use http_body_util::BodyExt;
use tokio::sync::oneshot;
use tonic::body::Body;

use crate::http::digest;
use crate::images::{Piece, UploadError};

/// What is left of a body is taken up to this size and for this long, so that a client that
/// writes before it reads learns why.
const DISCARD_SIZE: usize = 8 << 20;
const DISCARD_TIME: Duration = Duration::from_secs(2);

/// The pieces of a body. When they are dropped before the end, the rest goes back.
pub struct Pieces {
    body: Option<Body>,
    version: Version,
    back: Option<oneshot::Sender<Body>>,
}

/// What is left of a body once its pieces are dropped.
pub struct Rest(oneshot::Receiver<Body>);

impl Pieces {
    pub fn new(body: Body, version: Version) -> (Self, Rest) {
        let (back, rest) = oneshot::channel();
        let pieces = Self {
            body: Some(body),
            version,
            back: Some(back),
        };
        (pieces, Rest(rest))
    }
}

impl Stream for Pieces {
    type Item = Result<Piece, UploadError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let version = self.version;
            let Some(body) = &mut self.body else {
                return Poll::Ready(None);
            };
            let item = match ready!(Pin::new(&mut *body).poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => Ok(Piece::Data(data)),
                    Err(frame) => match frame.trailers_ref().map(digest::content_sha256) {
                        Some(Ok(Some(sha256))) => Ok(Piece::Sha256(sha256)),
                        Some(Err(wrong)) => Err(format!("Content-Digest: {wrong}").into()),
                        Some(Ok(None)) | None => continue,
                    },
                },
                Some(Err(error)) => Err(error.into()),
                // A stream that was reset without an error looks like one that has ended.
                None if version == Version::HTTP_2 && !body.is_end_stream() => {
                    Err("the stream was reset".into())
                }
                None => {
                    self.body = None;
                    return Poll::Ready(None);
                }
            };
            if item.is_err() {
                self.body = None;
            }
            return Poll::Ready(Some(item));
        }
    }
}

impl Drop for Pieces {
    fn drop(&mut self) {
        if let (Some(body), Some(back)) = (self.body.take(), self.back.take()) {
            // Nobody may wait for it: the client is gone.
            let _ = back.send(body);
        }
    }
}

impl Rest {
    /// Takes the rest, within limits; to be called once the pieces are dropped.
    pub async fn discard(self) {
        let Ok(mut body) = self.0.await else {
            return;
        };
        let mut taken = 0;
        let reading = async {
            while let Some(Ok(frame)) = body.frame().await {
                taken += frame.data_ref().map_or(0, Bytes::len);
                if taken > DISCARD_SIZE {
                    break;
                }
            }
        };
        // Whether it ended or timed out, the answer is the same.
        let _ = tokio::time::timeout(DISCARD_TIME, reading).await;
    }
}
