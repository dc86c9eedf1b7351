//! Taking over all rows of another store, by COPY in one transaction: all of them come, or none.

use std::fmt::Write;
use std::pin::pin;

use bytes::Bytes;
use futures_util::SinkExt;
use tokio::sync::mpsc;

use super::super::moving::{Rows, Table, Value};
use super::super::{Error, Result};
use super::PostgresStore;
use super::transaction::Transaction;

/// The tables that hold nothing in a database that was never used.
const IS_EMPTY: &str = "SELECT NOT EXISTS (SELECT FROM operations)
    AND NOT EXISTS (SELECT FROM blobs) AND NOT EXISTS (SELECT FROM tombstones)
    AND NOT EXISTS (SELECT FROM audit_events) AND NOT EXISTS (SELECT FROM identity)
    AND NOT EXISTS (SELECT FROM folders WHERE key <> 0)";

/// The numbers that go on from those of the rows.
const GO_ON: &str = "SELECT setval(pg_get_serial_sequence('folders', 'key'),
        greatest((SELECT max(key) FROM folders), 1));
    UPDATE audit_numbers SET last = (SELECT coalesce(max(sequence), 0) FROM audit_events)";

impl PostgresStore {
    /// Whether nothing was ever stored.
    ///
    /// # Errors
    /// Those of the database.
    pub(crate) async fn is_empty(&self) -> Result<bool> {
        let connection = self.readers.take(false).await?;
        let row = connection.query_opt(IS_EMPTY, &[]).await?;
        Ok(row.map(|row| row.try_get(0)).transpose()?.unwrap_or(false))
    }

    /// Takes over rows, in the order of [`Table::ALL`], and commits once their sender is gone and `is_whole` says that
    /// all have come. The number of rows of each batch is told as it is written.
    ///
    /// # Errors
    /// [`Error::NotEmpty`] where the database was used before; [`Error::Closed`] where not all rows came; and those of
    /// the database.
    pub(crate) async fn take_over(
        &self,
        rows: &mut mpsc::Receiver<Rows>,
        mut written: impl FnMut(u64) + Send,
        is_whole: impl FnOnce() -> bool + Send,
    ) -> Result<()> {
        let _turn = self.writer.turn().await?;
        let transaction = Transaction::begin(&self.readers).await?;
        let worked = async {
            if !self.is_empty().await? {
                return Err(Error::NotEmpty);
            }
            while let Some(Rows { table, rows }) = rows.recv().await {
                copy(&transaction, table, &rows).await?;
                written(rows.len() as u64);
            }
            if !is_whole() {
                return Err(Error::Closed);
            }
            transaction.run(GO_ON).await
        };
        let worked = worked.await;
        transaction.end(worked).await
    }
}

async fn copy(transaction: &Transaction<'_>, table: Table, rows: &[Vec<Value>]) -> Result<()> {
    let sink = transaction.copy_in(&format!("COPY {} FROM STDIN", columns(table)));
    let mut sink = pin!(sink.await?);
    sink.send(text(rows)).await?;
    let count = sink.finish().await?;
    match count == rows.len() as u64 {
        true => Ok(()),
        false => Err(Error::Failed(
            format!("{count} of {} rows were taken", rows.len()).into(),
        )),
    }
}

/// Rows in the text format of COPY
/// (<https://www.postgresql.org/docs/18/sql-copy.html#SQL-COPY-FILE-FORMATS>).
fn text(rows: &[Vec<Value>]) -> Bytes {
    let mut text = String::new();
    for row in rows {
        for (number, value) in row.iter().enumerate() {
            if number > 0 {
                text.push('\t');
            }
            match value {
                Value::Null => text.push_str("\\N"),
                // Writing to a string does not fail.
                Value::Integer(number) => drop(write!(text, "{number}")),
                Value::Bytes(bytes) => {
                    text.push_str("\\\\x");
                    for byte in bytes {
                        drop(write!(text, "{byte:02x}"));
                    }
                }
                Value::Text(value) => {
                    for character in value.chars() {
                        match character {
                            '\\' => text.push_str("\\\\"),
                            '\n' => text.push_str("\\n"),
                            '\r' => text.push_str("\\r"),
                            '\t' => text.push_str("\\t"),
                            other => text.push(other),
                        }
                    }
                }
            }
        }
        text.push('\n');
    }
    text.into()
}

/// The table, and its columns in the order that every store knows.
fn columns(table: Table) -> &'static str {
    match table {
        Table::Folders => "folders (key, id)",
        Table::Blobs => {
            "blobs (key, id_rest, file, state, operation_key, operation_rest, damaged, format, size,
                stored_size, virtual_size, sha256)"
        }
        Table::BlobChecksums => "blob_checksums (key, id_rest, checksums)",
        Table::BlobCandidates => "blob_candidates (key, id_rest)",
        Table::Tombstones => "tombstones (file, forget_after)",
        Table::ComputeImages => {
            "compute_images (key, id_rest, folder_key, status, name, description, labels, family,
                min_disk_size, product_ids, os, pooled, hardware_generation, blob_key, blob_rest)"
        }
        Table::DesktopImages => {
            "desktop_images (key, id_rest, folder_key, status, name, description, labels,
                min_disk_size, blob_key, blob_rest)"
        }
        Table::FormerNames => "former_names (image_id, name_hash, name, given_up_at)",
        Table::Operations => {
            "operations (key, id_rest, kind, phase, cancel_requested, folder_key, image_key,
                image_rest, subject, request_id, idempotency_key, request_hash, upload,
                modified_at, attempt, claimable_at, lease_token, retry_until, task, progress_done,
                progress_total, response, error_reason, error_message, error_subject, error_quota)"
        }
        Table::AuditEvents => {
            "audit_events (sequence, recorded_at, status, kind, subject, request_id, folder_key,
                operation_key, operation_rest, image_key, image_rest, message, changes, peer)"
        }
        Table::Quotas => "quotas (folder_key, metric, \"limit\", used)",
        Table::Identity => "identity (kind, id, parent_kind, parent_id, expires_at, row)",
    }
}
