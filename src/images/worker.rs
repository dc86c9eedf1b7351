//! The work for an accepted change, and the removal of its bytes when it fails.

use std::time::Duration;

use async_trait::async_trait;

use super::failures::store_failure;
use super::faults::Step;
use super::{Images, Result};
use crate::model::rules::Complete;
use crate::model::{Change, Failure, Lease, Origin, Reason};
use crate::operations::{Ended, Run, Worker};

#[async_trait]
impl Worker for Images {
    async fn run(&self, run: &Run) -> Ended {
        // The claim put what an earlier attempt wrote among the tombstones.
        if run.lease.attempt > 1 {
            self.collect_garbage_soon();
        }
        match &run.lease.change {
            Change::CreateComputeImage {
                origin: Origin::Uri(uri),
                ..
            } => self.import(run, uri).await,
            // The body of an upload is gone with the process that read it.
            Change::CreateComputeImage {
                origin: Origin::Upload,
                ..
            } => Err(Failure::new(
                Reason::Aborted,
                "The server stopped before the upload was complete; upload again",
            )),
            _ => {
                self.faults.before(Step::Complete).await?;
                let ended = self.store.execute(Complete(run.lease.clone())).await;
                self.faults.after(Step::Complete).await?;
                let operation = ended.map_err(|error| store_failure(&error))?;
                self.collect_garbage_soon();
                Ok(operation)
            }
        }
    }

    /// Removes the bytes at once, not only by the garbage collection: the failure may be a full disk, and the
    /// record of the failure needs room too. Bytes of this attempt were never those of an image. Bytes of one before may
    /// be: in a database that was restored, the operation is under way once more though it came to an end. So they are
    /// kept as all that have a tombstone.
    async fn roll_back(&self, lease: &Lease) {
        let mut written = match self.blob_retention {
            Duration::ZERO => lease.discarded.clone(),
            _ => Vec::new(),
        };
        if !lease.blob_id.is_empty() {
            written.push(lease.blob_id.clone());
        }
        let count = written.len();
        let removed = self.blobs.remove(written).await;
        if !removed.is_ok_and(|removed| removed.len() == count) {
            tracing::warn!(
                "the bytes of a failed import were not removed; the garbage collection tries again"
            );
        }
        self.faults.rolled_back().await;
        self.collect_garbage_soon();
    }
}

impl Images {
    /// Begins to work on what was accepted, by this process or an earlier one. `adopt_empty` admits that the bytes of all
    /// blobs are gone.
    ///
    /// # Errors
    /// `Error::Blobs` where the blobs cannot be listed, or are all gone.
    pub(crate) async fn serve(&self, adopt_empty: bool) -> Result<()> {
        self.find_lost(adopt_empty).await?;
        if let Err(error) = self.collect_garbage().await {
            tracing::warn!(%error, "blobs were not removed; the next garbage collection tries again");
        }
        self.engine.spawn(self.clone().collect_garbage_when_asked());
        self.engine.serve(std::sync::Arc::new(self.clone()));
        Ok(())
    }
}
