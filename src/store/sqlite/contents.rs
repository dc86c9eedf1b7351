//! Contents: immutable bytes that images refer to.

use std::time::Duration;

use rusqlite::{OptionalExtension, params};

use super::super::{Error, Result};
use super::{Store, Transaction};

/// How long a tombstone remembers what a worker was writing: one that lost its lease without
/// knowing has stopped by then.
const LATE_WRITES: Duration = Duration::from_secs(10 * 60);
const CONTENT_PREFIX: &str = "cnt";

/// What is known of bytes once they are written and checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContentFacts {
    /// `qcow2` or `raw`.
    pub format: String,
    /// Bytes.
    pub size: i64,
    /// Bytes, all-zero blocks not counted.
    pub stored_size: i64,
    /// Bytes of the disk inside.
    pub virtual_size: i64,
    pub sha256: [u8; 32],
}

/// Bytes that nobody refers to any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeletedContent {
    pub id: String,
    /// Not as long as a worker may write it once more.
    pub may_be_forgotten: bool,
}

/// Bytes that an image refers to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveContent {
    pub id: String,
    pub facts: ContentFacts,
    /// Whether a read has found other bytes than were written, or none.
    pub damaged: bool,
    /// The checksums of its blocks, as they were kept.
    pub checksums: Option<Vec<u8>>,
}

impl Store {
    /// Contents whose bytes are to be removed: at most `limit` of them, by id, after that one.
    pub async fn contents_to_delete(
        &self,
        after: String,
        limit: usize,
    ) -> Result<Vec<DeletedContent>> {
        let now = self.now();
        self.read(move |transaction| {
            let mut statement = transaction.prepare_cached(
                "SELECT content_id, forget_after <= ?3 FROM content_deletions
                 WHERE content_id > ?1 ORDER BY content_id LIMIT ?2",
            )?;
            let deleted = statement
                .query_map(params![after, limit as i64, now.0], |row| {
                    Ok(DeletedContent {
                        id: row.get(0)?,
                        may_be_forgotten: row.get(1)?,
                    })
                })?
                .collect::<rusqlite::Result<_>>()?;
            Ok(deleted)
        })
        .await
    }

    /// Forgets contents whose bytes are gone, but for those that may come back.
    pub async fn contents_deleted(&self, ids: Vec<String>) -> Result<()> {
        self.write_in_any_case(move |transaction, store| {
            let mut statement = transaction.prepare_cached(
                "DELETE FROM content_deletions WHERE content_id = ?1 AND forget_after <= ?2",
            )?;
            for id in &ids {
                statement.execute(params![id, store.now().0])?;
            }
            Ok(())
        })
        .await
    }

    /// Looks at contents that images have stopped referring to, at most `limit` of them, and puts those on
    /// the tombstones that no other image refers to. Returns how many it has looked at.
    pub async fn remove_unreferenced(&self, limit: usize) -> Result<usize> {
        self.write_in_any_case(move |transaction, store| {
            let candidates: Vec<i64> = transaction
                .prepare_cached("SELECT content_key FROM content_candidates LIMIT ?1")?
                .query_map([limit as i64], |row| row.get(0))?
                .collect::<rusqlite::Result<_>>()?;
            for key in &candidates {
                if !is_referenced(transaction, *key)? {
                    discard_unreferenced(transaction, store, *key)?;
                }
                transaction
                    .prepare_cached("DELETE FROM content_candidates WHERE content_key = ?1")?
                    .execute([key])?;
            }
            Ok(candidates.len())
        })
        .await
    }

    /// Notes that the files of contents have other bytes than were written, or none. Files that have
    /// taken their place meanwhile are not meant.
    pub async fn mark_damaged(&self, content_ids: Vec<String>) -> Result<()> {
        self.write(move |transaction, _| {
            let mut statement = transaction
                .prepare_cached("UPDATE contents SET damaged = 1 WHERE id = ?1 AND state = 1")?;
            for id in &content_ids {
                statement.execute([id])?;
            }
            Ok(())
        })
        .await
    }

