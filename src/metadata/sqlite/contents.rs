//! Contents: immutable bytes that images refer to.

use rusqlite::{OptionalExtension, Transaction, params};

use super::super::{Error, Result};
use super::Store;

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

/// Bytes that an image refers to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveContent {
    pub id: String,
    pub facts: ContentFacts,
}

impl Store {
    /// Contents whose bytes are to be removed, at most `limit` of them, in no order: some that
    /// cannot be removed must not stand before the others for ever.
    pub async fn contents_to_delete(&self, limit: usize) -> Result<Vec<String>> {
        self.read(move |transaction| {
            let mut statement = transaction.prepare_cached(
                "SELECT content_id FROM content_deletions ORDER BY random() LIMIT ?1",
            )?;
            let ids = statement
                .query_map([limit as i64], |row| row.get(0))?
                .collect::<rusqlite::Result<_>>()?;
            Ok(ids)
        })
        .await
    }

    /// Forgets contents whose bytes are gone.
    pub async fn contents_deleted(&self, ids: Vec<String>) -> Result<()> {
        self.write(move |transaction, _| {
            let mut statement = transaction
                .prepare_cached("DELETE FROM content_deletions WHERE content_id = ?1")?;
            for id in &ids {
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
    operation_id: &str,
) -> Result<String> {
    let id = store.ids().generate("cnt");
    transaction
        .prepare_cached(
            "INSERT INTO contents (id, state, created_at, operation_id) VALUES (?1, 0, ?2, ?3)",
        )?
        .execute(params![id, store.now().0, operation_id])?;
    Ok(id)
}

/// Makes a pending content live, or drops it for an equal one that is there. Returns the key of
/// the one to refer to.
pub(super) fn publish(
    transaction: &Transaction<'_>,
    store: &Store,
    operation_id: &str,
    content_id: &str,
    facts: &ContentFacts,
) -> Result<i64> {
    let pending: Option<i64> = transaction
        .prepare_cached(
            "SELECT key FROM contents WHERE id = ?1 AND state = 0 AND operation_id = ?2",
        )?
        .query_row([content_id, operation_id], |row| row.get(0))
        .optional()?;
    let Some(pending) = pending else {
        return Err(Error::LeaseLost {
            id: operation_id.to_owned(),
        });
    };
    let equal: Option<i64> = transaction
        .prepare_cached("SELECT key FROM contents WHERE state = 1 AND sha256 = ?1")?
        .query_row([facts.sha256], |row| row.get(0))
        .optional()?;
    if let Some(equal) = equal {
        discard(transaction, store, pending)?;
        return Ok(equal);
    }
    transaction
        .prepare_cached(
            "UPDATE contents SET state = 1, operation_id = NULL, format = ?2, size = ?3,
                    stored_size = ?4, virtual_size = ?5, sha256 = ?6
             WHERE key = ?1",
        )?
        .execute(params![
            pending,
            facts.format,
            facts.size,
            facts.stored_size,
            facts.virtual_size,
            facts.sha256
        ])?;
    Ok(pending)
}

/// Puts all that an operation was writing on the deletion list.
pub(super) fn discard_pending(
    transaction: &Transaction<'_>,
    store: &Store,
    operation_id: &str,
) -> Result<()> {
    let keys: Vec<i64> = transaction
        .prepare_cached("SELECT key FROM contents WHERE state = 0 AND operation_id = ?1")?
        .query_map([operation_id], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    for key in keys {
        discard(transaction, store, key)?;
    }
    Ok(())
}

/// Puts a content on the deletion list if no image refers to it.
pub(super) fn discard_unreferenced(
    transaction: &Transaction<'_>,
    store: &Store,
    key: i64,
) -> Result<()> {
    let referenced: bool = transaction
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM compute_images WHERE content_key = ?1)
                 OR EXISTS (SELECT 1 FROM desktop_images WHERE content_key = ?1)",
        )?
        .query_row([key], |row| row.get(0))?;
    if !referenced {
        discard(transaction, store, key)?;
    }
    Ok(())
}

/// The row goes and the id is put on the deletion list. The foreign keys refuse it for a content
/// that an image refers to.
fn discard(transaction: &Transaction<'_>, store: &Store, key: i64) -> Result<()> {
    transaction
        .prepare_cached(
            "INSERT INTO content_deletions (content_id, requested_at)
             SELECT id, ?2 FROM contents WHERE key = ?1",
        )?
        .execute([key, store.now().0])?;
    transaction
        .prepare_cached("DELETE FROM contents WHERE key = ?1")?
        .execute([key])?;
    Ok(())
}

/// The live content under this key.
pub(super) fn live(transaction: &Transaction<'_>, key: i64) -> Result<LiveContent> {
    let content = transaction
        .prepare_cached(
            "SELECT id, format, size, stored_size, virtual_size, sha256
             FROM contents WHERE key = ?1 AND state = 1",
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
            })
        })?;
    Ok(content)
}
