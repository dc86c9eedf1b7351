//! Holds, which keep the bytes of blobs with a tombstone.

use super::super::Result;
use super::transaction::Transaction;
use crate::model::Timestamp;

/// Places a hold. Those that have run out are forgotten.
pub(super) async fn place(
    transaction: &Transaction<'_>,
    now: Timestamp,
    id: &str,
    expires_at: Timestamp,
) -> Result<()> {
    transaction
        .execute("DELETE FROM blob_holds WHERE expires_at <= $1", &[&now.0])
        .await?;
    let sql = "INSERT INTO blob_holds (id, expires_at) VALUES ($1, $2)";
    transaction.execute(sql, &[&id, &expires_at.0]).await?;
    Ok(())
}

/// Renews a hold; false where it has run out.
pub(super) async fn renew(
    transaction: &Transaction<'_>,
    now: Timestamp,
    id: &str,
    expires_at: Timestamp,
) -> Result<bool> {
    let sql = "UPDATE blob_holds SET expires_at = $3 WHERE id = $1 AND expires_at > $2";
    let renewed = transaction
        .execute(sql, &[&id, &now.0, &expires_at.0])
        .await?;
    Ok(renewed == 1)
}

/// Ends a hold; none is no error.
pub(super) async fn end(transaction: &Transaction<'_>, id: &str) -> Result<()> {
    let sql = "DELETE FROM blob_holds WHERE id = $1";
    transaction.execute(sql, &[&id]).await?;
    Ok(())
}
