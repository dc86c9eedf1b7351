//! Taking over all rows of another store, by COPY in one transaction: all of them come, or none.

use std::fmt::Write;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::super::moving::{Rows, Table, TargetState, Value};
use super::super::{Error, Result};
use super::connection::{Connection, Pool};
use super::settings::Settings;
use super::transaction::{Transaction, Tries};
use super::{PostgresSettings, PostgresStore, error, schema, server};

/// Keeps others from writing the first rows meanwhile; they may read.
const LOCK: &str =
    "LOCK TABLE installation, folders, blobs, tombstones, operations, audit_events, identity
    IN EXCLUSIVE MODE";

/// Whose rows there are: none has come where a server has never served, since one names its installation first.
const STATE: &str = "SELECT (SELECT id FROM installation),
    EXISTS (SELECT FROM operations) OR EXISTS (SELECT FROM blobs) OR EXISTS (SELECT FROM tombstones)
    OR EXISTS (SELECT FROM audit_events) OR EXISTS (SELECT FROM identity)
    OR EXISTS (SELECT FROM folders WHERE key <> 0)";

/// Numbers that go on from those of the rows.
const GO_ON: &str = "SELECT setval(pg_get_serial_sequence('folders', 'key'),
        greatest((SELECT max(key) FROM folders), 1));
    UPDATE audit_numbers SET last = (SELECT coalesce(max(sequence), 0) FROM audit_events)";

impl PostgresStore {
    /// Whose rows a database has, without a change of it. One without a schema has none.
    ///
    /// # Errors
    /// Those of the start of a store.
    pub(crate) async fn target_state(
        settings: &PostgresSettings,
        installation: &str,
    ) -> Result<TargetState> {
        let settings = Settings::new(settings)?;
        let shown = settings.shown().to_owned();
        let pool = Pool::new(settings, 1);
        let asked = async {
            let mut tries = Tries::alone();
            // An address that leads nowhere is told at once.
            pool.fill(1).await?;
            loop {
                let asked = async {
                    let transaction = Transaction::begin(&pool).await?;
                    let asked = async {
                        server::check(&transaction).await?;
                        match schema::is_there(&transaction, &shown).await? {
                            true => state(&transaction, installation).await,
                            false => Ok(TargetState::Empty),
                        }
                    };
                    let asked = asked.await;
                    transaction.end(asked).await
                };
                match asked.await {
                    Ok(state) => return Ok(state),
                    Err(error) => tries.again(error).await?,
                }
            }
        };
        let asked: Result<_> = asked.await;
        pool.close(1).await;
        asked.map_err(|error| error::at_start(&shown, error))
    }

    /// Takes over the rows of an installation, in the order of [`Table::ALL`], and commits once their sender is gone and
    /// `is_whole` says that all have come. The number of rows of each batch is told as it is written. Takes none where
    /// the database has rows.
    ///
    /// # Errors
    /// [`Error::Closed`] where not all rows came; and those of the database.
    pub(crate) async fn take_over(
        &self,
        installation: &str,
        mut rows: mpsc::Receiver<Rows>,
        mut written: impl FnMut(u64) + Send,
        is_whole: impl FnOnce() -> bool + Send,
    ) -> Result<TargetState> {
        let _turn = self.writer.turn().await?;
        let transaction = Transaction::begin(&self.readers).await?;
        let worked = async {
            transaction.run(LOCK).await?;
            let found = state(&transaction, installation).await?;
            if found != TargetState::Empty {
                return Ok(found);
            }
            while let Some(Rows { table, rows }) = rows.recv().await {
                copy(&transaction, table, &rows).await?;
                written(rows.len() as u64);
            }
            if !is_whole() {
                return Err(Error::Closed);
            }
            transaction.run(GO_ON).await?;
            Ok(TargetState::Empty)
        };
        let worked = worked.await;
        transaction.end(worked).await
    }
}

async fn state(connection: &Connection, installation: &str) -> Result<TargetState> {
    let Some(row) = connection.query_opt(STATE, &[]).await? else {
        return Ok(TargetState::Empty);
    };
    let (of, has_rows): (Option<&str>, bool) = (row.try_get(0)?, row.try_get(1)?);
    Ok(match of {
        Some(of) if of == installation => TargetState::Migrated,
        None if !has_rows => TargetState::Empty,
        _ => TargetState::Used,
    })
}

async fn copy(transaction: &Transaction<'_>, table: Table, rows: &[Vec<Value>]) -> Result<()> {
    let sql = format!("COPY {} FROM STDIN", columns(table));
    let count = transaction.copy_in(&sql, text(rows)).await?;
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
                Value::Integer(number) => text.push_str(&number.to_string()),
                Value::Bytes(bytes) => {
                    text.push_str("\\\\x");
                    for byte in bytes {
                        // Writing to a string does not fail.
                        let _ = write!(text, "{byte:02x}");
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
        Table::Installation => "installation (id)",
    }
}
