//! Folders by their short numbers.

use rusqlite::OptionalExtension;

use super::super::Result;
use super::Transaction;

/// No folder has this key; of quotas it means all folders together.
pub const TOTAL: i64 = 0;

/// The key of a folder, if anything was ever in it.
pub fn find(transaction: &Transaction<'_>, id: &str) -> Result<Option<i64>> {
    Ok(transaction
        .prepare_cached("SELECT key FROM folders WHERE id = ?1")?
        .query_row([id], |row| row.get(0))
        .optional()?)
}

/// The same, for a transaction that asks again and again.
pub fn find_once(transaction: &Transaction<'_>, id: &str) -> Result<Option<i64>> {
    if let Some(key) = transaction.folders.borrow().get(id) {
        return Ok(Some(*key));
    }
    let found = find(transaction, id)?;
    if let Some(key) = found {
        transaction.folders.borrow_mut().insert(id.to_owned(), key);
    }
    Ok(found)
}

/// The key of a folder, which it has from now on.
pub fn intern(transaction: &Transaction<'_>, id: &str) -> Result<i64> {
    if let Some(key) = find(transaction, id)? {
        return Ok(key);
    }
    transaction
        .prepare_cached("INSERT INTO folders (id) VALUES (?1)")?
        .execute([id])?;
    Ok(transaction.last_insert_rowid())
}
