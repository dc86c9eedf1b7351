//! Rules of leases: who works on an operation, for how long, and how it is given back.
//!
//! A lease goes by the store's clock. A time further ahead than any lease or pause can reach was
//! written before the clock was set back; it counts as past.

use std::time::Duration;

use super::draft::Draft;
use super::operations::{advance, after, discard_pending, end, held};
use super::{changes, quotas};
use crate::model::{
    BlobRow, BlobState, Candidate, Change, Claimed, Command, Decision, Effect, Event, Failure,
    Fresh, Id, Lease, Lookup, OperationRow, Outcome, Phase, Progress, Reason, Refusal, Renewed,
    Room, Task, Timestamp, WorkingSet, is_due,
};

const BLOB_PREFIX: &str = "cnt";

/// Claims an operation whose turn has come for a new attempt, with a blob of its own where it brings one. What
/// the attempt before wrote is put among the tombstones.
#[derive(Debug, Clone)]
pub(crate) struct Claim {
    pub candidate: Candidate,
    pub lease: Duration,
    /// How far ahead a time of the queue can be.
    pub horizon: Duration,
}

impl Command for Claim {
    type Reply = Claimed;

    fn lookups(&self) -> Vec<Lookup> {
        vec![
            Lookup::Operation(self.candidate.id),
            Lookup::PendingBlobs(self.candidate.id),
        ]
    }

    fn rows(&self, found: &WorkingSet) -> Vec<Lookup> {
        match found.operation(self.candidate.id) {
            // Only what is rolled back at once touches the image.
            Some(row) if matches!(row.task, Task::Unknown(_)) => rollback_rows(row),
            _ => Vec::new(),
        }
    }

    fn decide(
        &self,
        fresh: &Fresh,
        facts: &WorkingSet,
        now: Timestamp,
    ) -> Result<Decision<Claimed>, Refusal> {
        let mut draft = Draft::new(fresh, facts, now);
        let due = |row: &&OperationRow| {
            let at = row.claimable_at;
            at.is_some_and(|at| is_due(at, now, self.horizon))
        };
        let Some(row) = facts.operation(self.candidate.id).filter(due) else {
            return draft.decide(Claimed::Gone);
        };
        let discarded = discard_pending(&mut draft, row);
        let mut row = row.clone();
        let Task::Known(change) = row.task.clone() else {
            row.state = after(&row, Event::Claimed)?;
            changes::roll_back(&mut draft, &row)?;
            let message = "What it has to do is not known to this version of the server";
            let failure = Failure::new(Reason::Internal, message);
            let operation = end(&mut draft, row, Outcome::Failed(failure), Vec::new());
            return draft.decide(Claimed::Ended(Box::new(operation)));
        };
        let taken = take(&mut row, &change, fresh, now, self.lease, discarded)?;
        draft.add(Effect::UpdateOperation(Box::new(row)));
        draft.effects.extend(taken.blob.map(Effect::InsertBlob));
        draft.decide(Claimed::Lease(Box::new(taken.lease)))
    }
}

/// The lookups of the rollback of an operation.
pub(super) fn rollback_rows(row: &OperationRow) -> Vec<Lookup> {
    let mut rows = quotas::lookups(&row.folder_id);
    rows.push(changes::image_lookup(row.kind, row.image));
    rows.push(Lookup::PendingBlobs(row.id));
    rows
}

/// An operation that was claimed.
pub(super) struct Taken {
    pub(super) lease: Lease,
    /// The blob that the attempt writes.
    pub(super) blob: Option<BlobRow>,
}

/// Takes an operation that has not ended, away from the worker that had it.
pub(super) fn take(
    row: &mut OperationRow,
    change: &Change,
    fresh: &Fresh,
    now: Timestamp,
    length: Duration,
    discarded: Vec<String>,
) -> Result<Taken, Refusal> {
    row.state = after(row, Event::Claimed)?;
    let is_running = row.state.phase == Phase::Running;
    if is_running {
        row.attempt += 1;
    }
    row.lease_token = Some(fresh.token);
    row.claimable_at = Some(now.after(length));
    row.modified_at = row.modified_at.max(now);
    row.progress = Progress::default();
    let blob = (is_running && change.brings_bytes()).then(|| BlobRow {
        id: fresh.blob,
        file: fresh.blob.text(BLOB_PREFIX),
        state: BlobState::Pending { operation: row.id },
        damaged: false,
    });
    let lease = Lease {
        id: row.id,
        operation_id: row.text_id(),
        image_id: row.image_id(),
        folder_id: row.folder_id.clone(),
        request_id: row.request_id.clone(),
        phase: row.state.phase,
        change: change.clone(),
        blob_id: blob
            .as_ref()
            .map_or_else(String::new, |blob| blob.file.clone()),
        discarded,
        key_is_free: row.upload_key == crate::model::UploadKey::Arrives,
        attempt: row.attempt,
        cancel_requested: row.state.cancel_requested,
        failure: row.failure.clone(),
        token: fresh.token,
    };
    Ok(Taken { lease, blob })
}

