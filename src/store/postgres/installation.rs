//! The name of the installation.

use super::super::Result;
use super::error::unreadable;
use super::transaction::Transaction;

/// The name that was noted first; `made`, where none was.
pub(super) async fn named(transaction: &Transaction<'_>, made: &str) -> Result<String> {
    let insert = "INSERT INTO installation (id) VALUES ($1) ON CONFLICT (one) DO NOTHING";
    transaction.execute(insert, &[&made]).await?;
    let row = transaction
        .query_opt("SELECT id FROM installation", &[])
        .await?;
    let row = row.ok_or_else(|| unreadable("no row of installation".to_owned()))?;
    Ok(row.try_get(0)?)
}
