//! The look at the start whether each live blob has its bytes. Database and blobs may be of different times: a dump of the
//! database was restored, or a snapshot of the folder. Nothing has to tell the server of that: every start looks.

use std::collections::{HashMap, HashSet};

use futures_util::{StreamExt, stream};

use super::{Images, Result};
use crate::blobs;
use crate::model::BlobSize;

/// Blobs that are opened at once.
const OPENED_AT_ONCE: usize = 16;
/// Blobs that are marked as damaged in one transaction.
const MARKED_AT_ONCE: usize = 500;
/// Blobs that the log tells of one by one.
const TOLD: usize = 1000;
/// Unknown files that are named.
const NAMED: usize = 10;
/// Images that are named of a blob.
const IMAGES_NAMED: usize = 10;

impl Images {
    /// Marks as damaged the live blobs whose bytes are missing or too few, and tells of them; tells of files that are not
    /// known, too, and leaves them alone. `adopt_empty` admits that the bytes of all blobs are gone.
    ///
    /// # Errors
    /// `Error::Blobs` where the blobs cannot be listed, or are all gone.
    pub(super) async fn find_lost(&self, adopt_empty: bool) -> Result<()> {
        // Other servers make blobs meanwhile: those that are live now have bytes, those that have bytes are known
        // afterwards.
        let live = self.store.live_blobs().await?;
        let stored = self.blobs.stored().await?;
        tell_unknown(&stored, &self.store.known_blobs().await?);
        let mut lost = self.without_bytes(&live, &stored).await?;
        if lost.is_empty() {
            return Ok(());
        }
        // Those that another server has removed meanwhile, or put equal ones in the place of, are not lost.
        let live = self.store.live_blobs().await?;
        let is_live: HashSet<&str> = live.iter().map(|blob| &*blob.id).collect();
        lost.retain(|(id, _)| is_live.contains(&**id));
        let are_missing = lost
            .iter()
            .all(|(_, damage)| matches!(damage, blobs::Error::Missing));
        // A single one may have been removed by hand.
        if lost.len() > 1 && lost.len() == live.len() && are_missing && !adopt_empty {
            return Err(blobs::Error::Lost {
                place: "the place of the blobs".to_owned(),
                reason: format!(
                    "none of the {} blobs that the database names is in it: put it back, or say --adopt-empty to go \
                     on without their bytes",
                    live.len()
                ),
            }
            .into());
        }
        self.mark_lost(&lost).await
    }

    /// The live blobs that cannot be opened, with the reason.
    async fn without_bytes(
        &self,
        live: &[BlobSize],
        stored: &HashMap<String, u64>,
    ) -> Result<Vec<(String, blobs::Error)>> {
        let is_doubtful = |blob: &&BlobSize| match stored.get(&blob.id) {
            Some(found) => !self.blobs.fits(*found, blob.size, blob.stored_size),
            None => true,
        };
        // A list may be of a moment ago, and an object may be laid out in several ways: only a look at the blob is certain.
        let mut opened = stream::iter(live.iter().filter(is_doubtful))
            .map(|blob| async move {
                let opened = self.blobs.open_unchecked(&blob.id, blob.size).await;
                (blob, opened)
            })
            .buffer_unordered(OPENED_AT_ONCE);
        let mut lost = Vec::new();
        while let Some((blob, opened)) = opened.next().await {
            match opened {
                Ok(_) => {}
                Err(damage) if damage.is_damage() => lost.push((blob.id.clone(), damage)),
                Err(error) => return Err(error.into()),
            }
        }
        lost.sort_by(|(a, _), (b, _)| a.cmp(b));
        Ok(lost)
    }

    async fn mark_lost(&self, lost: &[(String, blobs::Error)]) -> Result<()> {
        for some in lost.chunks(MARKED_AT_ONCE) {
            let ids = some.iter().map(|(id, _)| id.clone()).collect();
            self.store.mark_damaged(ids).await?;
        }
        for (blob_id, damage) in lost.iter().take(TOLD) {
            let images = self.store.images_of_blob(blob_id, IMAGES_NAMED).await?;
            tracing::error!(
                blob_id,
                image_ids = images.join(","),
                %damage,
                "the bytes of a blob are missing or cut"
            );
        }
        if !lost.is_empty() {
            tracing::error!(
                count = lost.len(),
                "files of blobs are missing; uploads or imports of the same bytes mend their images"
            );
        }
        Ok(())
    }
}

/// Tells of files that no row names. Where the newest ones are newer than all that the database knows, it is likely one
/// that was restored.
fn tell_unknown(stored: &HashMap<String, u64>, known: &HashSet<String>) {
    let mut unknown: Vec<&str> = stored.keys().map(String::as_str).collect();
    unknown.retain(|file| !known.contains(*file));
    if unknown.is_empty() {
        return;
    }
    // Ids sort by the time of their making.
    unknown.sort_unstable();
    let newest_known = known.iter().map(String::as_str).max().unwrap_or_default();
    let newer = unknown.len() - unknown.partition_point(|file| *file <= newest_known);
    let named = unknown.len().min(NAMED);
    tracing::warn!(
        count = unknown.len(),
        newer_than_the_database = newer,
        files = unknown[unknown.len() - named..].join(","),
        "files of blobs are not known to the database; they are left alone"
    );
}