    /// The ids of all contents that may have bytes: pending, live, and those to be deleted.
    pub async fn known_contents(&self) -> Result<std::collections::HashSet<String>> {
        self.read(|transaction| {
            let mut statement = transaction.prepare(
                "SELECT id FROM contents UNION SELECT content_id FROM content_deletions",
            )?;
            let ids = statement
                .query_map([], |row| row.get(0))?
                .collect::<rusqlite::Result<_>>()?;
            Ok(ids)
        })
        .await
    }
}

/// Registers a content that is about to be written.
pub(super) fn insert_pending(
    transaction: &Transaction<'_>,
    store: &Store,
    operation_key: i64,
) -> Result<String> {
    let new = store.new_id();
    let id = new.text(CONTENT_PREFIX);
    transaction
        .prepare_cached(
            "INSERT INTO contents (key, id, state, operation_key) VALUES (?1, ?2, 0, ?3)",
        )?
        .execute(params![new.key, id, operation_key])?;
    Ok(id)
}

/// A content that an operation has written, and the equal live one, if there is one.
pub(super) struct Pending {
    key: i64,
    id: String,
    equal: Option<Equal>,
}

/// A live content with the SHA-256 of one that was written.
struct Equal {
    key: i64,
    id: String,
}

/// Looks for what an operation has written. Writes nothing yet.
pub(super) fn find_pending(
    transaction: &Transaction<'_>,
    operation_id: &str,
    operation_key: i64,
    content_id: &str,
    facts: &ContentFacts,
) -> Result<Pending> {
    let pending: Option<i64> = transaction
        .prepare_cached(
            "SELECT key FROM contents WHERE id = ?1 AND state = 0 AND operation_key = ?2",
        )?
        .query_row(params![content_id, operation_key], |row| row.get(0))
        .optional()?;
    let key = pending.ok_or_else(|| Error::LeaseLost {
        id: operation_id.to_owned(),
    })?;
    let equal = transaction
        .prepare_cached("SELECT key, id FROM contents WHERE state = 1 AND sha256 = ?1")?
        .query_row([facts.sha256], |row| {
            Ok(Equal {
                key: row.get(0)?,
                id: row.get(1)?,
            })
        })
        .optional()?;
    Ok(Pending {
        key,
        id: content_id.to_owned(),
        equal,
    })
}

/// Makes a pending content live. Where an equal one is live already, that keeps its key, to which images
/// refer, and takes over the new file: whatever has become of the old one, the new one was just written
/// and its digest was taken. Returns the key of the content to refer to.
pub(super) fn publish(
    transaction: &Transaction<'_>,
    store: &Store,
    pending: Pending,
    facts: &ContentFacts,
    checksums: &[u8],
) -> Result<i64> {
    if let Some(equal) = pending.equal {
        transaction
            .prepare_cached("DELETE FROM contents WHERE key = ?1")?
            .execute([pending.key])?;
        transaction
            .prepare_cached("UPDATE contents SET id = ?2, damaged = 0 WHERE key = ?1")?
            .execute(params![equal.key, pending.id])?;
        list_deletion(transaction, store, &equal.id, Duration::ZERO)?;
        keep_checksums(transaction, equal.key, checksums)?;
        return Ok(equal.key);
    }
    transaction
        .prepare_cached(
            "UPDATE contents SET state = 1, operation_key = NULL, format = ?2, size = ?3,
                    stored_size = ?4, virtual_size = ?5, sha256 = ?6
             WHERE key = ?1",
        )?
        .execute(params![
            pending.key,
            facts.format,
            facts.size,
            facts.stored_size,
            facts.virtual_size,
            facts.sha256
        ])?;
    keep_checksums(transaction, pending.key, checksums)?;
    Ok(pending.key)
}

fn keep_checksums(transaction: &Transaction<'_>, key: i64, checksums: &[u8]) -> Result<()> {
    transaction
        .prepare_cached(
            "INSERT OR REPLACE INTO content_checksums (content_key, checksums) VALUES (?1, ?2)",
        )?
        .execute(params![key, checksums])?;
    Ok(())
}

