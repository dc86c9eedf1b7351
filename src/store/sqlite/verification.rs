//! The database as one finds it who checks it, beside a server that works with it. Reads are short but for
//! the check of the database itself, and so are writes, since a server waits for them.

use std::collections::HashSet;
use std::path::Path;

use rusqlite::{Connection, OpenFlags, OptionalExtension, Row, TransactionBehavior, params};

use super::super::Result;
use super::super::records::{Recorded, Records};
use super::{BUSY_TIMEOUT, garbage, schema};
use crate::model::Id;

/// How many faults of the database are told at the most.
const FAULTS: usize = 100;
/// How many contents are looked up at once.
const PAGE: usize = 256;

/// A database that is being checked. All calls block.
pub(crate) struct Verification {
    connection: Connection,
}

impl Verification {
    /// Opens a database that is there. One with a schema of before is not brought up to date:
    /// `Error::OlderSchema`.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        connection.pragma_update(None, "foreign_keys", true)?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        // The server moves the log, and would not expect others to.
        connection.pragma_update(None, "wal_autocheckpoint", 0)?;
        schema::check(&connection, path)?;
        schema::check_is_current(&connection, path)?;
        Ok(Self { connection })
    }

    fn write(&mut self, work: impl FnOnce(&Connection) -> rusqlite::Result<()>) -> Result<()> {
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        work(&transaction)?;
        transaction.commit()?;
        Ok(())
    }
}

impl Records for Verification {
    fn installation(&mut self) -> Result<Option<String>> {
        let sql = "SELECT id FROM installation";
        let found = self.connection.query_row(sql, [], |row| row.get(0));
        Ok(found.optional()?)
    }

    fn faults(&mut self) -> Result<Vec<String>> {
        let mut faults = Vec::new();
        let mut statement = self
            .connection
            .prepare(&format!("PRAGMA integrity_check({FAULTS})"))?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let found: String = row.get(0)?;
            if found != "ok" {
                faults.push(found);
            }
        }
        let mut statement = self.connection.prepare("PRAGMA foreign_key_check")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()?
            && faults.len() < FAULTS
        {
            let (table, number): (String, Option<i64>) = (row.get(0)?, row.get(1)?);
            let (parent, number) = (row.get::<_, String>(2)?, number.unwrap_or_default());
            faults.push(format!(
                "row {number} of {table} refers to a row of {parent} that is not there"
            ));
        }
        Ok(faults)
    }

    fn extent(&mut self) -> Result<(u64, u64)> {
        let found = self.connection.query_row(
            "SELECT count(*), coalesce(sum(size), 0) FROM contents WHERE state = 1",
            [],
            |row| Ok((unsigned(row.get(0)?), unsigned(row.get(1)?))),
        )?;
        Ok(found)
    }

    fn blobs_after(&mut self, last: Option<Id>) -> Result<Vec<Recorded>> {
        let mut statement = self.connection.prepare_cached(&format!(
            "{RECORDED} WHERE state = 1 AND key > ?1 ORDER BY key LIMIT {PAGE}"
        ))?;
        let found = statement
            .query_map([last.map_or(0, |last| last.key)], recorded)?
            .collect::<rusqlite::Result<_>>()?;
        Ok(found)
    }

    fn blob(&mut self, row: Id) -> Result<Option<Recorded>> {
        let found = self
            .connection
            .prepare_cached(&format!("{RECORDED} WHERE state = 1 AND key = ?1"))?
            .query_row([row.key], recorded)
            .optional()?;
        Ok(found)
    }

    fn known_blobs(&mut self) -> Result<HashSet<String>> {
        let mut statement = self
            .connection
            .prepare("SELECT id FROM contents UNION SELECT content_id FROM content_deletions")?;
        let ids = statement
            .query_map([], |row| row.get(0))?
            .collect::<rusqlite::Result<_>>()?;
        Ok(ids)
    }

    fn images_of(&mut self, blob_id: &str, limit: usize) -> Result<Vec<String>> {
        garbage::images_of(&self.connection, blob_id, limit)
    }

    fn note_sound(&mut self, blob: &Recorded, checksums: &[u8]) -> Result<()> {
        self.write(|transaction| {
            let is_there = transaction.execute(
                "UPDATE contents SET damaged = 0 WHERE key = ?1 AND id = ?2 AND state = 1",
                params![blob.key, blob.id],
            )?;
            if is_there == 1 {
                transaction.execute(
                    "INSERT OR REPLACE INTO content_checksums (content_key, checksums)
                     VALUES (?1, ?2)",
                    params![blob.key, checksums],
                )?;
            }
            Ok(())
        })
    }

    fn note_damaged(&mut self, blob: &Recorded) -> Result<()> {
        self.write(|transaction| {
            transaction.execute(
                "UPDATE contents SET damaged = 1 WHERE key = ?1 AND id = ?2 AND state = 1",
                params![blob.key, blob.id],
            )?;
            Ok(())
        })
    }
}

const RECORDED: &str = "SELECT contents.key, id, size, sha256, damaged, checksums FROM contents
    LEFT JOIN content_checksums ON content_key = contents.key";

fn recorded(row: &Row<'_>) -> rusqlite::Result<Recorded> {
    Ok(Recorded {
        key: row.get(0)?,
        rest: 0,
        id: row.get(1)?,
        size: unsigned(row.get(2)?),
        sha256: row.get(3)?,
        damaged: row.get(4)?,
        checksums: row.get(5)?,
    })
}

/// No size is less than zero.
fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}
