//! Removing the bytes that nobody refers to.

use super::{Error, Images, Result};
use crate::blobs::{self, LocalContents};
use crate::model::DeletedBlob;
use crate::store;

/// How many contents are removed before their ids are forgotten together.
const BATCH: usize = 100;

impl Images {
    /// Has the bytes of contents among the tombstones removed in the background.
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
                    "contents were not removed; the next garbage collection tries again"
                ),
            }
        }
    }

    /// Makes tombstones of contents that no image refers to any more, and removes the bytes of all that have one.
    /// Bytes that cannot be removed, or may come back, are tried again at the next garbage collection.
    pub(crate) async fn collect_garbage(&self) -> Result<()> {
        while self.store.remove_unreferenced(BATCH).await? == BATCH {}
        let mut last = String::new();
        loop {
            let deleted = self.store.blobs_to_delete(last, BATCH).await?;
            match deleted.last() {
                Some(content) => last = content.id.clone(),
                None => return Ok(()),
            }
            let contents = self.contents.clone();
            let removed = tokio::task::spawn_blocking(move || {
                // A file that is not found because its folder is lost is not removed.
                contents.check()?;
                let removed = remove_all(&contents, deleted);
                if !removed.is_empty() {
                    // Before the ids are forgotten: a file must not come back without one.
                    contents.sync()?;
                    contents.take_room_back();
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

/// Removes contents; the ids of those that are gone for good. The others are tried again at the
/// next garbage collection.
fn remove_all(contents: &LocalContents, deleted: Vec<DeletedBlob>) -> Vec<String> {
    deleted
        .into_iter()
        .filter(|content| {
            let removed = contents.remove(&content.id);
            if let Err(error) = &removed {
                tracing::error!(content_id = content.id, %error, "a content cannot be removed");
            }
            removed.is_ok() && content.may_be_forgotten
        })
        .map(|content| content.id)
        .collect()
}
