//! Removing the bytes that nobody refers to.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::{Error, Images, Result};
use crate::model::{DeletedBlob, Timestamp};
use crate::store;

/// Blobs that are removed before their tombstones are deleted together.
const BATCH: usize = 100;
/// The time for which bytes that were removed are not removed again, where they may come back. Every image that is
/// deleted has garbage collected, and the tombstone of an attempt that failed stays for minutes.
const ONCE_IN: Duration = Duration::from_secs(10);

/// Blobs whose bytes this process has removed, and when. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Removed {
    when: Arc<Mutex<HashMap<String, Instant>>>,
    has_left_one_alone: Arc<AtomicBool>,
}

impl Removed {
    /// Leaves of some blobs those that are not to be left alone for now.
    fn retain_others(&self, blobs: &mut Vec<DeletedBlob>, now: Timestamp) {
        let mut removed = self.lock();
        removed.retain(|_, at| at.elapsed() < ONCE_IN);
        let before = blobs.len();
        blobs.retain(|blob| blob.forget_after <= now || !removed.contains_key(&blob.id));
        if blobs.len() < before {
            self.has_left_one_alone.store(true, Ordering::Relaxed);
        }
    }

    /// Whether one was left alone since this was asked before.
    fn has_left_one_alone(&self) -> bool {
        self.has_left_one_alone.swap(false, Ordering::Relaxed)
    }

    /// Notes blobs that may come back.
    fn note(&self, ids: impl Iterator<Item = String>) {
        let now = Instant::now();
        self.lock().extend(ids.map(|id| (id, now)));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Instant>> {
        self.when.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Images {
    /// Has the bytes of blobs among the tombstones removed in the background.
    pub(crate) fn collect_garbage_soon(&self) {
        self.garbage_noted.notify_one();
    }

    /// Collects garbage whenever that is asked for: once for all who ask meanwhile.
    pub(super) async fn collect_garbage_when_asked(self) {
        let stopping = self.engine.stopping();
        loop {
            let is_one_left = self.removed.has_left_one_alone();
            tokio::select! {
                () = self.garbage_noted.notified() => {}
                () = self.store.removals() => {}
                // Its bytes may have come back since they were removed.
                () = tokio::time::sleep(ONCE_IN), if is_one_left => {}
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
            let mut deleted = self
                .store
                .blobs_to_delete(self.blob_retention, last, BATCH)
                .await?;
            if deleted.is_empty() {
                return Ok(());
            }
            last = deleted.last().cloned();
            self.removed.retain_others(&mut deleted, self.store.now());
            if deleted.is_empty() {
                continue;
            }
            let ids = deleted.iter().map(|blob| blob.id.clone()).collect();
            let removed: HashSet<String> = self.blobs.remove(ids).await?.into_iter().collect();
            deleted.retain(|blob| removed.contains(&blob.id));
            let now = self.store.now();
            let (gone, may_come_back): (Vec<_>, Vec<_>) = deleted
                .into_iter()
                .partition(|blob| blob.forget_after <= now);
            self.removed
                .note(may_come_back.into_iter().map(|blob| blob.id));
            if !gone.is_empty() {
                let ids = gone.into_iter().map(|blob| blob.id).collect();
                self.store.blobs_deleted(ids).await?;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_may_come_back_are_left_alone_for_a_while() {
        let now = Timestamp(1_000);
        let blob = |id: &str, forget_after| DeletedBlob {
            id: id.to_owned(),
            forget_after: Timestamp(forget_after),
        };
        let all = vec![blob("gone", 900), blob("late", 2_000), blob("new", 2_000)];
        let removed = Removed::default();
        let left = |now| {
            let mut left = all.clone();
            removed.retain_others(&mut left, now);
            left.into_iter().map(|blob| blob.id).collect::<Vec<_>>()
        };
        assert_eq!(left(now), ["gone", "late", "new"]);
        assert!(!removed.has_left_one_alone());
        removed.note(["late".to_owned()].into_iter());
        assert_eq!(left(now), ["gone", "new"]);
        assert!(removed.has_left_one_alone());
        assert!(!removed.has_left_one_alone());
        // Its tombstone is to go.
        assert_eq!(left(Timestamp(2_000)), ["gone", "late", "new"]);
    }
}
