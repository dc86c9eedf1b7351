//! Audit events as rows. A row has two sequence numbers, one for each event that it may tell of, since a change that
//! is done at once keeps both of its events in one row.

use std::time::Duration;

use rusqlite::types::Value;
use rusqlite::{Row, params, params_from_iter};

use super::super::{CLOCK_SLIP, Result};
use super::Transaction;
use super::error::{from_json, numbered, to_json};
use super::folders::{self, TOTAL};
use crate::model::{
    AuditEvent, AuditKind, AuditQuery, AuditRow, AuditStatus, AuditStep, Id, OPERATION_PREFIX,
    Timestamp,
};

/// In the place of the operation and the image of an event that has none.
const NO_ID: Id = Id { key: 0, rest: 0 };
/// No folder has this key.
const NO_FOLDER: i64 = -1;

/// The table, and the columns of [`values`].
pub(super) const COLUMNS: &str =
    "audit_events (recorded_at, status, kind, subject, request_id, folder_key,
    operation_key, operation_id_rest, image_key, image_id_rest, message, changes, peer)";

/// The values of an event.
pub(super) fn values(transaction: &Transaction<'_>, row: &AuditRow) -> Result<[Value; 13]> {
    let folder_key = match row.folder_id.as_str() {
        "" => TOTAL,
        id => folders::intern(transaction, id)?,
    };
    let (operation, image) = (row.operation.unwrap_or(NO_ID), row.image.unwrap_or(NO_ID));
    let changes = (!row.changes.is_empty()).then(|| to_json(&row.changes));
    Ok([
        Value::from(row.time.0),
        Value::from(row.step as i64),
        Value::from(row.kind.number()),
        Value::from(row.subject.clone()),
        Value::from(row.request_id.clone()),
        Value::from(folder_key),
        Value::from(operation.key),
        Value::from(operation.rest),
        Value::from(image.key),
        Value::from(image.rest),
        Value::from(row.message.clone()),
        Value::from(changes.transpose()?),
        Value::from(row.peer.clone()),
    ])
}

/// Adds an event.
pub(super) fn insert(transaction: &Transaction<'_>, row: AuditRow) -> Result<()> {
    let values = values(transaction, &row)?;
    let marks = ", ?".repeat(values.len() - 1);
    transaction
        .prepare_cached(&format!("INSERT INTO {COLUMNS} VALUES (?{marks})"))?
        .execute(params_from_iter(values))?;
    Ok(())
}

/// Events, the oldest first, and the sequence number up to which all were looked at.
pub(super) fn read(
    transaction: &Transaction<'_>,
    query: &AuditQuery,
) -> Result<(Vec<AuditEvent>, i64)> {
    let folder_key = match &query.folder_id {
        None => None,
        Some(id) => Some(folders::find(transaction, id)?.unwrap_or(NO_FOLDER)),
    };
    let mut statement = transaction.prepare_cached(
        "SELECT event.*, folder.id AS folder_id FROM audit_events AS event
         LEFT JOIN folders AS folder ON folder.key = event.folder_key
         WHERE sequence > ?1 AND (?2 IS NULL OR folder_key = ?2)
         ORDER BY sequence LIMIT ?3",
    )?;
    let limit = i64::try_from(query.limit.get()).unwrap_or(i64::MAX);
    let mut rows = statement.query(params![query.after / 2, folder_key, limit])?;
    let (mut events, mut read) = (Vec::new(), 0);
    while let Some(row) = rows.next()? {
        read += 1;
        let step = numbered("step", AuditStep::from_number, row.get("status")?)?;
        events.extend(from_row(row)?.of_step(step));
    }
    events.retain(|event| event.sequence > query.after);
    let seen = if read < limit {
        let last: Option<i64> = transaction
            .prepare_cached("SELECT max(sequence) FROM audit_events")?
            .query_row([], |row| row.get(0))?;
        last.map_or(query.after, |last| (2 * last).max(query.after))
    } else {
        events.last().map_or(query.after, |event| event.sequence)
    };
    Ok((events, seen))
}

/// Forgets events older than `age`; how many rows they were.
pub(super) fn forget(
    transaction: &Transaction<'_>,
    now: Timestamp,
    age: Duration,
    limit: usize,
) -> Result<usize> {
    Ok(transaction
        .prepare_cached(
            "DELETE FROM audit_events WHERE sequence IN (
                 SELECT sequence FROM audit_events ORDER BY sequence LIMIT ?2)
             AND (recorded_at < ?1 OR recorded_at > ?3)
             AND sequence < (SELECT max(sequence) FROM audit_events)",
        )?
        .execute(params![
            now.before(age).0,
            limit as i64,
            // Written by a clock that was wrong.
            now.after(CLOCK_SLIP).0
        ])?)
}

/// The event as one that has started.
fn from_row(row: &Row<'_>) -> rusqlite::Result<AuditEvent> {
    let kind = numbered("kind", AuditKind::from_number, row.get("kind")?)?;
    let changes: Option<String> = row.get("changes")?;
    let operation = Id {
        key: row.get("operation_key")?,
        rest: row.get("operation_id_rest")?,
    };
    let image = Id {
        key: row.get("image_key")?,
        rest: row.get("image_id_rest")?,
    };
    let (operation_id, image_id) = match kind.operation() {
        Some(kind) => (
            operation.text(OPERATION_PREFIX),
            image.text(kind.image_prefix()),
        ),
        None => Default::default(),
    };
    Ok(AuditEvent {
        sequence: 2 * row.get::<_, i64>("sequence")? - 1,
        time: Timestamp(row.get("recorded_at")?),
        status: AuditStatus::Started,
        kind,
        subject: row.get("subject")?,
        request_id: row.get("request_id")?,
        peer: row.get("peer")?,
        folder_id: row
            .get::<_, Option<String>>("folder_id")?
            .unwrap_or_default(),
        operation_id,
        image_id,
        message: row.get("message")?,
        changes: changes
            .map(|changes| from_json(&changes))
            .transpose()?
            .unwrap_or_default(),
    })
}
