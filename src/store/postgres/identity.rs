//! Identity rows: who callers are, and what they may do.

use super::super::Result;
use super::connection::{Connection, Pipeline, value};
use super::error::{from_json, to_json};
use super::transaction::Transaction;
use crate::model::{IdentityKey, IdentityKind, IdentityRow, Timestamp};

/// The row of a key.
pub(super) async fn find(
    connection: &Connection,
    key: &IdentityKey,
) -> Result<Option<IdentityRow>> {
    let sql = "SELECT row FROM identity WHERE kind = $1 AND id = $2";
    let row = connection
        .query_opt(sql, &[&(key.kind as i64), &key.id])
        .await?;
    row.map(|row| from_json(row.try_get(0)?)).transpose()
}

/// All rows of a kind, by id.
pub(super) async fn of_kind(
    connection: &Connection,
    kind: IdentityKind,
) -> Result<Vec<IdentityRow>> {
    let sql = "SELECT row FROM identity WHERE kind = $1 ORDER BY id";
    let rows = connection.query(sql, &[&(kind as i64)]).await?;
    rows.iter().map(|row| from_json(row.try_get(0)?)).collect()
}

/// Leaves a row as it is to be. A new one whose key is taken is another process's: the index says so.
pub(super) fn write(
    pipeline: &mut Pipeline,
    key: &IdentityKey,
    was_there: bool,
    row: Option<&IdentityRow>,
) -> Result<()> {
    let mut values = vec![value(key.kind as i64), value(key.id.clone())];
    let Some(row) = row else {
        if was_there {
            pipeline.add("DELETE FROM identity WHERE kind = $1 AND id = $2", values);
        }
        return Ok(());
    };
    let parent = row.parent();
    values.extend([
        value(parent.as_ref().map_or(0, |parent| parent.kind as i64)),
        value(parent.map(|parent| parent.id).unwrap_or_default()),
        value(row.expires_at().map(|at| at.0)),
        value(to_json(row)?),
    ]);
    let sql = if was_there {
        "UPDATE identity SET parent_kind = $3, parent_id = $4, expires_at = $5, row = $6
         WHERE kind = $1 AND id = $2"
    } else {
        "INSERT INTO identity (kind, id, parent_kind, parent_id, expires_at, row)
         VALUES ($1, $2, $3, $4, $5, $6)"
    };
    pipeline.add(sql, values);
    Ok(())
}

/// Forgets rows that expired before `before`, at most `limit` of them; how many they were.
pub(super) async fn forget_expired(
    transaction: &Transaction<'_>,
    before: Timestamp,
    limit: usize,
) -> Result<usize> {
    let expired = transaction
        .query_opt(
            "WITH expired AS (
                 SELECT kind, id FROM identity
                 WHERE expires_at IS NOT NULL AND expires_at < $1
                 ORDER BY kind, id LIMIT $2 FOR UPDATE SKIP LOCKED),
             gone AS (
                 DELETE FROM identity USING expired
                 WHERE (identity.kind = expired.kind AND identity.id = expired.id)
                    OR (identity.parent_kind = expired.kind AND identity.parent_id = expired.id))
             SELECT count(*) FROM expired",
            &[&before.0, &(limit as i64)],
        )
        .await?;
    let count: i64 = expired.map_or(Ok(0), |row| row.try_get(0))?;
    Ok(usize::try_from(count).unwrap_or_default())
}
