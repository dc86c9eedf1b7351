//! Removing the bytes that nobody refers to.

use super::{Error, Images, Result};
use crate::blobs::{self, LocalBlobs};
use crate::model::DeletedBlob;
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

    /// Makes tombstones of blobs that no image refers to any more, and removes the bytes of all that have one.
    /// Bytes that cannot be removed, or may come back, are tried again at the next garbage collection.
    ///
    /// # Errors
    /// [`Error::Blobs`] with `FolderLost`, `NoDescriptors` or `Io` where the folder is not there or cannot be synced.
    pub(crate) async fn collect_garbage(&self) -> Result<()> {
        while self.store.remove_unreferenced(BATCH).await? == BATCH {}
        let mut last = String::new();
        loop {
            let deleted = self.store.blobs_to_delete(last, BATCH).await?;
            match deleted.last() {
                Some(blob) => last = blob.id.clone(),
                None => return Ok(()),
            }
            let blobs = self.blobs.clone();
            let removed = tokio::task::spawn_blocking(move || {
                // A file that is not found because its folder is lost is not removed.
                blobs.check()?;
                let removed = remove_all(&blobs, deleted);
                if !removed.is_empty() {
                    // Before the tombstones are deleted: a file must not come back without one.
                    blobs.sync()?;
                    blobs.take_room_back();
                }
                Ok::<_, blobs::Error>(removed)
            })
            .await
            .map_err(|stopped| blobs::Error::Io(stopped.into()))??;
            if !removed.is_empty() {
                self.store.blobs_deleted(removed).await?;
            }
        }
    }
}

/// Removes blobs; the ids of those that are gone for good. The others are tried again at the
/// next garbage collection.
fn remove_all(blobs: &LocalBlobs, deleted: Vec<DeletedBlob>) -> Vec<String> {
    deleted
        .into_iter()
        .filter(|blob| {
            let removed = blobs.remove(&blob.id);
            if let Err(error) = &removed {
                tracing::error!(blob_id = blob.id, %error, "a blob cannot be removed");
            }
            removed.is_ok() && blob.may_be_forgotten
        })
        .map(|blob| blob.id)
        .collect()
}