/// Holds on to an operation for another `length`, and tells how far it is.
#[derive(Debug, Clone)]
pub(crate) struct Renew {
    pub id: Id,
    pub operation_id: String,
    pub token: i64,
    pub length: Duration,
    pub progress: Progress,
}

impl Renew {
    pub(crate) fn new(lease: &Lease, length: Duration, progress: Progress) -> Self {
        Self {
            id: lease.id,
            operation_id: lease.operation_id.clone(),
            token: lease.token,
            length,
            progress,
        }
    }
}

impl Command for Renew {
    type Reply = Renewed;

    fn room(&self) -> Room {
        Room::GoesOn
    }

    fn lookups(&self) -> Vec<Lookup> {
        vec![Lookup::Operation(self.id)]
    }

    fn decide(
        &self,
        fresh: &Fresh,
        facts: &WorkingSet,
        now: Timestamp,
    ) -> Result<Decision<Renewed>, Refusal> {
        let mut draft = Draft::new(fresh, facts, now);
        let row = facts.operation(self.id);
        let row = row.filter(|row| row.lease_token == Some(self.token));
        let row = row.ok_or_else(|| Refusal::LeaseLost {
            id: self.operation_id.clone(),
        })?;
        let mut row = row.clone();
        row.claimable_at = Some(now.after(self.length));
        // Only progress is a change of the operation.
        if row.progress != self.progress {
            row.modified_at = row.modified_at.max(now);
            row.progress = self.progress;
        }
        let cancel_requested = row.state.cancel_requested;
        draft.add(Effect::UpdateOperation(Box::new(row)));
        draft.decide(Renewed { cancel_requested })
    }
}

/// Gives an operation back, as one that was never claimed: the worker has to stop.
#[derive(Debug, Clone)]
pub(crate) struct Release(pub Lease);

impl Command for Release {
    type Reply = ();

    fn lookups(&self) -> Vec<Lookup> {
        vec![
            Lookup::Operation(self.0.id),
            Lookup::PendingBlobs(self.0.id),
        ]
    }

    fn decide(
        &self,
        fresh: &Fresh,
        facts: &WorkingSet,
        now: Timestamp,
    ) -> Result<Decision<()>, Refusal> {
        let mut draft = Draft::new(fresh, facts, now);
        let mut row = advance(&draft, &self.0, Event::Rescheduled)?;
        discard_pending(&mut draft, &row);
        row.lease_token = None;
        row.claimable_at = Some(now);
        // A rollback does not count as an attempt.
        if self.0.phase == Phase::Running {
            row.attempt = (row.attempt - 1).max(0);
        }
        row.progress = Progress::default();
        draft.add(Effect::UpdateOperation(Box::new(row)));
        draft.decide(())
    }
}

/// Reschedules an operation for another attempt after `pause`, unless that is after the time that retries have:
/// `patience` from the first failure. What the attempt wrote is put among the tombstones. The reply is whether
/// there will be another attempt.
#[derive(Debug, Clone)]
pub(crate) struct Retry {
    pub lease: Lease,
    pub failure: Failure,
    pub pause: Duration,
    pub patience: Duration,
}

impl Command for Retry {
    type Reply = bool;

    fn room(&self) -> Room {
        Room::GoesOn
    }

    fn lookups(&self) -> Vec<Lookup> {
        vec![
            Lookup::Operation(self.lease.id),
            Lookup::PendingBlobs(self.lease.id),
        ]
    }

    fn decide(
        &self,
        fresh: &Fresh,
        facts: &WorkingSet,
        now: Timestamp,
    ) -> Result<Decision<bool>, Refusal> {
        let mut draft = Draft::new(fresh, facts, now);
        held(&draft, &self.lease)?;
        let mut row = advance(&draft, &self.lease, Event::Rescheduled)?;
        let at = now.after(self.pause);
        let until = row.retry_until.unwrap_or_else(|| now.after(self.patience));
        if at > until || row.state.cancel_requested {
            return draft.decide(false);
        }
        discard_pending(&mut draft, &row);
        row.lease_token = None;
        row.claimable_at = Some(at);
        row.retry_until = Some(until);
        row.modified_at = row.modified_at.max(now);
        row.progress = Progress::default();
        row.failure = Some(self.failure.clone());
        draft.add(Effect::UpdateOperation(Box::new(row)));
        draft.decide(true)
    }
}
