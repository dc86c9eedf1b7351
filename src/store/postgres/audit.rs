//! Audit events as rows. A row has two sequence numbers, one for each event that it may tell of, since a change that
//! is done at once keeps both of its events in one row.
//!
//! Transactions commit in another order than they insert, so a row has no number until it is committed. Readers number
//! what they find, one reader at a time: an event that is committed later has a later number, and nobody who goes on
//! from a number skips it.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio_postgres::Row;

use super::super::{CLOCK_SLIP, Result};
use super::columns::{Columns, column, try_column};
use super::connection::{Connection, Pipeline, Pool};
use super::error::{numbered, to_json, unreadable};
use super::folders::key_of;
use super::transaction::Transaction;
use crate::model::{
    AuditEvent, AuditKind, AuditQuery, AuditRow, AuditStatus, AuditStep, Id, OPERATION_PREFIX,
    Timestamp,
};

/// In the place of the operation and the image of an event that has none.
const NO_ID: Id = Id { key: 0, rest: 0 };
/// How many rows get their numbers in one transaction.
const NUMBERED_AT_ONCE: i64 = 10_000;

/// Adds events, in their order.
pub(super) fn insert(
    pipeline: &mut Pipeline,
    rows: &[AuditRow],
    folders: &BTreeMap<String, i64>,
) -> Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    let rows: Vec<&AuditRow> = rows.iter().collect();
    let rows = &rows[..];
    let values = vec![
        column(rows, |row| row.time.0),
        column(rows, |row| row.step as i64),
        column(rows, |row| row.kind.number()),
        column(rows, |row| row.subject.clone()),
        column(rows, |row| row.request_id.clone()),
        try_column(rows, |row| key_of(folders, &row.folder_id))?,
        column(rows, |row| row.operation.unwrap_or(NO_ID).key),
        column(rows, |row| row.operation.unwrap_or(NO_ID).rest),
        column(rows, |row| row.image.unwrap_or(NO_ID).key),
        column(rows, |row| row.image.unwrap_or(NO_ID).rest),
        column(rows, |row| row.message.clone()),
        try_column(rows, |row| {
            let changes = (!row.changes.is_empty()).then_some(&row.changes);
            changes.map(to_json).transpose()
        })?,
        column(rows, |row| row.peer.clone()),
    ];
    pipeline.add(
        "INSERT INTO audit_events (recorded_at, status, kind, subject, request_id, folder_key,
             operation_key, operation_rest, image_key, image_rest, message, changes, peer)
         SELECT recorded_at, status, kind, subject, request_id, folder_key, operation_key,
             operation_rest, image_key, image_rest, message, changes, peer
         FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::text[], $5::text[],
             $6::bigint[], $7::bigint[], $8::bigint[], $9::bigint[], $10::bigint[], $11::text[],
             $12::text[], $13::text[]) WITH ORDINALITY
             AS new (recorded_at, status, kind, subject, request_id, folder_key, operation_key,
                 operation_rest, image_key, image_rest, message, changes, peer, place)
         ORDER BY place",
        values,
    );
    Ok(())
}

/// Gives numbers to the events that are committed and have none.
pub(super) async fn number(pool: &Pool) -> Result<()> {
    loop {
        let waiting = {
            let connection = pool.take(false).await?;
            let sql = "SELECT 1 FROM audit_events WHERE sequence IS NULL LIMIT 1";
            connection.query_opt(sql, &[]).await?
        };
        if waiting.is_none() {
            return Ok(());
        }
        let transaction = Transaction::begin(pool).await?;
        let numbered = number_some(&transaction).await;
        if transaction.end(numbered).await? < NUMBERED_AT_ONCE {
            return Ok(());
        }
    }
}

