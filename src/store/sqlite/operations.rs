//! Operations as rows: reading them, and the one way to change their phase.

use rusqlite::{OptionalExtension, Row, named_params, params};

use super::super::{Error, Result};
use super::audit::{self, About, Step, image_prefix};
use super::done::{self, Done};
use super::{Store, Transaction, compute_images, from_json, unreadable, uploads};
use crate::model::{
    Accept, AuditKind, Change, Event, Failure, FieldChange, Id, Kind, OPERATION_PREFIX, Operation,
    Outcome, Phase, Progress, Reason, Refused, State, Timestamp,
};

const SELECT: &str = "SELECT operation.key, id_rest, kind, phase, folder.id AS folder_id,
    image_key, image_id_rest, subject, modified_at, attempt, task, progress_done, progress_total,
    response, error_reason, error_message, error_subject, error_quota
    FROM operations AS operation JOIN folders AS folder ON folder.key = folder_key";

impl Store {
    /// The operation with this id.
    pub async fn operation(&self, id: &str) -> Result<Operation> {
        let id = id.to_owned();
        self.read(move |transaction| get(transaction, parse_id(&id)?))
            .await
    }

    /// The first operation under the same idempotency key, if there is one.
    pub async fn repeated_operation(&self, accept: &Accept) -> Result<Option<Operation>> {
        if accept.idempotency.is_none() {
            return Ok(None);
        }
        let accept = accept.clone();
        self.read(move |transaction| repeated(transaction, &accept))
            .await
    }

    /// The operations of a compute image, the newest first, at most `limit` of them, starting
    /// after the one with the id `after`.
    pub async fn operations_of_compute_image(
        &self,
        image_id: &str,
        after: Option<String>,
        limit: usize,
    ) -> Result<Vec<Operation>> {
        let image_id = image_id.to_owned();
        self.read(move |transaction| {
            let image = compute_images::find(transaction, &image_id)?;
            let before = match after {
                Some(id) => parse_id(&id).map_err(|_| Error::PageTokenExpired)?.key,
                None => i64::MAX,
            };
            let mut statement = transaction.prepare_cached(&format!(
                "{SELECT} WHERE image_key = ?1 AND kind >= 4 AND operation.key < ?2
                 ORDER BY operation.key DESC LIMIT ?3"
            ))?;
            let operations = statement
                .query_map(params![image.id.key, before, limit as i64], from_row)?
                .collect::<rusqlite::Result<_>>()?;
            Ok(operations)
        })
        .await
    }

    /// Forgets operations that ended longer ago than `age`, with their idempotency keys: at most
    /// `limit` of them; how many they were.
    pub async fn forget_operations(&self, age: std::time::Duration, limit: usize) -> Result<usize> {
        self.write(move |transaction, store| {
            let before = store.now().before(age);
            // An operation that was made later cannot have ended earlier.
            Ok(transaction
                .prepare_cached(
                    "DELETE FROM operations WHERE key IN (
                         SELECT key FROM operations
                         WHERE key < ?1 AND phase >= 3 AND modified_at < ?2
                         ORDER BY key LIMIT ?3)",
                )?
                .execute(params![Id::first_key(before), before.0, limit as i64])?)
        })
        .await
    }
}

/// The id of an operation.
pub(super) fn parse_id(id: &str) -> Result<Id> {
    Id::parse(OPERATION_PREFIX, id).ok_or_else(|| Error::OperationNotFound { id: id.to_owned() })
}

/// The first operation under the same idempotency key, in its present state, if there is one.
pub(super) fn repeated(
    transaction: &Transaction<'_>,
    accept: &Accept,
) -> Result<Option<Operation>> {
    let Some(idempotency) = &accept.idempotency else {
        return Ok(None);
    };
    if transaction.done.borrow().holds(idempotency) {
        done::write(transaction)?;
    }
    let first: Option<(Id, Vec<u8>)> = transaction
        .prepare_cached(
            "SELECT key, id_rest, request_hash FROM operations
             WHERE idempotency_key = ?1 AND subject = ?2",
        )?
        .query_row(params![idempotency.key, accept.subject], |row| {
            Ok((id_from_row(row)?, row.get(2)?))
        })
        .optional()?;
    match first {
        None => Ok(None),
        Some((id, hash)) if hash == idempotency.request_hash => Ok(Some(get(transaction, id)?)),
        Some(_) => Err(Error::IdempotencyKeyReused),
    }
}

/// What a new operation starts with.
pub(super) enum New<'a> {
    /// A worker has to do it, from then on.
    Queued { change: &'a Change, at: Timestamp },
    /// All was done in the accepting transaction; the resource in JSON, if one is left.
    Done(Option<String>),
}

