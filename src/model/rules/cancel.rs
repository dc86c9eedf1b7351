//! Cancelling an operation: noted in its row; from then on it cannot succeed.

use super::draft::Draft;
use super::operations::refusal;
use crate::model::{
    CancelRequested, Candidate, Command, Decision, Effect, Event, Fresh, Id, Lookup,
    OPERATION_PREFIX, OperationRow, Phase, Refusal, Refused, Timestamp, WorkingSet,
};

/// Notes that an operation is to be cancelled; the reply has it as it was. One that waits may be claimed at
/// once, for that; one that has ended stays as it is.
#[derive(Debug, Clone)]
pub(crate) struct RequestCancel {
    pub operation_id: String,
}

impl RequestCancel {
    fn id(&self) -> Option<Id> {
        Id::parse(OPERATION_PREFIX, &self.operation_id)
    }
}

impl Command for RequestCancel {
    type Reply = CancelRequested;

    fn lookups(&self) -> Vec<Lookup> {
        self.id().map(Lookup::Operation).into_iter().collect()
    }

    fn decide(
        &self,
        fresh: &Fresh,
        facts: &WorkingSet,
        now: Timestamp,
    ) -> Result<Decision<CancelRequested>, Refusal> {
        let mut draft = Draft::new(fresh, facts, now);
        let row = self.id().and_then(|id| facts.operation(id));
        let row = row.ok_or_else(|| Refusal::OperationNotFound {
            id: self.operation_id.clone(),
        })?;
        let operation = row.operation();
        let state = match row.state.after(Event::CancelRequested) {
            Ok(state) => state,
            Err(Refused::Done) => {
                return draft.decide(CancelRequested {
                    operation,
                    candidate: None,
                });
            }
            Err(refused) => return Err(refusal(refused, self.operation_id.clone())),
        };
        let candidate = Candidate {
            id: row.id,
            folder_id: row.folder_id.clone(),
        };
        let claimable_at = match row.state.phase {
            Phase::Queued => Some(now),
            _ => row.claimable_at,
        };
        draft.add(Effect::UpdateOperation(Box::new(OperationRow {
            state,
            claimable_at,
            ..row.clone()
        })));
        draft.decide(CancelRequested {
            operation,
            candidate: Some(candidate),
        })
    }
}
