//! Rules of operation rows: how one begins, who holds it, and how it ends.

use std::time::Duration;

use super::draft::{Applied, Draft};
use crate::model::{
    AuditKind, AuditRow, AuditStep, Change, Effect, Event, Failure, FieldChange, Lease, Operation,
    OperationRow, Outcome, Phase, Progress, Reason, Refusal, RequestContext, State, Task,
    Timestamp, Tombstone, Transfer, UploadKey,
};

/// How long a tombstone remembers what a worker was writing: one that lost its lease without
/// knowing has stopped by then.
const LATE_WRITES: Duration = Duration::from_secs(10 * 60);

/// The beginning of a new operation.
pub(super) enum New<'a> {
    /// A worker has to do it, from then on.
    Queued { change: &'a Change, at: Timestamp },
    /// All was done as it was accepted.
    Done,
}

/// The row of the operation of a change, and its audit event, which is added at once; the row is left to the
/// caller, who may claim it first.
pub(super) fn begin(
    draft: &mut Draft<'_>,
    request: &RequestContext,
    change: &Change,
    applied: Applied,
    new: &New<'_>,
) -> OperationRow {
    let id = draft.fresh.operation;
    let is_upload = change.transfer() == Some(Transfer::Upload);
    let (phase, claimable_at, task, step) = match new {
        New::Queued { change, at } => {
            let task = Task::Known(Box::new((*change).clone()));
            (Phase::Queued, Some(*at), task, AuditStep::Started)
        }
        New::Done => (
            Phase::Succeeded,
            None,
            Task::None,
            AuditStep::StartedAndDone,
        ),
    };
    let row = OperationRow {
        id,
        kind: change.kind(),
        state: State {
            phase,
            ..State::NEW
        },
        folder_id: applied.folder_id,
        image: applied.image,
        subject: request.subject.clone(),
        request_id: request.request_id.clone(),
        idempotency: request.idempotency.clone(),
        upload_key: match &request.idempotency {
            Some(_) if is_upload => UploadKey::Arrives,
            _ => UploadKey::None,
        },
        modified_at: draft.now.max(id.created_at()),
        attempt: 0,
        claimable_at,
        lease_token: None,
        retry_until: None,
        task,
        progress: Progress::default(),
        resource: applied.resource,
        failure: None,
    };
    audit(
        draft,
        &row,
        step,
        None,
        applied.changes,
        request.peer_text(),
    );
    row
}

/// An operation whose lease is held.
///
/// # Errors
/// [`Refusal::LeaseLost`] where it has ended or was claimed by another since.
pub(super) fn held<'a>(draft: &Draft<'a>, lease: &Lease) -> Result<&'a OperationRow, Refusal> {
    let row = draft.facts.operation(lease.id);
    row.filter(|row| row.lease_token == Some(lease.token))
        .ok_or_else(|| Refusal::LeaseLost {
            id: lease.operation_id.clone(),
        })
}

/// The same in the state after an event that the holder of the lease brings.
pub(super) fn advance(
    draft: &Draft<'_>,
    lease: &Lease,
    event: Event,
) -> Result<OperationRow, Refusal> {
    let row = held(draft, lease)?;
    Ok(OperationRow {
        state: after(row, event)?,
        ..row.clone()
    })
}

/// The state of an operation after an event.
pub(super) fn after(row: &OperationRow, event: Event) -> Result<State, Refusal> {
    row.state
        .after(event)
        .map_err(|refused| refusal(refused, row.text_id()))
}

/// Why the state does not admit an event.
pub(super) fn refusal(refused: crate::model::Refused, id: String) -> Refusal {
    use crate::model::Refused;
    match refused {
        Refused::Cancelled => Refusal::CancelRequested { id },
        Refused::Done | Refused::OutOfTurn => Refusal::LeaseLost { id },
    }
}

/// Ends an operation, with its audit event, which names the fields that were changed. The caller has
/// advanced its state.
pub(super) fn end(
    draft: &mut Draft<'_>,
    mut row: OperationRow,
    outcome: Outcome,
    changes: Vec<FieldChange>,
) -> Operation {
    row.lease_token = None;
    row.claimable_at = None;
    row.task = Task::None;
    row.modified_at = row.modified_at.max(draft.now);
    let (step, message) = match outcome {
        Outcome::Succeeded(resource) => {
            row.state.phase = Phase::Succeeded;
            row.resource = resource;
            row.failure = None;
            (AuditStep::Done, None)
        }
        Outcome::Failed(failure) => {
            row.state.phase = Phase::Failed;
            if frees_key(row.upload_key, &failure) {
                row.idempotency = None;
            }
            let told = match failure.reason {
                Reason::Cancelled => (AuditStep::Cancelled, None),
                _ => (AuditStep::Error, Some(failure.message.clone())),
            };
            row.failure = Some(failure);
            told
        }
    };
    audit(draft, &row, step, message, changes, String::new());
    let operation = row.operation();
    draft.add(Effect::UpdateOperation(Box::new(row)));
    operation
}

/// Whether an upload releases its idempotency key when it fails like this. A failure frees the key where the same
/// body could succeed.
pub(super) fn frees_key(key: UploadKey, failure: &Failure) -> bool {
    let greatest = match failure.reason {
        // The image itself was at fault, or its caller gave it up: it would end so again.
        Reason::Invalid | Reason::Cancelled => UploadKey::None,
        // The bytes that came were not those that were sent, or are gone.
        Reason::Aborted
        | Reason::Superseded
        | Reason::OtherDigest
        | Reason::Unauthenticated
        | Reason::PermissionDenied
        | Reason::Unavailable => UploadKey::Taken,
        Reason::NotFound
        | Reason::AlreadyExists
        | Reason::FailedPrecondition
        | Reason::Exhausted
        | Reason::QuotaExceeded
        | Reason::Internal => UploadKey::Arrives,
    };
    key != UploadKey::None && key <= greatest
}

/// The failure that is told: to a caller who has cancelled, that.
pub(super) fn told(state: State, failure: &Failure) -> Failure {
    if state.cancel_requested {
        Failure::cancelled()
    } else {
        failure.clone()
    }
}

/// Puts all blobs that an operation writes among the tombstones; the ids of their bytes.
pub(super) fn discard_pending(draft: &mut Draft<'_>, operation: &OperationRow) -> Vec<String> {
    let forget_after = draft.now.after(LATE_WRITES);
    let mut discarded = Vec::new();
    for blob in draft.facts.pending_blobs(operation.id) {
        draft.effects.push(Effect::DeleteBlob(blob.id));
        draft.effects.push(Effect::InsertTombstone(Tombstone {
            file: blob.file.clone(),
            forget_after,
        }));
        discarded.push(blob.file.clone());
    }
    discarded
}

fn audit(
    draft: &mut Draft<'_>,
    row: &OperationRow,
    step: AuditStep,
    message: Option<String>,
    changes: Vec<FieldChange>,
    peer: String,
) {
    draft.add(Effect::InsertAuditEvent(AuditRow {
        time: draft.now,
        step,
        kind: AuditKind::Operation(row.kind),
        subject: row.subject.clone(),
        request_id: row.request_id.clone(),
        peer,
        folder_id: row.folder_id.clone(),
        operation: Some(row.id),
        image: Some(row.image),
        message,
        changes,
    }));
}
