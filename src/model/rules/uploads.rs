//! Rules of uploads under idempotency keys. A key is tied to one only once its whole body is there: until then
//! a retry takes its place.

use super::accept::key;
use super::draft::Draft;
use super::operations::{discard_pending, end, frees_key, held, refusal};
use super::{changes, claims};
use crate::model::{
    Command, Decision, Effect, Event, Failure, Fresh, Lease, Lookup, OperationRow, Outcome, Phase,
    Refusal, Refused, RequestContext, Room, State, Timestamp, UploadKey, WorkingSet,
};

/// Ties the key of an upload to it: its body was taken whole, and its digest agreed.
#[derive(Debug, Clone)]
pub(crate) struct TieKey(pub Lease);

impl Command for TieKey {
    type Reply = ();

    fn room(&self) -> Room {
        Room::GoesOn
    }

    fn lookups(&self) -> Vec<Lookup> {
        vec![Lookup::Operation(self.0.id)]
    }

    fn decide(
        &self,
        fresh: &Fresh,
        facts: &WorkingSet,
        now: Timestamp,
    ) -> Result<Decision<()>, Refusal> {
        let mut draft = Draft::new(fresh, facts, now);
        let row = held(&draft, &self.0)?;
        if row.upload_key == UploadKey::Arrives {
            draft.add(Effect::UpdateOperation(Box::new(OperationRow {
                upload_key: UploadKey::Taken,
                ..row.clone()
            })));
        }
        draft.decide(())
    }
}

/// Ends the upload to which the key of a request is not tied yet, so that the request can take its place. The
/// reply is the id of that upload: none where there is none, where the key is tied, or will be when it ends.
#[derive(Debug, Clone)]
pub(crate) struct Supersede(pub RequestContext);

impl Command for Supersede {
    type Reply = Option<String>;

    fn request(&self) -> Option<&RequestContext> {
        Some(&self.0)
    }

    fn room(&self) -> Room {
        Room::GoesOn
    }

    fn lookups(&self) -> Vec<Lookup> {
        let key = key(&self.0).map(Lookup::IdempotencyKey);
        key.into_iter().collect()
    }

    fn rows(&self, found: &WorkingSet) -> Vec<Lookup> {
        let row = key(&self.0).and_then(|key| found.operation_of_key(&key));
        row.map(claims::rollback_rows).unwrap_or_default()
    }

    fn decide(
        &self,
        fresh: &Fresh,
        facts: &WorkingSet,
        now: Timestamp,
    ) -> Result<Decision<Option<String>>, Refusal> {
        let mut draft = Draft::new(fresh, facts, now);
        let row = key(&self.0).and_then(|key| facts.operation_of_key(&key));
        let arrives = |row: &&OperationRow| {
            row.upload_key == UploadKey::Arrives && !row.state.phase.is_done()
        };
        let Some(row) = row.filter(arrives) else {
            return draft.decide(None);
        };
        if row.idempotency != self.0.idempotency {
            return Err(Refusal::IdempotencyKeyReused);
        }
        let failure = match (row.state.phase, &row.failure) {
            // It ends as what it failed of.
            (Phase::RollingBack, Some(failure)) => failure.clone(),
            _ if row.state.cancel_requested => return draft.decide(None),
            _ => Failure::superseded(),
        };
        if !frees_key(row.upload_key, &failure) {
            return draft.decide(None);
        }
        let id = row.text_id();
        let state = ended(row.state).map_err(|refused| refusal(refused, id.clone()))?;
        discard_pending(&mut draft, row);
        changes::roll_back(&mut draft, row)?;
        let row = OperationRow {
            state,
            ..row.clone()
        };
        end(&mut draft, row, Outcome::Failed(failure), Vec::new());
        draft.decide(Some(id))
    }
}

/// The way of an operation to its end, for one that is not to succeed.
fn ended(state: State) -> Result<State, Refused> {
    let rolling_back = match state.phase {
        Phase::RollingBack => state,
        _ => state.after(Event::Claimed)?.after(Event::RollbackStarted)?,
    };
    rolling_back.after(Event::RolledBack)
}
