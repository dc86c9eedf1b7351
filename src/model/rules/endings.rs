//! Endings of operations: the image that an operation left becomes visible in the transaction that ends it.

use super::draft::Draft;
use super::operations::{advance, discard_pending, end, told};
use super::{changes, claims, compute_images, quotas};
use crate::model::{
    BlobFacts, Command, Decision, Effect, Event, Failure, Fresh, Lease, Lookup, Operation, Outcome,
    Phase, Refusal, Room, Timestamp, WorkingSet,
};

/// The lookups that every command of a lease holder has.
fn lookups(lease: &Lease) -> Vec<Lookup> {
    vec![Lookup::Operation(lease.id), Lookup::PendingBlobs(lease.id)]
}

/// Ends a claimed change of rows in success.
#[derive(Debug, Clone)]
pub(crate) struct Complete(pub Lease);

impl Command for Complete {
    type Reply = Operation;

    fn lookups(&self) -> Vec<Lookup> {
        let mut all = lookups(&self.0);
        all.extend(changes::lookups(&self.0.change));
        all
    }

    fn rows(&self, found: &WorkingSet) -> Vec<Lookup> {
        let mut rows = changes::rows(&self.0.change, found);
        if let Some(row) = found.operation(self.0.id) {
            rows.push(changes::image_lookup(row.kind, row.image));
        }
        rows
    }

    fn decide(
        &self,
        fresh: &Fresh,
        facts: &WorkingSet,
        now: Timestamp,
    ) -> Result<Decision<Operation>, Refusal> {
        let Self(lease) = self;
        let mut draft = Draft::new(fresh, facts, now);
        let row = advance(&draft, lease, Event::Completed)?;
        let applied = changes::complete(&mut draft, &lease.change, &lease.image_id)?;
        let outcome = Outcome::Succeeded(applied.resource);
        let operation = end(&mut draft, row, outcome, applied.changes);
        draft.decide(operation)
    }
}

/// Ends an import in success: the blob is live, the image READY and the operation done in one transaction,
/// which checks the lease. An equal live blob keeps its row, to which images refer, and gets the name of the new
/// file; the old file gets a tombstone.
#[derive(Debug, Clone)]
pub(crate) struct CompleteImport {
    pub lease: Lease,
    pub facts: BlobFacts,
    /// Kept for those who read the blob, as they are.
    pub checksums: Vec<u8>,
}

impl Command for CompleteImport {
    type Reply = Operation;

    fn room(&self) -> Room {
        Room::GoesOn
    }

    fn lookups(&self) -> Vec<Lookup> {
        let mut all = lookups(&self.lease);
        all.extend(compute_images::lookup(&self.lease.image_id));
        all.push(Lookup::Digest(self.facts.sha256));
        all.extend(quotas::lookups(&self.lease.folder_id));
        all
    }

    fn decide(
        &self,
        fresh: &Fresh,
        facts: &WorkingSet,
        now: Timestamp,
    ) -> Result<Decision<Operation>, Refusal> {
        let mut draft = Draft::new(fresh, facts, now);
        let row = advance(&draft, &self.lease, Event::Completed)?;
        let applied =
            compute_images::publish(&mut draft, &self.lease, &self.facts, &self.checksums)?;
        let outcome = Outcome::Succeeded(applied.resource);
        let operation = end(&mut draft, row, outcome, Vec::new());
        draft.decide(operation)
    }
}

/// Notes the failure of a claimed operation, so that the next worker goes on with the rollback. Callers do
/// not see it before [`RolledBack`]. The reply is the lease as it now is.
#[derive(Debug, Clone)]
pub(crate) struct StartRollback {
    pub lease: Lease,
    pub failure: Failure,
}

impl Command for StartRollback {
    type Reply = Lease;

    fn lookups(&self) -> Vec<Lookup> {
        vec![Lookup::Operation(self.lease.id)]
    }

    fn decide(
        &self,
        fresh: &Fresh,
        facts: &WorkingSet,
        now: Timestamp,
    ) -> Result<Decision<Lease>, Refusal> {
        let mut draft = Draft::new(fresh, facts, now);
        let mut row = advance(&draft, &self.lease, Event::RollbackStarted)?;
        let failure = told(row.state, &self.failure);
        row.modified_at = row.modified_at.max(now);
        row.failure = Some(failure.clone());
        let phase = row.state.phase;
        draft.add(Effect::UpdateOperation(Box::new(row)));
        draft.decide(Lease {
            phase,
            failure: Some(failure),
            ..self.lease.clone()
        })
    }
}

/// Ends an operation in failure: the rows that it made are gone in the same transaction. The bytes are removed
/// already, as far as could be.
#[derive(Debug, Clone)]
pub(crate) struct RolledBack {
    pub lease: Lease,
    pub failure: Failure,
}

impl Command for RolledBack {
    type Reply = Operation;

    fn lookups(&self) -> Vec<Lookup> {
        lookups(&self.lease)
    }

    fn rows(&self, found: &WorkingSet) -> Vec<Lookup> {
        let row = found.operation(self.lease.id);
        row.map(claims::rollback_rows).unwrap_or_default()
    }

    fn decide(
        &self,
        fresh: &Fresh,
        facts: &WorkingSet,
        now: Timestamp,
    ) -> Result<Decision<Operation>, Refusal> {
        let mut draft = Draft::new(fresh, facts, now);
        // Where even `StartRollback` found no room, this is both.
        let (row, failure) = if self.lease.phase == Phase::RollingBack {
            let row = advance(&draft, &self.lease, Event::RolledBack)?;
            (row, self.failure.clone())
        } else {
            let row = advance(&draft, &self.lease, Event::RollbackStarted)?;
            let failure = told(row.state, &self.failure);
            (row, failure)
        };
        discard_pending(&mut draft, &row);
        changes::roll_back(&mut draft, &row)?;
        let operation = end(&mut draft, row, Outcome::Failed(failure), Vec::new());
        draft.decide(operation)
    }
}
