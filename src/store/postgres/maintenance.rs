//! The lease of the process that prunes and collects garbage, so that one does it at a time; and what only this store
//! has to prune.

use super::super::Result;
use super::transaction::Transaction;
use crate::model::Timestamp;

/// Marks of connections that have ended long ago, as far as anybody may still ask for them.
const PRUNE_MARKS: &str = "DELETE FROM commits WHERE at < now() - interval '1 day'";

/// Takes or renews the lease; false where another process has it.
pub(super) async fn take(
    transaction: &Transaction<'_>,
    now: Timestamp,
    holder: &str,
    until: Timestamp,
) -> Result<bool> {
    // A time beyond that of a new lease is of a clock that was set back.
    let taken = transaction
        .execute(
            "UPDATE maintenance SET holder = $1, lease_until = $3
             WHERE holder = $1 OR lease_until <= $2 OR lease_until > $3",
            &[&holder, &now.0, &until.0],
        )
        .await?;
    if taken == 1 {
        transaction.execute(PRUNE_MARKS, &[]).await?;
    }
    Ok(taken == 1)
}
