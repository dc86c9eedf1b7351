//! All rows, for another store to take.

use std::path::Path;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags, OptionalExtension, TransactionBehavior};

use super::super::Result;
use super::super::moving::{Rows, Table, Value};
use super::{Transaction, installation, schema};

/// Rows that are handed on together.
const BATCH: usize = 500;

/// A database whose rows are moved. No process may write to it meanwhile. All calls block.
pub(crate) struct Departing {
    connection: Connection,
}

impl Departing {
    /// Opens a database that is there, with the schema of this program.
    ///
    /// # Errors
    /// `Error::OlderSchema`, `NewerSchema` or `Foreign`, and those of the database.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        schema::check(&connection, path)?;
        schema::check_is_current(&connection, path)?;
        Ok(Self { connection })
    }

    /// The number of operations that have not ended.
    pub(crate) fn unfinished(&self) -> Result<u64> {
        let sql = "SELECT count(*) FROM operations WHERE phase < 3";
        let count: i64 = self.connection.query_row(sql, [], |row| row.get(0))?;
        Ok(count.unsigned_abs())
    }

    /// The name of the installation, where it has one.
    pub(crate) fn installation(&self) -> Result<Option<String>> {
        let sql = "SELECT id FROM installation";
        let id = self.connection.query_row(sql, [], |row| row.get(0));
        Ok(id.optional()?)
    }

    /// The name of the installation; `made`, where it had none.
    pub(crate) fn named(&self, made: &str) -> Result<String> {
        let transaction = Transaction::begin(&self.connection, TransactionBehavior::Immediate)?;
        let name = installation::named(&transaction, made)?;
        transaction.commit()?;
        Ok(name)
    }

    /// The number of rows of all tables together.
    pub(crate) fn count(&self) -> Result<u64> {
        let mut sum = 0;
        for table in Table::ALL {
            let sql = format!("SELECT count(*) FROM ({})", select(table));
            let count: i64 = self.connection.query_row(&sql, [], |row| row.get(0))?;
            sum += count.unsigned_abs();
        }
        Ok(sum)
    }

    /// Hands on the rows of all tables, in the order of [`Table::ALL`], until `take` returns false.
    pub(crate) fn read(&mut self, mut take: impl FnMut(Rows) -> bool) -> Result<()> {
        let behavior = TransactionBehavior::Deferred;
        let transaction = self.connection.transaction_with_behavior(behavior)?;
        for table in Table::ALL {
            let mut statement = transaction.prepare(select(table))?;
            let columns = statement.column_count();
            let mut found = statement.query([])?;
            let mut rows = Vec::new();
            while let Some(row) = found.next()? {
                let values = (0..columns).map(|column| Ok(value(row.get_ref(column)?)));
                rows.push(values.collect::<Result<Vec<Value>>>()?);
                if rows.len() == BATCH
                    && !take(Rows {
                        table,
                        rows: std::mem::take(&mut rows),
                    })
                {
                    return Ok(());
                }
            }
            if !rows.is_empty() && !take(Rows { table, rows }) {
                return Ok(());
            }
        }
        Ok(())
    }
}

fn value(value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(number) => Value::Integer(number),
        // No table has a column of numbers with fractions.
        ValueRef::Real(number) => Value::Text(number.to_string()),
        ValueRef::Text(text) => Value::Text(String::from_utf8_lossy(text).into_owned()),
        ValueRef::Blob(bytes) => Value::Bytes(bytes.to_vec()),
    }
}

