//! Compute images whose bytes come with the request.

use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use tokio_util::sync::CancellationToken;

use super::compute_images::LARGEST_CONTENT;
use super::import::{Task, too_large};
use super::{Error, Images, Result};
use crate::blobs::{self, Chunk, ContentWriter};
use crate::metadata::{Accept, Lease, NewComputeImage, Origin};
use crate::operations::{Ended, Failure, Operation, Reason, cancelled};

/// A body of which nothing comes for this long has ended: its sender is gone.
const LONGEST_SILENCE: Duration = Duration::from_secs(5 * 60);

/// How long a caller waits for a store that has no room for a record.
const LONGEST_RECORDING: Duration = Duration::from_secs(5);

/// An upload as it was announced.
pub struct Upload<S> {
    pub new: NewComputeImage,
    /// The SHA-256 that the body must have, where the caller knows it.
    pub sha256: Option<[u8; 32]>,
    /// The bytes that the body must have, where the caller announced them.
    pub length: Option<u64>,
    pub body: S,
}

/// A part of an upload, in the order of its coming.
#[derive(Debug)]
pub enum Piece {
    Data(Bytes),
    /// The SHA-256 that the bytes before it must have, known to the caller only at the end.
    Sha256([u8; 32]),
}

/// Why a body ended before its end.
pub type UploadError = Box<dyn std::error::Error + Send + Sync>;

impl Images {
    /// Commits image and operation, then takes the body, and returns the operation when it has
    /// ended. Goes on to a clean end also when the caller is gone. A body that is refused or not
    /// taken to its end is dropped where it is.
    pub async fn upload_compute_image<S>(
        &self,
        accept: Accept,
        upload: Upload<S>,
    ) -> Result<Operation>
    where
        S: Stream<Item = std::result::Result<Piece, UploadError>> + Send + 'static,
    {
        // A caller that hangs up drops this future, at any await; the spawned one goes on.
        let images = self.clone();
        self.engine
            .spawn(async move { images.accept_and_take(accept, upload).await })
            .await
            .map_err(|stopped| blobs::Error::Io(stopped.into()))?
    }

    async fn accept_and_take<S>(&self, accept: Accept, upload: Upload<S>) -> Result<Operation>
    where
        S: Stream<Item = std::result::Result<Piece, UploadError>> + Send,
    {
        // Each upload keeps two threads. Waiting would keep a share of its connection too, from
        // which those that run must read.
        let _permit = self.uploads.try_acquire().map_err(|_| Error::Busy)?;
        let new = upload.new.clone();
        let origin = Origin::Task(Task::Upload.to_json());
        let accepted = self.store.create_compute_image(accept, new, origin).await?;
        if accepted.repeated {
            return Ok(accepted.operation);
        }
        let tracked = self.engine.track(&accepted.operation.id);
        let lease = match self.claim(&accepted.operation.id).await {
            Ok(lease) => lease,
            Err(error) => {
                // Ends it as what it now is: an upload without a body.
                self.start(&accepted.operation.id);
                return Err(error);
            }
        };
        if lease.cancel_requested {
            tracked.cancelled.cancel();
        }
        match self.take(&lease, &tracked.cancelled, upload).await {
            Ok(operation) => Ok(operation),
            Err(failure) => {
                let operation = self.record(lease, failure).await?;
                self.sweep_soon();
                Ok(operation)
            }
        }
    }

    async fn claim(&self, operation_id: &str) -> Result<Lease> {
        tokio::time::timeout(LONGEST_RECORDING, self.engine.claim(operation_id))
            .await
            .map_err(|_| blobs::Error::Full)?
            .map_err(Error::from)
    }

    /// Records a failure. Where the store has no room even for that, it goes on trying, but the
    /// caller is told what is wrong.
    async fn record(&self, lease: Lease, failure: Failure) -> Result<Operation> {
        let engine = self.engine.clone();
        let recording = self
            .engine
            .spawn(async move { engine.fail(&lease, failure).await });
        match tokio::time::timeout(LONGEST_RECORDING, recording).await {
            Ok(Ok(recorded)) => Ok(recorded?),
            Ok(Err(stopped)) => Err(blobs::Error::Io(stopped.into()).into()),
            Err(_) => Err(blobs::Error::Full.into()),
        }
    }

    async fn take<S>(
        &self,
        lease: &Lease,
        cancelled: &CancellationToken,
        upload: Upload<S>,
    ) -> Ended
    where
        S: Stream<Item = std::result::Result<Piece, UploadError>> + Send,
    {
        let writer = self.create_content(lease).await?;
        match self.read_body(&writer, cancelled, upload).await {
            Ok(sha256) => self.finish(lease, writer, sha256).await,
            Err(failure) => Err(self.undo(lease, failure).await),
        }
    }

    /// Writes the body, and returns the SHA-256 that it must have, if the caller named one.
    async fn read_body<S>(
        &self,
        writer: &ContentWriter,
        cancelled: &CancellationToken,
        upload: Upload<S>,
    ) -> std::result::Result<Option<[u8; 32]>, Failure>
    where
        S: Stream<Item = std::result::Result<Piece, UploadError>> + Send,
    {
        if upload.length.is_some_and(|length| length > LARGEST_CONTENT) {
            return Err(too_large());
        }
        let stopping = self.engine.stopping();
        let mut body = pin!(upload.body);
        let mut sha256 = upload.sha256;
        let mut received = 0;
        let early = |received: u64| {
            let message = format!("The upload ended early, after {received} bytes");
            Failure::new(Reason::Aborted, message)
        };
        loop {
            let next = tokio::select! {
                next = tokio::time::timeout(LONGEST_SILENCE, body.next()) => next,
                () = cancelled.cancelled() => return Err(self::cancelled()),
                () = stopping.cancelled() => return Err(early(received)),
            };
            match next {
                Ok(Some(Ok(Piece::Data(data)))) => {
                    received += data.len() as u64;
                    if received > LARGEST_CONTENT {
                        return Err(too_large());
                    }
                    if !writer.write(Chunk::Data(data)).await {
                        // The content takes no more: finishing it tells why.
                        return Ok(None);
                    }
                }
                Ok(Some(Ok(Piece::Sha256(digest)))) => sha256 = Some(digest),
                Ok(Some(Err(error))) => {
                    tracing::info!(%error, received, "an upload broke off");
                    return Err(early(received));
                }
                Ok(None) => break,
                Err(_) => {
                    tracing::info!(received, "an upload fell silent");
                    return Err(early(received));
                }
            }
        }
        match upload.length {
            Some(length) if length != received => Err(Failure::new(
                Reason::Aborted,
                format!("The body has {received} bytes, {length} were announced"),
            )),
            _ => Ok(sha256),
        }
    }
}
