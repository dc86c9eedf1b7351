//! Operations: accepted in the transaction that changes the images, claimed under a lease,
//! and ended in the transaction that makes their result visible.

use rusqlite::{OptionalExtension, Row, Transaction, named_params, params};

use super::super::{Error, Result, Timestamp};
use super::{Store, compute_images, contents};
use crate::operations::{Failure, Kind, Operation, Outcome, Reason};

const QUEUED: i64 = 0;
const RUNNING: i64 = 1;
const SUCCEEDED: i64 = 2;
const FAILED: i64 = 3;

const COLUMNS: &str = "id, kind, state, folder_id, image_id, subject, created_at, modified_at,
    response, error_reason, error_message";

/// Who asks for a change, and how a repeat of the request is known.
#[derive(Debug, Clone)]
pub struct Accept {
    pub subject: String,
    pub idempotency: Option<Idempotency>,
}

/// The key that a client sends with each try of one request, and what the request was.
#[derive(Debug, Clone)]
pub struct Idempotency {
    /// A UUID.
    pub key: [u8; 16],
    /// SHA-256 of the method and the canonical request.
    pub request_hash: [u8; 32],
}

/// An accepted change: a new operation, or the first one under the same idempotency key.
#[derive(Debug)]
pub struct Settled {
    pub operation: Operation,
    pub repeated: bool,
}

/// The right to end an operation, as long as no other worker has claimed it since.
#[derive(Debug, Clone)]
pub struct Lease {
    pub operation_id: String,
    pub image_id: String,
    token: i64,
    /// The content that this attempt writes to.
    pub content_id: String,
    /// What there is to do, as it was accepted.
    pub task: String,
    /// Counts the claims of the operation, from 1.
    pub attempt: i64,
    /// Whether it was to be cancelled when it was claimed.
    pub cancel_requested: bool,
}

impl Store {
    /// The operation with this id.
    pub async fn operation(&self, id: &str) -> Result<Operation> {
        let id = id.to_owned();
        self.read(move |transaction| {
            find(transaction, "id = ?1", params![id])?.ok_or(Error::OperationNotFound { id })
        })
        .await
    }

    /// The first operation under the same idempotency key, if there is one.
    pub async fn repeated_operation(&self, accept: &Accept) -> Result<Option<Operation>> {
        let accept = accept.clone();
        self.read(move |transaction| {
            Ok(repeated(transaction, &accept)?.map(|settled| settled.operation))
        })
        .await
    }

