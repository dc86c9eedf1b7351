//! Compute images whose bytes come with the request.

use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};

use super::import::Task;
use super::{Images, Result};
use crate::blobs::Chunk;
use crate::metadata::{Accept, Lease, NewComputeImage, Origin};
use crate::operations::{Ended, Failure, Operation, Reason, Tracked, cancelled};

/// A body of which nothing comes for this long has ended: its sender is gone.
const LONGEST_SILENCE: Duration = Duration::from_secs(5 * 60);

/// An upload as it was announced.
pub struct Upload<S> {
    pub new: NewComputeImage,
    /// The SHA-256 that the body must have, where the caller knows it.
    pub sha256: Option<[u8; 32]>,
    /// The bytes that the body must have, where the caller announced them.
    pub length: Option<u64>,
    pub body: S,
}

/// Why a body ended before its end.
pub type UploadError = Box<dyn std::error::Error + Send + Sync>;

impl Images {
    /// Commits image and operation, then takes the body, and returns the operation when it has
    /// ended. Goes on to a clean end also when the caller is gone.
    pub async fn upload_compute_image<S>(
        &self,
        accept: Accept,
        upload: Upload<S>,
    ) -> Result<Operation>
    where
        S: Stream<Item = std::result::Result<Bytes, UploadError>> + Send + 'static,
    {
        let origin = Origin::Task(Task::Upload.to_json());
        let new = upload.new.clone();
        let images = self.clone();
        // A caller that hangs up drops this future, at any await; the spawned one goes on.
        tokio::spawn(async move {
            // Each upload keeps two threads; the wait is the sender's.
            let _permit = images.uploads.acquire().await;
            let accepted = images
                .store
                .create_compute_image(accept, new, origin)
                .await?;
            if accepted.repeated {
                return Ok(accepted.operation);
            }
            let tracked = images.engine.track(&accepted.operation.id);
            let lease = images.engine.claim(&accepted.operation.id).await?;
            let ended = images.take(&lease, &tracked, upload).await;
            match ended {
                Ok(operation) => Ok(operation),
                Err(failure) => {
                    let operation = images.engine.fail(&lease, failure).await?;
                    images.sweep_soon();
                    Ok(operation)
                }
            }
        })
        .await
        .map_err(|stopped| crate::blobs::Error::Io(stopped.into()))?
    }

    async fn take<S>(&self, lease: &Lease, tracked: &Tracked, upload: Upload<S>) -> Ended
    where
        S: Stream<Item = std::result::Result<Bytes, UploadError>> + Send,
    {
        let writer = self.create_content(lease).await?;
        let mut body = pin!(upload.body);
        let mut received = 0;
        loop {
            let next = tokio::select! {
                next = tokio::time::timeout(LONGEST_SILENCE, body.next()) => {
                    next.unwrap_or_else(|_| Some(Err("nothing came for five minutes".into())))
                }
                () = tracked.cancelled.cancelled() => {
                    return Err(self.undo(lease, cancelled()).await);
                }
            };
            match next {
                Some(Ok(data)) => {
                    received += data.len() as u64;
                    if !writer.write(Chunk::Data(data)).await {
                        // The content takes no more: finishing it tells why.
                        return self.finish(lease, writer, None).await;
                    }
                }
                Some(Err(error)) => {
                    let message = format!("The upload ended early: {error}");
                    return Err(self
                        .undo(lease, Failure::new(Reason::Aborted, message))
                        .await);
                }
                None => break,
            }
        }
        if let Some(length) = upload.length.filter(|length| *length != received) {
            let message = format!("The body has {received} bytes, {length} were announced");
            return Err(self
                .undo(lease, Failure::new(Reason::Aborted, message))
                .await);
        }
        self.finish(lease, writer, upload.sha256).await
    }
}
