//! Folders by their short numbers. A folder keeps its number for good.

use rusqlite::OptionalExtension;

use super::super::Result;
use super::Transaction;
use crate::model::QuotaScope;

/// No folder has this key; of quotas and audit events it means all folders together.
pub(super) const TOTAL: i64 = 0;

/// The key of a folder, if anything was ever in it.
pub(super) fn find(transaction: &Transaction<'_>, id: &str) -> Result<Option<i64>> {
    if let Some(key) = transaction.folders.borrow().get(id) {
        return Ok(Some(*key));
    }
    let found = transaction
        .prepare_cached("SELECT key FROM folders WHERE id = ?1")?
        .query_row([id], |row| row.get(0))
        .optional()?;
    if let Some(key) = found {
        transaction.folders.borrow_mut().insert(id.to_owned(), key);
    }
    Ok(found)
}

/// The key of a folder, which it has from now on.
pub(super) fn intern(transaction: &Transaction<'_>, id: &str) -> Result<i64> {
    if let Some(key) = find(transaction, id)? {
        return Ok(key);
    }
    transaction
        .prepare_cached("INSERT INTO folders (id) VALUES (?1)")?
        .execute([id])?;
    let key = transaction.last_insert_rowid();
    transaction.folders.borrow_mut().insert(id.to_owned(), key);
    Ok(key)
}

/// The key of the scope of quotas, if anything was ever in it.
pub(super) fn key_of(transaction: &Transaction<'_>, scope: &QuotaScope) -> Result<Option<i64>> {
    match scope {
        QuotaScope::Total => Ok(Some(TOTAL)),
        QuotaScope::Folder(id) => find(transaction, id),
    }
}
