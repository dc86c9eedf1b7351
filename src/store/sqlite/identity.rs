//! Identity rows: who callers are, and what they may do.

use rusqlite::{OptionalExtension, Row, params};

use super::super::Result;
use super::Transaction;
use super::error::{from_json, to_json};
use crate::model::{IdentityKey, IdentityKind, IdentityRow, Timestamp};

/// The row of a key.
pub(super) fn find(
    transaction: &Transaction<'_>,
    key: &IdentityKey,
) -> Result<Option<IdentityRow>> {
    Ok(transaction
        .prepare_cached("SELECT row FROM identity WHERE kind = ?1 AND id = ?2")?
        .query_row(params![key.kind as i64, key.id], from_row)
        .optional()?)
}

/// The rows that hang on another, by kind and id.
pub(super) fn children(
    transaction: &Transaction<'_>,
    parent: &IdentityKey,
) -> Result<Vec<IdentityRow>> {
    let mut statement = transaction.prepare_cached(
        "SELECT row FROM identity
         WHERE parent_kind <> 0 AND parent_kind = ?1 AND parent_id = ?2 ORDER BY kind, id",
    )?;
    let rows = statement.query_map(params![parent.kind as i64, parent.id], from_row)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// All rows of a kind, by id.
pub(super) fn of_kind(
    transaction: &Transaction<'_>,
    kind: IdentityKind,
) -> Result<Vec<IdentityRow>> {
    let mut statement =
        transaction.prepare_cached("SELECT row FROM identity WHERE kind = ?1 ORDER BY id")?;
    let rows = statement.query_map([kind as i64], from_row)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

pub(super) fn put(transaction: &Transaction<'_>, row: &IdentityRow) -> Result<()> {
    let (key, parent) = (row.key(), row.parent());
    transaction
        .prepare_cached(
            "INSERT OR REPLACE INTO identity (kind, id, parent_kind, parent_id, expires_at, row)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute(params![
            key.kind as i64,
            key.id,
            parent.as_ref().map_or(0, |parent| parent.kind as i64),
            parent.map(|parent| parent.id).unwrap_or_default(),
            row.expires_at().map(|at| at.0),
            to_json(row)?,
        ])?;
    Ok(())
}

pub(super) fn delete(transaction: &Transaction<'_>, key: &IdentityKey) -> Result<()> {
    transaction
        .prepare_cached("DELETE FROM identity WHERE kind = ?1 AND id = ?2")?
        .execute(params![key.kind as i64, key.id])?;
    Ok(())
}

/// Forgets rows that expired before `before`, at most `limit` of them, with those that hang on them; how many had
/// expired.
pub(super) fn forget_expired(
    transaction: &Transaction<'_>,
    before: Timestamp,
    limit: usize,
) -> Result<usize> {
    let expired = {
        let mut statement = transaction.prepare_cached(
            "SELECT row FROM identity WHERE expires_at IS NOT NULL AND expires_at < ?1
             ORDER BY kind, id LIMIT ?2",
        )?;
        let rows = statement.query_map(params![before.0, limit as i64], from_row)?;
        rows.collect::<rusqlite::Result<Vec<_>>>()?
    };
    for row in &expired {
        for child in children(transaction, &row.key())? {
            delete(transaction, &child.key())?;
        }
        delete(transaction, &row.key())?;
    }
    Ok(expired.len())
}

fn from_row(row: &Row<'_>) -> rusqlite::Result<IdentityRow> {
    from_json(&row.get::<_, String>(0)?)
}
