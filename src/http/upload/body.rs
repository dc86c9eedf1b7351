//! The body of an upload, in pieces.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_util::Stream;
use http::Version;
use http_body::Body as _;
use tonic::body::Body;

use crate::http::digest;
use crate::images::{Piece, UploadError};

/// The pieces of a body.
pub struct Pieces {
    body: Option<Body>,
    version: Version,
}

impl Pieces {
    pub fn new(body: Body, version: Version) -> Self {
        Self {
            body: Some(body),
            version,
        }
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
