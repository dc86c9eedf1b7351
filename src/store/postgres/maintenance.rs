//! The lease of the process that prunes and collects garbage, so that one does it at a time.

use super::super::Result;
use super::transaction::Transaction;
use crate::model::Timestamp;

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
    Ok(taken == 1)
}
