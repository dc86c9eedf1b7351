//! Holds, which keep the bytes of blobs with a tombstone.

use rusqlite::params;

use super::super::Result;
use super::Transaction;
use crate::model::Timestamp;

/// Places a hold. Those that have run out are forgotten.
pub(super) fn place(
    transaction: &Transaction<'_>,
    now: Timestamp,
    id: &str,
    expires_at: Timestamp,
) -> Result<()> {
    transaction
        .prepare_cached("DELETE FROM blob_holds WHERE expires_at <= ?1")?
        .execute([now.0])?;
    transaction
        .prepare_cached("INSERT INTO blob_holds (id, expires_at) VALUES (?1, ?2)")?
        .execute(params![id, expires_at.0])?;
    Ok(())
}

/// Renews a hold; false where it has run out.
pub(super) fn renew(
    transaction: &Transaction<'_>,
    now: Timestamp,
    id: &str,
    expires_at: Timestamp,
) -> Result<bool> {
    let renewed = transaction
        .prepare_cached("UPDATE blob_holds SET expires_at = ?3 WHERE id = ?1 AND expires_at > ?2")?
        .execute(params![id, now.0, expires_at.0])?;
    Ok(renewed == 1)
}

/// Ends a hold; none is no error.
pub(super) fn end(transaction: &Transaction<'_>, id: &str) -> Result<()> {
    transaction
        .prepare_cached("DELETE FROM blob_holds WHERE id = ?1")?
        .execute([id])?;
    Ok(())
}
