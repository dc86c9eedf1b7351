//! The name of the installation.

use rusqlite::params;

use super::super::Result;
use super::Transaction;

/// The name that was noted first; `made`, where none was.
pub(super) fn named(transaction: &Transaction<'_>, made: &str) -> Result<String> {
    transaction
        .prepare_cached("INSERT OR IGNORE INTO installation (key, id) VALUES (1, ?1)")?
        .execute(params![made])?;
    let id = transaction.query_row("SELECT id FROM installation", [], |row| row.get(0))?;
    Ok(id)
}
