//! The body of an upload, in pieces.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_util::Stream;
use http::{HeaderMap, Version};
use http_body::Body as _;
use tonic::body::Body;

use super::head;
use crate::images::{Piece, UploadError};
use crate::server::digest::Check;

/// The pieces of a body.
pub(crate) struct Pieces {
    body: Option<Body>,
    version: Version,
    check: Option<Check>,
    /// The digests that the trailers state.
    behind: VecDeque<Piece>,
}

impl Pieces {
    /// The pieces of a body that is compared with the digests that are stated of it beside its SHA-256.
    pub(crate) fn new(body: Body, version: Version, check: Check) -> Self {
        Self {
            body: Some(body),
            version,
            check: Some(check),
            behind: VecDeque::new(),
        }
    }

    fn trailers(&mut self, trailers: &HeaderMap) {
        match head::stated_digests(trailers) {
            Ok((sha256, others)) => {
                self.behind.extend(sha256.into_iter().map(Piece::Sha256));
                for other in others {
                    let stated = self.check.as_mut().map(|check| check.state(other));
                    if let Some(Err(wrong)) = stated {
                        self.behind.push_back(Piece::OtherDigest(wrong));
                    }
                }
            }
            Err(wrong) => self.behind.extend(wrong.into_iter().map(|wrong| {
                Piece::OtherDigest(format!("{}: {}", wrong.field, wrong.description))
            })),
        }
    }
}

impl Stream for Pieces {
    type Item = Result<Piece, UploadError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(piece) = self.behind.pop_front() {
                return Poll::Ready(Some(Ok(piece)));
            }
            let version = self.version;
            let Some(body) = &mut self.body else {
                return Poll::Ready(None);
            };
            let item = match ready!(Pin::new(&mut *body).poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        if let Some(check) = &mut self.check {
                            check.update(&data);
                        }
                        Ok(Piece::Data(data))
                    }
                    Err(frame) => {
                        if let Some(trailers) = frame.trailers_ref() {
                            self.trailers(trailers);
                        }
                        continue;
                    }
                },
                Some(Err(error)) => Err(error.into()),
                // A stream that was reset without an error looks like one that has ended.
                None if version == Version::HTTP_2 && !body.is_end_stream() => {
                    Err("the stream was reset".into())
                }
                None => {
                    self.body = None;
                    if let Some(Err(wrong)) = self.check.take().map(Check::finish) {
                        self.behind.push_back(Piece::OtherDigest(wrong));
                    }
                    continue;
                }
            };
            if item.is_err() {
                self.body = None;
            }
            return Poll::Ready(Some(item));
        }
    }
}