/// Puts all that an operation was writing among the tombstones; the ids.
pub(super) fn discard_pending(
    transaction: &Transaction<'_>,
    store: &Store,
    operation_key: i64,
) -> Result<Vec<String>> {
    let keys: Vec<i64> = transaction
        .prepare_cached("SELECT key FROM contents WHERE state = 0 AND operation_key = ?1")?
        .query_map([operation_key], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    keys.into_iter()
        .filter_map(|key| discard(transaction, store, key, LATE_WRITES).transpose())
        .collect()
}

/// Notes that an image has stopped referring to a content. SQLite goes through all references to a row
/// that is to be deleted, so that this must not be tried as long as there are many.
pub(super) fn note_candidate(transaction: &Transaction<'_>, store: &Store, key: i64) -> Result<()> {
    transaction
        .prepare_cached("INSERT OR IGNORE INTO content_candidates (content_key) VALUES (?1)")?
        .execute([key])?;
    store.wake_removals();
    Ok(())
}

/// Whether an image refers to a content: takes no longer where many do.
fn is_referenced(transaction: &Transaction<'_>, key: i64) -> Result<bool> {
    let referenced = transaction
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM desktop_images WHERE content_key = ?1)
                 OR EXISTS (SELECT 1 FROM compute_images WHERE content_key = ?1)",
        )?
        .query_row([key], |row| row.get(0))?;
    Ok(referenced)
}

/// Puts a content among the tombstones. The foreign keys have the last word.
fn discard_unreferenced(transaction: &Transaction<'_>, store: &Store, key: i64) -> Result<()> {
    match discard(transaction, store, key, Duration::ZERO) {
        Err(Error::Sqlite(error)) if is_foreign_key(&error) => Ok(()),
        ended => ended.map(|_| ()),
    }
}

fn is_foreign_key(error: &rusqlite::Error) -> bool {
    error.sqlite_extended_error_code() == Some(rusqlite::ffi::SQLITE_CONSTRAINT_FOREIGNKEY)
}

/// The row goes and the id is put among the tombstones. The foreign keys refuse it for a content
/// that an image refers to; a refused statement leaves nothing behind. Returns the id, if the row was
/// there.
fn discard(
    transaction: &Transaction<'_>,
    store: &Store,
    key: i64,
    remembered: Duration,
) -> Result<Option<String>> {
    let id: Option<String> = transaction
        .prepare_cached("DELETE FROM contents WHERE key = ?1 RETURNING id")?
        .query_row([key], |row| row.get(0))
        .optional()?;
    if let Some(id) = &id {
        list_deletion(transaction, store, id, remembered)?;
    }
    Ok(id)
}

/// Puts the id of a content among the tombstones: its bytes go once this is committed.
fn list_deletion(
    transaction: &Transaction<'_>,
    store: &Store,
    id: &str,
    remembered: Duration,
) -> Result<()> {
    transaction
        .prepare_cached("INSERT INTO content_deletions (content_id, forget_after) VALUES (?1, ?2)")?
        .execute(params![id, store.now().after(remembered).0])?;
    store.wake_removals();
    Ok(())
}

/// The live content under this key.
pub(super) fn live(transaction: &Transaction<'_>, key: i64) -> Result<LiveContent> {
    let content = transaction
        .prepare_cached(
            "SELECT id, format, size, stored_size, virtual_size, sha256, damaged, checksums
             FROM contents LEFT JOIN content_checksums ON content_key = key
             WHERE key = ?1 AND state = 1",
        )?
        .query_row([key], |row| {
            Ok(LiveContent {
                id: row.get(0)?,
                facts: ContentFacts {
                    format: row.get(1)?,
                    size: row.get(2)?,
                    stored_size: row.get(3)?,
                    virtual_size: row.get(4)?,
                    sha256: row.get(5)?,
                },
                damaged: row.get(6)?,
                checksums: row.get(7)?,
            })
        })?;
    Ok(content)
}
