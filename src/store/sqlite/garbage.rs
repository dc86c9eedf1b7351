//! Garbage collection of blobs, and what is known of their bytes.

use rusqlite::{Connection, OptionalExtension, params};

use super::super::{Error, Result};
use super::Transaction;
use super::columns::Columns;
use super::image_rows::LIVE;
use crate::model::{BlobSize, COMPUTE_IMAGE_PREFIX, DESKTOP_IMAGE_PREFIX, DeletedBlob, Timestamp};

/// Blobs with a tombstone that was made before some time: at most `limit` of them, the oldest first, after that one.
/// None while a hold stands.
pub(super) fn blobs_to_delete(
    transaction: &Transaction<'_>,
    now: Timestamp,
    made_before: Timestamp,
    after: Option<DeletedBlob>,
    limit: usize,
) -> Result<Vec<DeletedBlob>> {
    let mut statement = transaction.prepare_cached(
        "SELECT content_id, forget_after FROM content_deletions
         WHERE (forget_after, content_id) > (?1, ?2) AND forget_after <= ?3
           AND NOT EXISTS (SELECT 1 FROM blob_holds WHERE expires_at > ?4)
         ORDER BY forget_after, content_id LIMIT ?5",
    )?;
    let after = after.unwrap_or_else(DeletedBlob::before_all);
    let parameters = params![
        after.forget_after.0,
        after.id,
        made_before.0,
        now.0,
        limit as i64
    ];
    let deleted = statement
        .query_map(parameters, |row| {
            Ok(DeletedBlob {
                id: row.get(0)?,
                forget_after: Timestamp(row.get(1)?),
            })
        })?
        .collect::<rusqlite::Result<_>>()?;
    Ok(deleted)
}

/// Has the age of a blob's tombstone count from now on. The tombstone of what a worker may still write does already.
pub(super) fn renew_tombstone(
    transaction: &Transaction<'_>,
    now: Timestamp,
    id: &str,
) -> Result<()> {
    let sql = "UPDATE content_deletions SET forget_after = ?2 WHERE content_id = ?1 AND forget_after < ?2";
    transaction
        .prepare_cached(sql)?
        .execute(params![id, now.0])?;
    Ok(())
}

/// Forgets blobs whose bytes are removed, but for those that may come back.
pub(super) fn blobs_deleted(
    transaction: &Transaction<'_>,
    now: Timestamp,
    ids: &[String],
) -> Result<()> {
    let mut statement = transaction.prepare_cached(
        "DELETE FROM content_deletions WHERE content_id = ?1 AND forget_after <= ?2",
    )?;
    for id in ids {
        statement.execute(params![id, now.0])?;
    }
    Ok(())
}

/// Makes tombstones of the blobs among some candidates that no image refers to; how many were looked at.
pub(super) fn remove_unreferenced(
    transaction: &Transaction<'_>,
    now: Timestamp,
    limit: usize,
) -> Result<usize> {
    let candidates: Vec<i64> = transaction
        .prepare_cached("SELECT content_key FROM content_candidates LIMIT ?1")?
        .query_map([limit as i64], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    for key in &candidates {
        if !is_referenced(transaction, *key)? {
            remove(transaction, now, *key)?;
        }
        transaction
            .prepare_cached("DELETE FROM content_candidates WHERE content_key = ?1")?
            .execute([key])?;
    }
    Ok(candidates.len())
}

/// Whether an image refers to a blob. Takes no longer where many do: SQLite goes through all references to a row
/// that is to be deleted, so that this must not be tried as long as there are any.
fn is_referenced(transaction: &Transaction<'_>, key: i64) -> Result<bool> {
    let referenced = transaction
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM desktop_images WHERE content_key = ?1)
                 OR EXISTS (SELECT 1 FROM compute_images WHERE content_key = ?1)",
        )?
        .query_row([key], |row| row.get(0))?;
    Ok(referenced)
}

/// Makes a tombstone of a blob. The foreign keys have the last word: a refused statement leaves nothing behind.
fn remove(transaction: &Transaction<'_>, now: Timestamp, key: i64) -> Result<()> {
    let deleted = transaction
        .prepare_cached("DELETE FROM contents WHERE key = ?1 RETURNING id")?
        .query_row([key], |row| row.get::<_, String>(0))
        .optional();
    let id = match deleted {
        Err(error) if is_foreign_key(&error) => return Ok(()),
        deleted => deleted.map_err(Error::from)?,
    };
    if let Some(id) = id {
        transaction
            .prepare_cached(
                "INSERT INTO content_deletions (content_id, forget_after) VALUES (?1, ?2)",
            )?
            .execute(params![id, now.0])?;
    }
    Ok(())
}

fn is_foreign_key(error: &rusqlite::Error) -> bool {
    error.sqlite_extended_error_code() == Some(rusqlite::ffi::SQLITE_CONSTRAINT_FOREIGNKEY)
}

/// Notes that blobs have other bytes than were written, or none.
pub(super) fn mark_damaged(transaction: &Transaction<'_>, ids: &[String]) -> Result<()> {
    let mut statement = transaction.prepare_cached(&format!(
        "UPDATE contents SET damaged = 1 WHERE id = ?1 AND state = {LIVE}"
    ))?;
    for id in ids {
        statement.execute([id])?;
    }
    Ok(())
}

/// The ids of all blobs that may have bytes, in any collection.
pub(super) fn known<C: FromIterator<String>>(transaction: &Transaction<'_>) -> Result<C> {
    let mut statement = transaction
        .prepare("SELECT id FROM contents UNION SELECT content_id FROM content_deletions")?;
    let ids = statement
        .query_map([], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    Ok(ids)
}

/// All live blobs.
pub(super) fn live(transaction: &Transaction<'_>) -> Result<Vec<BlobSize>> {
    let mut statement = transaction.prepare(&format!(
        "SELECT id, size, stored_size FROM contents WHERE state = {LIVE}"
    ))?;
    let live = statement
        .query_map([], |row| {
            Ok(BlobSize::new(row.get(0)?, row.get(1)?, row.get(2)?))
        })?
        .collect::<rusqlite::Result<_>>()?;
    Ok(live)
}

/// The ids of images that have the bytes of a blob: at most `limit`, desktop images first.
pub(super) fn images_of(connection: &Connection, blob: &str, limit: usize) -> Result<Vec<String>> {
    let mut images = Vec::new();
    for (table, prefix) in [
        ("desktop_images", DESKTOP_IMAGE_PREFIX),
        ("compute_images", COMPUTE_IMAGE_PREFIX),
    ] {
        let mut statement = connection.prepare_cached(&format!(
            "SELECT image.key, image.id_rest FROM contents
               JOIN {table} AS image ON content_key = contents.key
             WHERE contents.id = ?1 ORDER BY image.key LIMIT ?2"
        ))?;
        let left = (limit - images.len()) as i64;
        let mut rows = statement.query(params![blob, left])?;
        while let Some(row) = rows.next()? {
            images.push(Columns::of(row).take_id()?.text(prefix));
        }
    }
    Ok(images)
}