/// Adds the operation of a change made in the same transaction, with its audit event. One that is done
/// waits to be written (`done`).
pub(super) fn insert(
    transaction: &Transaction<'_>,
    store: &Store,
    accept: &Accept,
    kind: Kind,
    (folder_key, folder_id): (i64, &str),
    (image, changes): (Id, &[FieldChange]),
    new: New<'_>,
) -> Result<Operation> {
    let id = store.new_id();
    let now = store.now();
    let modified_at = Timestamp(now.0.max(id.created_at().0));
    let (transfer, outcome) = match new {
        New::Queued { change, at } => {
            transaction
                .prepare_cached(
                    "INSERT INTO operations (key, id_rest, kind, phase, folder_key, image_key,
                         image_id_rest, subject, request_id, idempotency_key, request_hash,
                         modified_at, claimable_at, task, upload)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)",
                )?
                .execute(params![
                    id.key,
                    id.rest,
                    kind as i64,
                    Phase::Queued as i64,
                    folder_key,
                    image.key,
                    image.rest,
                    accept.subject,
                    accept.request_id,
                    accept.idempotency.as_ref().map(|i| i.key),
                    accept.idempotency.as_ref().map(|i| i.request_hash),
                    modified_at.0,
                    at.0,
                    serde_json::to_string(change)?,
                    uploads::at_first(accept, change),
                ])?;
            let about = About {
                operation: id,
                kind: AuditKind::Operation(kind),
                subject: &accept.subject,
                request_id: &accept.request_id,
                folder_key,
                image,
                changes,
            };
            audit::record(transaction, now, &about, Step::Started)?;
            (change.transfer(), None)
        }
        New::Done(response) => {
            transaction.done.borrow_mut().push(Done {
                id,
                kind: kind as i64,
                folder_key,
                image,
                subject: accept.subject.clone(),
                request_id: accept.request_id.clone(),
                idempotency_key: accept.idempotency.as_ref().map(|i| i.key),
                request_hash: accept.idempotency.as_ref().map(|i| i.request_hash),
                recorded_at: now,
                modified_at,
                response: response.clone(),
                changes: audit::changes_column(changes)?,
            });
            (None, Some(Outcome::Succeeded(response)))
        }
    };
    Ok(Operation {
        id: id.text(OPERATION_PREFIX),
        kind,
        folder_id: folder_id.to_owned(),
        image_id: image.text(image_prefix(kind)),
        created_at: id.created_at(),
        created_by: accept.subject.clone(),
        modified_at,
        attempt: 0,
        progress: Progress::default(),
        transfer,
        outcome,
    })
}

/// The state of an operation and the token of the last lease.
pub(super) fn state(transaction: &Transaction<'_>, key: i64) -> Result<Option<(State, i64)>> {
    Ok(transaction
        .prepare_cached(
            "SELECT phase, cancel_requested, coalesce(lease_token, 0) FROM operations
             WHERE key = ?1",
        )?
        .query_row([key], |row| {
            let state = State {
                phase: phase(row.get(0)?)?,
                cancel_requested: row.get(1)?,
            };
            Ok((state, row.get(2)?))
        })
        .optional()?)
}

/// Why the state does not admit an event, in the words of the store.
pub(super) fn refusal(refused: Refused, id: &str) -> Error {
    let id = id.to_owned();
    match refused {
        Refused::Cancelled => Error::CancelRequested { id },
        Refused::Done | Refused::OutOfTurn => Error::LeaseLost { id },
    }
}

/// The state of an operation after an event that the holder of a lease brings. Refuses a worker
/// whose operation has ended or was claimed by another since.
pub(super) fn advance(
    transaction: &Transaction<'_>,
    lease: &crate::model::Lease,
    event: Event,
) -> Result<State> {
    match state(transaction, lease.key)? {
        Some((state, token)) if token == lease.token => state
            .after(event)
            .map_err(|refused| refusal(refused, &lease.operation_id)),
        _ => Err(Error::LeaseLost {
            id: lease.operation_id.clone(),
        }),
    }
}

