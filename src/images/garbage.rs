//! Removing the bytes that nobody refers to.

use std::collections::HashSet;

use super::{Error, Images, Result};
use crate::store;

/// Blobs that are removed before their tombstones are deleted together.
const BATCH: usize = 100;

impl Images {
    /// Has the bytes of blobs among the tombstones removed in the background.
    pub(crate) fn collect_garbage_soon(&self) {
        self.garbage_noted.notify_one();
    }

    /// Collects garbage whenever that is asked for: once for all who ask meanwhile.
    pub(super) async fn collect_garbage_when_asked(self) {
        let stopping = self.engine.stopping();
        loop {
            tokio::select! {
                () = self.garbage_noted.notified() => {}
                () = self.store.removals() => {}
                () = stopping.cancelled() => return,
            }
            match self.collect_garbage().await {
                // The next start collects it.
                Ok(()) | Err(Error::Store(store::Error::Closed)) => {}
                Err(error) => tracing::warn!(
                    %error,
                    "blobs were not removed; the next garbage collection tries again"
                ),
            }
        }
    }

    /// Makes tombstones of blobs that no image refers to any more, and removes the bytes of all that have had one for the
    /// time of retention.
    /// Bytes that cannot be removed, or may come back, are tried again at the next garbage collection.
    ///
    /// # Errors
    /// [`Error::Blobs`] where the blobs are not where they were or cannot be reached, or a removal may not
    /// last.
    pub(crate) async fn collect_garbage(&self) -> Result<()> {
        while self.store.remove_unreferenced(BATCH).await? == BATCH {}
        let mut last = None;
        loop {
            let deleted = self
                .store
                .blobs_to_delete(self.blob_retention, last, BATCH)
                .await?;
            if deleted.is_empty() {
                return Ok(());
            }
            last = deleted.last().cloned();
            let ids = deleted.iter().map(|blob| blob.id.clone()).collect();
            let removed: HashSet<String> = self.blobs.remove(ids).await?.into_iter().collect();
            let mut gone = deleted;
            let now = self.store.now();
            gone.retain(|blob| blob.forget_after <= now && removed.contains(&blob.id));
            if !gone.is_empty() {
                let ids = gone.into_iter().map(|blob| blob.id).collect();
                self.store.blobs_deleted(ids).await?;
            }
        }
    }
}
