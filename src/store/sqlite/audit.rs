//! Audit events, each written in the transaction that it tells of.

use std::time::Duration;

use rusqlite::{Row, params};

use super::super::Result;
use super::{Store, Transaction, done, folders, from_json, operations, unreadable};
use crate::model::{
    AuditEvent, AuditKind, AuditQuery, AuditStatus, COMPUTE_IMAGE_PREFIX, DESKTOP_IMAGE_PREFIX,
    Failure, FieldChange, Id, Kind, OPERATION_PREFIX, Reason, Timestamp,
};

const STARTED: i64 = 0;
const DONE: i64 = 1;
const ERROR: i64 = 2;
const CANCELLED: i64 = 3;
/// The two events of a mutation that was done at once, in one row.
pub const STARTED_AND_DONE: i64 = 4;

/// The kind of a new limit. Others are those of operations.
const SET_QUOTA: i64 = 101;
/// Of what no operation carries out, and of what is about no image.
pub const NO_ID: Id = Id { key: 0, rest: 0 };

/// How far a mutation has come.
pub enum Step<'a> {
    Started,
    Done,
    /// Both at once.
    StartedAndDone,
    Failed(&'a Failure),
}

/// What an event is about.
pub struct About<'a> {
    pub operation: Id,
    pub kind: AuditKind,
    pub subject: &'a str,
    pub request_id: &'a str,
    pub folder_key: i64,
    pub image: Id,
    pub changes: &'a [FieldChange],
}

/// The column of changes, which most events leave empty.
pub fn changes_column(changes: &[FieldChange]) -> Result<Option<String>> {
    let text = (!changes.is_empty()).then(|| serde_json::to_string(changes));
    Ok(text.transpose()?)
}

/// Adds an event, behind those of operations that wait to be written.
pub fn record(
    transaction: &Transaction<'_>,
    now: Timestamp,
    about: &About<'_>,
    step: Step<'_>,
) -> Result<()> {
    done::write(transaction)?;
    let (status, message) = match step {
        Step::Started => (STARTED, None),
        Step::Done => (DONE, None),
        Step::StartedAndDone => (STARTED_AND_DONE, None),
        Step::Failed(failure) if failure.reason == Reason::Cancelled => (CANCELLED, None),
        Step::Failed(failure) => (ERROR, Some(failure.message.as_str())),
    };
    transaction
        .prepare_cached(
            "INSERT INTO audit_events (recorded_at, status, kind, subject, request_id, folder_key,
                 operation_key, operation_id_rest, image_key, image_id_rest, message, changes)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
        )?
        .execute(params![
            now.0,
            status,
            match about.kind {
                AuditKind::Operation(kind) => kind as i64,
                AuditKind::SetQuota => SET_QUOTA,
            },
            about.subject,
            about.request_id,
            about.folder_key,
            about.operation.key,
            about.operation.rest,
            about.image.key,
            about.image.rest,
            message,
            changes_column(about.changes)?
        ])?;
    Ok(())
}

impl Store {
    /// Audit events, the oldest first, and the sequence number up to which all were looked at.
    pub async fn audit_events(&self, query: AuditQuery) -> Result<(Vec<AuditEvent>, i64)> {
        self.read(move |transaction| {
            let folder_key = match &query.folder_id {
                None => None,
                Some(id) => match folders::find(transaction, id)? {
                    None => return Ok((Vec::new(), query.after)),
                    found => found,
                },
            };
            let mut statement = transaction.prepare_cached(
                "SELECT event.*, folder.id AS folder_id FROM audit_events AS event
                 LEFT JOIN folders AS folder ON folder.key = event.folder_key
                 WHERE sequence > ?1 AND (?2 IS NULL OR folder_key = ?2)
                 ORDER BY sequence LIMIT ?3",
            )?;
            let limit = i64::try_from(query.limit.get()).unwrap_or(i64::MAX);
            // Each row has two numbers, one for each event that it may tell of.
            let mut rows = statement.query(params![query.after / 2, folder_key, limit])?;
            let (mut events, mut read) = (Vec::new(), 0);
            while let Some(row) = rows.next()? {
                read += 1;
                let event = from_row(row)?;
                match row.get::<_, i64>("status")? {
                    STARTED => events.push(event),
                    status => {
                        if status == STARTED_AND_DONE {
                            events.push(event.clone());
                        }
                        events.push(AuditEvent {
                            sequence: event.sequence + 1,
                            status: match status {
                                DONE | STARTED_AND_DONE => AuditStatus::Done,
                                ERROR => AuditStatus::Error,
                                CANCELLED => AuditStatus::Cancelled,
                                other => return Err(unreadable(format!("status {other}")).into()),
                            },
                            ..event
                        });
                    }
                }
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
        })
        .await
    }

    /// Forgets events older than `age`, at most `limit` of them; how many they were. The last
    /// one stays, so that sequence numbers go on from it.
    pub async fn forget_audit_events(&self, age: Duration, limit: usize) -> Result<usize> {
        self.write(move |transaction, store| {
            Ok(transaction
                .prepare_cached(
                    "DELETE FROM audit_events WHERE sequence IN (
                         SELECT sequence FROM audit_events ORDER BY sequence LIMIT ?2)
                     AND (recorded_at < ?1 OR recorded_at > ?3)
                     AND sequence < (SELECT max(sequence) FROM audit_events)",
                )?
                .execute(params![
                    store.now().before(age).0,
                    limit as i64,
                    // Written by a clock that was wrong.
                    store.now().after(super::CLOCK_SLIP).0
                ])?)
        })
        .await
    }
}

/// The event as one that has started.
fn from_row(row: &Row<'_>) -> rusqlite::Result<AuditEvent> {
    let kind = match row.get("kind")? {
        SET_QUOTA => AuditKind::SetQuota,
        number => AuditKind::Operation(operations::kind(number)?),
    };
    let changes: Option<String> = row.get("changes")?;
    let operation = Id {
        key: row.get("operation_key")?,
        rest: row.get("operation_id_rest")?,
    };
    let image = Id {
        key: row.get("image_key")?,
        rest: row.get("image_id_rest")?,
    };
    Ok(AuditEvent {
        sequence: 2 * row.get::<_, i64>("sequence")? - 1,
        time: Timestamp(row.get("recorded_at")?),
        status: AuditStatus::Started,
        kind,
        subject: row.get("subject")?,
        request_id: row.get("request_id")?,
        folder_id: row
            .get::<_, Option<String>>("folder_id")?
            .unwrap_or_default(),
        operation_id: match kind {
            AuditKind::Operation(_) => operation.text(OPERATION_PREFIX),
            AuditKind::SetQuota => String::new(),
        },
        image_id: match kind {
            AuditKind::Operation(kind) => image.text(image_prefix(kind)),
            AuditKind::SetQuota => String::new(),
        },
        message: row.get("message")?,
        changes: match changes {
            Some(changes) => from_json(&changes)?,
            None => Vec::new(),
        },
    })
}

/// The prefix of the images that a kind of operation is about.
pub(super) fn image_prefix(kind: Kind) -> &'static str {
    match kind {
        Kind::CopyDesktopImage | Kind::UpdateDesktopImage | Kind::DeleteDesktopImage => {
            DESKTOP_IMAGE_PREFIX
        }
        Kind::CreateComputeImage | Kind::UpdateComputeImage | Kind::DeleteComputeImage => {
            COMPUTE_IMAGE_PREFIX
        }
    }
}