/// Ends an operation, with its audit event, which names the fields that were changed. The caller has
/// advanced its state.
pub(super) fn end(
    transaction: &Transaction<'_>,
    store: &Store,
    key: i64,
    outcome: Outcome,
    changes: &[FieldChange],
) -> Result<Operation> {
    let now = store.now();
    let (phase, response, failure) = match &outcome {
        Outcome::Succeeded(response) => (Phase::Succeeded, response.as_deref(), None),
        Outcome::Failed(failure) => (Phase::Failed, None, Some(failure)),
    };
    transaction
        .prepare_cached(
            "UPDATE operations SET phase = :phase, lease_token = NULL, claimable_at = NULL,
                    task = NULL, modified_at = max(modified_at, :now), response = :response,
                    error_reason = :reason, error_message = :message, error_subject = :subject,
                    error_quota = :quota,
                    idempotency_key = iif(upload BETWEEN 1 AND :frees, NULL, idempotency_key),
                    request_hash = iif(upload BETWEEN 1 AND :frees, NULL, request_hash)
             WHERE key = :key",
        )?
        .execute(named_params! {
            ":key": key,
            ":phase": phase as i64,
            ":now": now.0,
            ":response": response,
            ":reason": failure.map(|failure| failure.reason.as_str()),
            ":message": failure.map(|failure| failure.message.as_str()),
            ":subject": failure.and_then(|failure| failure.subject.as_deref()),
            ":frees": failure.map_or(0, uploads::frees_key),
            ":quota": failure.map(quota_column).transpose()?.flatten(),
        })?;
    let (rest, kind, subject, request_id, folder_key, image) = transaction
        .prepare_cached(
            "SELECT id_rest, kind, subject, request_id, folder_key, image_key, image_id_rest
             FROM operations WHERE key = ?1",
        )?
        .query_row([key], |row| {
            Ok((
                row.get(0)?,
                self::kind(row.get(1)?)?,
                row.get::<_, String>(2)?,
                row.get::<_, String>(3)?,
                row.get(4)?,
                Id {
                    key: row.get(5)?,
                    rest: row.get(6)?,
                },
            ))
        })?;
    let operation = Id { key, rest };
    let about = About {
        operation,
        kind: AuditKind::Operation(kind),
        subject: &subject,
        request_id: &request_id,
        folder_key,
        image,
        changes,
    };
    let step = match &outcome {
        Outcome::Succeeded(_) => Step::Done,
        Outcome::Failed(failure) => Step::Failed(failure),
    };
    audit::record(transaction, now, &about, step)?;
    get(transaction, operation)
}

pub(super) fn get(transaction: &Transaction<'_>, id: Id) -> Result<Operation> {
    transaction
        .prepare_cached(&format!(
            "{SELECT} WHERE operation.key = ?1 AND id_rest = ?2"
        ))?
        .query_row([id.key, id.rest], from_row)
        .optional()?
        .ok_or_else(|| Error::OperationNotFound {
            id: id.text(OPERATION_PREFIX),
        })
}

fn from_row(row: &Row<'_>) -> rusqlite::Result<Operation> {
    let kind = kind(row.get("kind")?)?;
    let outcome = match phase(row.get("phase")?)? {
        Phase::Succeeded => Some(Outcome::Succeeded(row.get("response")?)),
        // What it failed of so far is not told before it has ended.
        Phase::Failed => failure(row)?.map(Outcome::Failed),
        Phase::Queued | Phase::Running | Phase::Undoing => None,
    };
    let id = id_from_row(row)?;
    let image = Id {
        key: row.get("image_key")?,
        rest: row.get("image_id_rest")?,
    };
    let progress_total: Option<i64> = row.get("progress_total")?;
    let task: Option<String> = row.get("task")?;
    // One that only a later version understands is not for this one to describe.
    let change: Option<Change> = task.and_then(|task| serde_json::from_str(&task).ok());
    Ok(Operation {
        id: id.text(OPERATION_PREFIX),
        kind,
        folder_id: row.get("folder_id")?,
        image_id: image.text(image_prefix(kind)),
        created_at: id.created_at(),
        created_by: row.get("subject")?,
        modified_at: Timestamp(row.get("modified_at")?),
        attempt: row.get("attempt")?,
        progress: Progress {
            done: unsigned(row.get("progress_done")?),
            total: progress_total.map(unsigned),
        },
        transfer: change.and_then(|change| change.transfer()),
        outcome,
    })
}

/// The column of the limit that stood in the way.
pub(super) fn quota_column(failure: &Failure) -> Result<Option<String>> {
    let text = failure.quota.as_ref().map(serde_json::to_string);
    Ok(text.transpose()?)
}

/// The failure that a row holds.
pub(super) fn failure(row: &Row<'_>) -> rusqlite::Result<Option<Failure>> {
    let reason: Option<String> = row.get("error_reason")?;
    let Some(reason) = reason else {
        return Ok(None);
    };
    let quota: Option<String> = row.get("error_quota")?;
    Ok(Some(Failure {
        subject: row.get("error_subject")?,
        quota: quota.map(|quota| from_json(&quota)).transpose()?,
        ..Failure::new(
            Reason::from_name(&reason),
            row.get::<_, String>("error_message")?,
        )
    }))
}

fn id_from_row(row: &Row<'_>) -> rusqlite::Result<Id> {
    Ok(Id {
        key: row.get("key")?,
        rest: row.get("id_rest")?,
    })
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

pub(super) fn kind(number: i64) -> rusqlite::Result<Kind> {
    Kind::from_number(number).ok_or_else(|| unreadable(format!("operation kind {number}")))
}

pub(super) fn phase(number: i64) -> rusqlite::Result<Phase> {
    Phase::from_number(number).ok_or_else(|| unreadable(format!("phase {number}")))
}
