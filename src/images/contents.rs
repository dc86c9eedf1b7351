//! Removing the bytes that nobody refers to.

use super::{Error, Images, Result};
use crate::blobs::{self, LocalContents};
use crate::store::{self, DeletedContent};

/// How many contents are removed before their ids are forgotten together.
const SWEEP: usize = 100;

impl Images {
    /// Has the bytes of contents on the deletion list removed in the background.
    pub fn sweep_soon(&self) {
        self.to_sweep.notify_one();
    }

    /// Sweeps whenever that is asked for: once for all who ask meanwhile.
    pub(super) async fn sweep_when_asked(self) {
        let stopping = self.engine.stopping();
        loop {
            tokio::select! {
                () = self.to_sweep.notified() => {}
                () = self.store.removals() => {}
                () = stopping.cancelled() => return,
            }
            match self.sweep().await {
                // The next start sweeps.
                Ok(()) | Err(Error::Store(store::Error::Closed)) => {}
                Err(error) => tracing::warn!(
                    %error,
                    "contents were not removed; the next sweep tries again"
                ),
            }
        }
    }

    /// Puts contents that no image refers to any more on the deletion list, and removes the bytes of all
    /// that are on it. What cannot be removed, or may
    /// come back, is tried again at the next sweep.
    pub async fn sweep(&self) -> Result<()> {
        while self.store.remove_unreferenced(SWEEP).await? == SWEEP {}
        let mut last = String::new();
        loop {
            let deleted = self.store.contents_to_delete(last, SWEEP).await?;
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
                self.store.contents_deleted(removed).await?;
            }
        }
    }
}

/// Removes contents; the ids of those that are gone for good. The others are tried again at the
/// next sweep.
fn remove_all(contents: &LocalContents, deleted: Vec<DeletedContent>) -> Vec<String> {
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