    /// Notes that an operation is to be cancelled, and returns it as it is. One that has ended
    /// stays as it is.
    pub async fn request_cancel(&self, id: &str) -> Result<Operation> {
        let id = id.to_owned();
        self.write(move |transaction, _| {
            let operation = get(transaction, &id)?;
            if !operation.is_done() {
                transaction
                    .prepare_cached("UPDATE operations SET cancel_requested = 1 WHERE id = ?1")?
                    .execute([&id])?;
            }
            Ok(operation)
        })
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
            compute_images::find(transaction, &image_id)?;
            let mut statement = transaction.prepare_cached(&format!(
                "SELECT {COLUMNS} FROM operations
                 WHERE image_id = ?1 AND (?2 IS NULL OR id < ?2) ORDER BY id DESC LIMIT ?3"
            ))?;
            let operations = statement
                .query_map(params![image_id, after, limit as i64], from_row)?
                .collect::<rusqlite::Result<_>>()?;
            Ok(operations)
        })
        .await
    }

    /// The ids of the operations that have not ended, the oldest first.
    pub async fn unfinished_operations(&self) -> Result<Vec<String>> {
        self.read(|transaction| {
            let mut statement = transaction
                .prepare_cached("SELECT id FROM operations WHERE state < 2 ORDER BY created_at")?;
            let ids = statement
                .query_map([], |row| row.get(0))?
                .collect::<rusqlite::Result<_>>()?;
            Ok(ids)
        })
        .await
    }

    /// Takes an operation that has not ended, away from whoever had it, for a new attempt with
    /// a content of its own; what the attempt before wrote is put on the deletion list.
    pub async fn claim(&self, operation_id: &str) -> Result<Lease> {
        let operation_id = operation_id.to_owned();
        self.write(move |transaction, store| {
            let row: Option<(String, String, i64, bool)> = transaction
                .prepare_cached(
                    "SELECT image_id, task, attempt, cancel_requested FROM operations
                     WHERE id = ?1 AND state < 2 AND task IS NOT NULL",
                )?
                .query_row([&operation_id], |row| {
                    Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
                })
                .optional()?;
            let Some((image_id, task, attempts, cancel_requested)) = row else {
                return Err(Error::LeaseLost {
                    id: operation_id.clone(),
                });
            };
            let token: i64 = rand::random();
            contents::discard_pending(transaction, store, &operation_id)?;
            transaction
                .prepare_cached(
                    "UPDATE operations SET state = ?2, attempt = attempt + 1, lease_token = ?3,
                            modified_at = ?4
                     WHERE id = ?1",
                )?
                .execute(params![operation_id, RUNNING, token, store.now().0])?;
            let content_id = contents::insert_pending(transaction, store, &operation_id)?;
            Ok(Lease {
                operation_id: operation_id.clone(),
                image_id,
                token,
                content_id,
                task,
                attempt: attempts + 1,
                cancel_requested,
            })
        })
        .await
    }

    /// Ends a claimed operation in failure: what it had made is gone in the same transaction.
    pub async fn fail(&self, lease: &Lease, failure: Failure) -> Result<Operation> {
        let lease = lease.clone();
        self.write(move |transaction, store| {
            check_lease(transaction, &lease)?;
            let image = compute_images::find(transaction, &lease.image_id)?.image;
            contents::discard_pending(transaction, store, &lease.operation_id)?;
            compute_images::delete_row(transaction, store, &image)?;
            transaction
                .prepare_cached(
                    "UPDATE operations SET state = ?2, lease_token = NULL, task = NULL,
                            modified_at = ?3, error_reason = ?4, error_message = ?5
                     WHERE id = ?1",
                )?
                .execute(params![
                    lease.operation_id,
                    FAILED,
                    store.now().0,
                    failure.reason.as_str(),
                    failure.message
                ])?;
            get(transaction, &lease.operation_id)
        })
        .await
    }
}

/// Refuses a worker whose operation has ended or was claimed by another since.
pub(super) fn check_lease(transaction: &Transaction<'_>, lease: &Lease) -> Result<()> {
    let held: bool = transaction
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM operations
                            WHERE id = ?1 AND state = ?2 AND lease_token = ?3)",
        )?
        .query_row(params![lease.operation_id, RUNNING, lease.token], |row| {
            row.get(0)
        })?;
    if held {
        Ok(())
    } else {
        Err(Error::LeaseLost {
            id: lease.operation_id.clone(),
        })
    }
}

/// Ends a claimed operation in success. The caller has checked the lease in this transaction.
pub(super) fn succeed(
    transaction: &Transaction<'_>,
    store: &Store,
    lease: &Lease,
    response: &str,
) -> Result<Operation> {
    transaction
        .prepare_cached(
            "UPDATE operations SET state = ?2, lease_token = NULL, task = NULL, modified_at = ?3,
                    response = ?4
             WHERE id = ?1",
        )?
        .execute(params![
            lease.operation_id,
            SUCCEEDED,
            store.now().0,
            response
        ])?;
    get(transaction, &lease.operation_id)
}