async fn number_some(transaction: &Transaction<'_>) -> Result<i64> {
    // The statements after this one see all that whoever had the lock before has numbered.
    let last: i64 = transaction
        .query_opt("SELECT last FROM audit_numbers FOR UPDATE", &[])
        .await?
        .ok_or_else(|| unreadable("no row of audit_numbers".to_owned()))?
        .try_get(0)?;
    let numbered = transaction
        .execute(
            "UPDATE audit_events AS event SET sequence = $1 + new.place
             FROM (SELECT arrival, row_number() OVER (ORDER BY arrival) AS place
                   FROM (SELECT arrival FROM audit_events WHERE sequence IS NULL
                         ORDER BY arrival LIMIT $2) AS waiting) AS new
             WHERE event.arrival = new.arrival",
            &[&last, &NUMBERED_AT_ONCE],
        )
        .await?;
    let numbered = i64::try_from(numbered).unwrap_or(i64::MAX);
    transaction
        .execute("UPDATE audit_numbers SET last = last + $1", &[&numbered])
        .await?;
    Ok(numbered)
}

/// Numbered events, the oldest first, and the sequence number up to which all were looked at.
pub(super) async fn read(
    connection: &Connection,
    query: &AuditQuery,
) -> Result<(Vec<AuditEvent>, i64)> {
    // Before the events: those that get a number meanwhile are for the next time.
    let last: Option<i64> = connection
        .query_opt("SELECT max(sequence) FROM audit_events", &[])
        .await?
        .map(|row| row.try_get(0))
        .transpose()?
        .flatten();
    let limit = i64::try_from(query.limit.get()).unwrap_or(i64::MAX);
    let rows = connection
        .query(
            "SELECT sequence, status, recorded_at, kind, subject, request_id, peer, folder.id,
                 operation_key, operation_rest, image_key, image_rest, message, changes
             FROM audit_events AS event JOIN folders AS folder ON folder.key = event.folder_key
             WHERE sequence > $1 AND sequence <= $4
               AND ($2::text IS NULL
                    OR folder_key = (SELECT key FROM folders WHERE id = $2 AND key <> 0))
             ORDER BY sequence LIMIT $3",
            &[
                &(query.after / 2),
                &query.folder_id,
                &limit,
                &last.unwrap_or(0),
            ],
        )
        .await?;
    let mut events = Vec::new();
    for row in &rows {
        events.extend(from_row(row)?);
    }
    events.retain(|event| event.sequence > query.after);
    let seen = if (rows.len() as i64) < limit {
        last.map_or(query.after, |last| (2 * last).max(query.after))
    } else {
        events.last().map_or(query.after, |event| event.sequence)
    };
    Ok((events, seen))
}

/// Forgets events older than `age`; how many rows they were.
pub(super) async fn forget(
    transaction: &Transaction<'_>,
    now: Timestamp,
    age: Duration,
    limit: usize,
) -> Result<usize> {
    let forgotten = transaction
        .execute(
            "DELETE FROM audit_events WHERE sequence IN (
                 SELECT sequence FROM audit_events WHERE sequence IS NOT NULL
                 ORDER BY sequence LIMIT $2)
             AND (recorded_at < $1 OR recorded_at > $3)
             AND sequence < (SELECT max(sequence) FROM audit_events)",
            &[
                &now.before(age).0,
                &(limit as i64),
                // Written by a clock that was wrong.
                &now.after(CLOCK_SLIP).0,
            ],
        )
        .await?;
    Ok(forgotten as usize)
}

/// The events of a row.
fn from_row(row: &Row) -> Result<Vec<AuditEvent>> {
    let mut columns = Columns::of(row);
    let number: i64 = columns.take()?;
    let step = numbered("step", AuditStep::from_number, columns.take()?)?;
    let time = Timestamp(columns.take()?);
    let kind = numbered("kind", AuditKind::from_number, columns.take()?)?;
    let (subject, request_id, peer) = (columns.take()?, columns.take()?, columns.take()?);
    let folder_id = columns.take()?;
    let (operation, image) = (columns.take_id()?, columns.take_id()?);
    let (operation_id, image_id) = match kind.operation() {
        Some(kind) => (
            operation.text(OPERATION_PREFIX),
            image.text(kind.image_prefix()),
        ),
        None => Default::default(),
    };
    let started = AuditEvent {
        sequence: 2 * number - 1,
        time,
        status: AuditStatus::Started,
        kind,
        subject,
        request_id,
        peer,
        folder_id,
        operation_id,
        image_id,
        message: columns.take()?,
        changes: columns.take_optional_json()?.unwrap_or_default(),
    };
    Ok(started.of_step(step))
}
