//! Operations that were done as they were accepted, with their audit events. No caller knows of one
//! before the commit, so that they wait until just before it, or until another event is to follow
//! theirs or a request comes under the key of one. Then many rows are written by one statement, which
//! opens its tables once and goes on where it was; operations under idempotency keys have one each.

use std::collections::HashSet;
use std::sync::LazyLock;

use rusqlite::{ToSql, params_from_iter};

use super::super::Result;
use super::Transaction;
use super::audit::STARTED_AND_DONE;
use crate::model::{Id, Idempotency, Phase, Timestamp};

/// An operation that is to be written.
pub(super) struct Done {
    pub id: Id,
    pub kind: i64,
    pub folder_key: i64,
    pub image: Id,
    pub subject: String,
    pub request_id: String,
    pub idempotency_key: Option<[u8; 16]>,
    pub request_hash: Option<[u8; 32]>,
    pub recorded_at: Timestamp,
    pub modified_at: Timestamp,
    /// The resource in JSON, if one is left.
    pub response: Option<String>,
    /// The changes of fields, as the audit event has them.
    pub changes: Option<String>,
}

/// What a transaction has still to write.
#[derive(Default)]
pub(super) struct Waiting {
    rows: Vec<Done>,
    idempotency_keys: HashSet<[u8; 16]>,
}

impl Waiting {
    pub fn push(&mut self, row: Done) {
        self.idempotency_keys.extend(row.idempotency_key);
        self.rows.push(row);
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Whether one came under this key.
    pub fn holds(&self, idempotency: &Idempotency) -> bool {
        self.idempotency_keys.contains(&idempotency.key)
    }
}

static OPERATIONS: LazyLock<Insert<12>> = LazyLock::new(|| {
    Insert::new(
        "operations (phase, key, id_rest, kind, folder_key, image_key, image_id_rest, subject,
             request_id, idempotency_key, request_hash, modified_at, response)",
        Phase::Succeeded as i64,
        // Fresh idempotency keys are random: each goes to another page of their index. A statement of
        // many rows that sets their primary keys may fail midway for all that SQLite knows, whatever OR
        // FAIL says, and copies each page before it first changes it.
        |row| row.idempotency_key.is_some(),
        |row| {
            [
                &row.id.key,
                &row.id.rest,
                &row.kind,
                &row.folder_key,
                &row.image.key,
                &row.image.rest,
                &row.subject,
                &row.request_id,
                &row.idempotency_key,
                &row.request_hash,
                &row.modified_at.0,
                &row.response,
            ]
        },
    )
});

static EVENTS: LazyLock<Insert<10>> = LazyLock::new(|| {
    Insert::new(
        "audit_events (status, recorded_at, kind, subject, request_id, folder_key, operation_key,
             operation_id_rest, image_key, image_id_rest, changes)",
        STARTED_AND_DONE,
        // SQLite itself numbers these rows, and copies nothing.
        |_| false,
        |row| {
            [
                &row.recorded_at.0,
                &row.kind,
                &row.subject,
                &row.request_id,
                &row.folder_key,
                &row.id.key,
                &row.id.rest,
                &row.image.key,
                &row.image.rest,
                &row.changes,
            ]
        },
    )
});

/// Writes what waits in the transaction.
pub(super) fn write(transaction: &Transaction<'_>) -> Result<()> {
    let waiting = transaction.done.take();
    OPERATIONS.write(transaction, &waiting.rows)?;
    EVENTS.write(transaction, &waiting.rows)
}

/// How many rows a statement writes where there are so many.
const MANY: usize = 16;

/// An INSERT of rows with `N` values each, after one that is the same in all of them. Many are written by
/// one statement, unless some of them are better written alone.
struct Insert<const N: usize> {
    one: String,
    many: String,
    alone: fn(&Done) -> bool,
    values: fn(&Done) -> [&dyn ToSql; N],
}

impl<const N: usize> Insert<N> {
    fn new(
        into: &str,
        same: i64,
        alone: fn(&Done) -> bool,
        values: fn(&Done) -> [&dyn ToSql; N],
    ) -> Self {
        let row = format!("({same}{})", ", ?".repeat(N));
        // A row that fails undoes the whole transaction, so that SQLite need not be able to undo the rows
        // before it alone.
        let sql = |rows| {
            format!(
                "INSERT OR FAIL INTO {into} VALUES {}",
                vec![&*row; rows].join(", ")
            )
        };
        Self {
            one: sql(1),
            many: sql(MANY),
            alone,
            values,
        }
    }

    fn write(&self, transaction: &Transaction<'_>, rows: &[Done]) -> Result<()> {
        for rows in rows.chunks(MANY) {
            let (sql, at_once) = if rows.len() == MANY && !rows.iter().any(self.alone) {
                (&self.many, MANY)
            } else {
                (&self.one, 1)
            };
            for rows in rows.chunks(at_once) {
                transaction
                    .prepare_cached(sql)?
                    .execute(params_from_iter(rows.iter().flat_map(self.values)))?;
            }
        }
        Ok(())
    }
}
