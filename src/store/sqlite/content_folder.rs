//! The database's record of the folder that holds the contents, to be compared with it at a start.

use rusqlite::{OptionalExtension, params};

use super::super::Result;
use super::Store;

impl Store {
    /// The ids of all live contents: each has a file, unless that was lost.
    pub async fn live_contents(&self) -> Result<Vec<String>> {
        self.read(|transaction| {
            let mut statement = transaction.prepare("SELECT id FROM contents WHERE state = 1")?;
            let ids = statement
                .query_map([], |row| row.get(0))?
                .collect::<rusqlite::Result<_>>()?;
            Ok(ids)
        })
        .await
    }

    /// Whether nothing was ever accepted, as far as rows remember.
    pub async fn knows_nothing(&self) -> Result<bool> {
        self.read(|transaction| {
            let nothing = transaction.query_row(
                "SELECT NOT EXISTS (SELECT 1 FROM contents)
                    AND NOT EXISTS (SELECT 1 FROM content_deletions)
                    AND NOT EXISTS (SELECT 1 FROM operations)
                    AND NOT EXISTS (SELECT 1 FROM audit_events)",
                [],
                |row| row.get(0),
            )?;
            Ok(nothing)
        })
        .await
    }

    /// Device and inode of the folder that held the contents at the last start.
    pub async fn content_folder(&self) -> Result<Option<(u64, u64)>> {
        self.read(|transaction| {
            let found = transaction
                .prepare_cached("SELECT device, inode FROM content_folder")?
                .query_row([], |row| {
                    let (device, inode): (i64, i64) = (row.get(0)?, row.get(1)?);
                    Ok((device.cast_unsigned(), inode.cast_unsigned()))
                })
                .optional()?;
            Ok(found)
        })
        .await
    }

    /// Notes device and inode of the folder that holds the contents.
    pub async fn set_content_folder(&self, (device, inode): (u64, u64)) -> Result<()> {
        self.write_in_any_case(move |transaction, _| {
            transaction
                .prepare_cached(
                    "INSERT OR REPLACE INTO content_folder (key, device, inode) VALUES (1, ?1, ?2)",
                )?
                .execute(params![device.cast_signed(), inode.cast_signed()])?;
            Ok(())
        })
        .await
    }
}