/// The first operation under the same idempotency key, in its present state, if there is one.
pub(super) fn repeated(transaction: &Transaction<'_>, accept: &Accept) -> Result<Option<Settled>> {
    let Some(idempotency) = &accept.idempotency else {
        return Ok(None);
    };
    let first: Option<(String, Option<Vec<u8>>)> = transaction
        .prepare_cached(
            "SELECT id, request_hash FROM operations WHERE subject = ?1 AND idempotency_key = ?2",
        )?
        .query_row(params![accept.subject, idempotency.key], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .optional()?;
    match first {
        None => Ok(None),
        Some((id, hash)) if hash.as_deref() == Some(&idempotency.request_hash) => {
            Ok(Some(Settled {
                operation: get(transaction, &id)?,
                repeated: true,
            }))
        }
        Some(_) => Err(Error::IdempotencyKeyReused),
    }
}

/// What a new operation starts with.
pub(super) enum Start {
    /// A worker has to do this.
    Task(String),
    /// All is done in the accepting transaction; the resource in JSON, if one is left.
    Done(Option<String>),
}

/// Adds the operation of a change made in the same transaction.
pub(super) fn insert(
    transaction: &Transaction<'_>,
    store: &Store,
    accept: &Accept,
    kind: Kind,
    folder_id: &str,
    image_id: &str,
    start: Start,
) -> Result<Settled> {
    let id = store.ids().generate("e3v");
    let now = store.now();
    let (state, task, response) = match start {
        Start::Task(task) => (QUEUED, Some(task), None),
        Start::Done(response) => (SUCCEEDED, None, response),
    };
    transaction
        .prepare_cached(
            "INSERT INTO operations (id, kind, state, folder_id, image_id, subject,
                 idempotency_key, request_hash, created_at, modified_at, task, attempt,
                 cancel_requested, response)
             VALUES (:id, :kind, :state, :folder_id, :image_id, :subject, :idempotency_key,
                 :request_hash, :now, :now, :task, 0, 0, :response)",
        )?
        .execute(named_params! {
            ":id": id,
            ":kind": kind.as_str(),
            ":state": state,
            ":folder_id": folder_id,
            ":image_id": image_id,
            ":subject": accept.subject,
            ":idempotency_key": accept.idempotency.as_ref().map(|i| i.key),
            ":request_hash": accept.idempotency.as_ref().map(|i| i.request_hash),
            ":now": now.0,
            ":task": task,
            ":response": response,
        })?;
    let done = state == SUCCEEDED;
    Ok(Settled {
        operation: Operation {
            id,
            kind,
            folder_id: folder_id.to_owned(),
            image_id: image_id.to_owned(),
            created_at: now,
            created_by: accept.subject.clone(),
            modified_at: now,
            outcome: done.then_some(Outcome::Succeeded(response)),
        },
        repeated: false,
    })
}

fn get(transaction: &Transaction<'_>, id: &str) -> Result<Operation> {
    find(transaction, "id = ?1", params![id])?
        .ok_or_else(|| Error::OperationNotFound { id: id.to_owned() })
}

fn find(
    transaction: &Transaction<'_>,
    condition: &str,
    values: &[&dyn rusqlite::ToSql],
) -> Result<Option<Operation>> {
    Ok(transaction
        .prepare_cached(&format!(
            "SELECT {COLUMNS} FROM operations WHERE {condition}"
        ))?
        .query_row(values, from_row)
        .optional()?)
}

fn from_row(row: &Row<'_>) -> rusqlite::Result<Operation> {
    let kind: String = row.get("kind")?;
    let outcome = match row.get::<_, i64>("state")? {
        SUCCEEDED => Some(Outcome::Succeeded(row.get("response")?)),
        FAILED => {
            let reason: String = row.get("error_reason")?;
            Some(Outcome::Failed(Failure {
                reason: Reason::from_name(&reason).unwrap_or(Reason::Internal),
                message: row.get("error_message")?,
            }))
        }
        _ => None,
    };
    Ok(Operation {
        id: row.get("id")?,
        kind: Kind::from_name(&kind)
            .ok_or_else(|| super::unreadable(format!("operation kind {kind:?}")))?,
        folder_id: row.get("folder_id")?,
        image_id: row.get("image_id")?,
        created_at: Timestamp(row.get("created_at")?),
        created_by: row.get("subject")?,
        modified_at: Timestamp(row.get("modified_at")?),
        outcome,
    })
}
