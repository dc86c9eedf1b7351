//! The database's record of the folder that holds the blobs, to be compared with it at a start.

use rusqlite::{OptionalExtension, params};

use super::super::Result;
use super::Transaction;

/// Whether nothing was ever accepted, as far as rows remember.
pub(super) fn knows_nothing(transaction: &Transaction<'_>) -> Result<bool> {
    let nothing = transaction.query_row(
        "SELECT NOT EXISTS (SELECT 1 FROM contents)
            AND NOT EXISTS (SELECT 1 FROM content_deletions)
            AND NOT EXISTS (SELECT 1 FROM operations)
            AND NOT EXISTS (SELECT 1 FROM audit_events)",
        [],
        |row| row.get(0),
    )?;
    Ok(nothing)
}

/// Device and inode of the folder that held the blobs at the last start.
pub(super) fn get(transaction: &Transaction<'_>) -> Result<Option<(u64, u64)>> {
    let found = transaction
        .prepare_cached("SELECT device, inode FROM content_folder")?
        .query_row([], |row| {
            let (device, inode): (i64, i64) = (row.get(0)?, row.get(1)?);
            Ok((device.cast_unsigned(), inode.cast_unsigned()))
        })
        .optional()?;
    Ok(found)
}

/// Notes device and inode of the folder that holds the blobs.
pub(super) fn set(transaction: &Transaction<'_>, (device, inode): (u64, u64)) -> Result<()> {
    transaction
        .prepare_cached(
            "INSERT OR REPLACE INTO content_folder (key, device, inode) VALUES (1, ?1, ?2)",
        )?
        .execute(params![device.cast_signed(), inode.cast_signed()])?;
    Ok(())
}