/// The columns of a table in the order that every store knows. Here a reference to a blob or to an operation is its
/// key alone, and elsewhere both parts of its id.
fn select(table: Table) -> &'static str {
    match table {
        Table::Folders => "SELECT key, id FROM folders ORDER BY key",
        Table::Blobs => {
            "SELECT content.key, content.id_rest, content.id, content.state, content.operation_key,
                operation.id_rest, content.damaged, content.format, content.size,
                content.stored_size, content.virtual_size, content.sha256
             FROM contents AS content
             LEFT JOIN operations AS operation ON operation.key = content.operation_key
             ORDER BY content.key"
        }
        Table::BlobChecksums => {
            "SELECT content.key, content.id_rest, sums.checksums FROM content_checksums AS sums
             JOIN contents AS content ON content.key = sums.content_key ORDER BY content.key"
        }
        Table::BlobCandidates => {
            "SELECT content.key, content.id_rest FROM content_candidates AS candidate
             JOIN contents AS content ON content.key = candidate.content_key ORDER BY content.key"
        }
        Table::Tombstones => {
            "SELECT content_id, forget_after FROM content_deletions ORDER BY content_id"
        }
        Table::ComputeImages => {
            "SELECT image.key, image.id_rest, folder_key, status, name, description, labels, family,
                min_disk_size, product_ids, os, pooled, hardware_generation, content_key,
                content.id_rest
             FROM compute_images AS image
             LEFT JOIN contents AS content ON content.key = content_key ORDER BY image.key"
        }
        Table::DesktopImages => {
            "SELECT image.key, image.id_rest, folder_key, status, name, description, labels,
                min_disk_size, content_key, content.id_rest
             FROM desktop_images AS image
             JOIN contents AS content ON content.key = content_key ORDER BY image.key"
        }
        Table::FormerNames => {
            "SELECT image_id, name_hash, name, retired_at FROM retired_names
             ORDER BY image_id, name_hash"
        }
        Table::Operations => {
            "SELECT key, id_rest, kind, phase, cancel_requested, folder_key, image_key,
                image_id_rest, subject, request_id, idempotency_key, request_hash, upload,
                modified_at, attempt, claimable_at, lease_token, retry_until, task, progress_done,
                progress_total, response, error_reason, error_message, error_subject, error_quota
             FROM operations ORDER BY key"
        }
        Table::AuditEvents => {
            "SELECT sequence, recorded_at, status, kind, subject, request_id, folder_key,
                operation_key, operation_id_rest, image_key, image_id_rest, message, changes, peer
             FROM audit_events ORDER BY sequence"
        }
        Table::Quotas => {
            "SELECT folder_key, metric, \"limit\", used FROM quotas ORDER BY folder_key, metric"
        }
        Table::Identity => {
            "SELECT kind, id, parent_kind, parent_id, expires_at, row FROM identity
             ORDER BY kind, id"
        }
        Table::Installation => "SELECT id FROM installation",
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::SqliteStore;
    use super::*;
    use crate::model::SystemClock;

    /// Facts of a data folder, and of those who work with it.
    const STAY: [&str; 2] = ["content_folder", "blob_holds"];

    #[test]
    fn every_column_of_every_table_is_moved() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metadata.sqlite");
        drop(SqliteStore::open(&path, Arc::new(SystemClock)).unwrap());
        let connection = Connection::open(&path).unwrap();
        let columns =
            "SELECT m.name, c.name FROM sqlite_schema AS m, pragma_table_info(m.name) AS c
             WHERE m.type = 'table' ORDER BY m.name";
        let mut statement = connection.prepare(columns).unwrap();
        let mut rows = statement.query([]).unwrap();
        let mut count = 0;
        while let Some(row) = rows.next().unwrap() {
            let (table, column): (String, String) = (row.get(0).unwrap(), row.get(1).unwrap());
            if STAY.contains(&&*table) {
                continue;
            }
            let from = format!("FROM {table}");
            let sql = Table::ALL.map(select).into_iter().find(|sql| {
                let words: Vec<_> = sql.split_whitespace().collect();
                words.join(" ").contains(&from)
            });
            // The key of an installation is always the same.
            let is_named = (&*table, &*column) == ("installation", "key")
                || sql.is_some_and(|sql| {
                    sql.split(|it: char| !it.is_alphanumeric() && it != '_')
                        .any(|word| word == column)
                });
            assert!(is_named, "{table}.{column} is not moved");
            count += 1;
        }
        assert!(count > 80, "{count} columns");
    }
}
