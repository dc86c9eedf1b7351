//! Cancelling an operation: noted in its row; from then on it cannot succeed.

use super::draft::Draft;
use super::operations::refusal;
use crate::model::{
    AuditKind, AuditRow, AuditStep, CancelRequested, Candidate, Command, Decision, Effect, Event,
    Fresh, Id, Lookup, OPERATION_PREFIX, OperationRow, Phase, Refusal, Refused, RequestContext,
    Role, Timestamp, WorkingSet,
};

/// Notes that an operation is to be cancelled; the reply has it as it was. One that waits may be claimed at
/// once, for that; one that has ended stays as it is. The first who asks is in an audit event: the operation itself
/// names who began it.
#[derive(Debug, Clone)]
pub(crate) struct RequestCancel {
    pub request: RequestContext,
    pub operation_id: String,
}

impl RequestCancel {
    fn id(&self) -> Option<Id> {
        Id::parse(OPERATION_PREFIX, &self.operation_id)
    }

    fn event(&self, row: &OperationRow, now: Timestamp) -> AuditRow {
        AuditRow {
            time: now,
            step: AuditStep::StartedAndDone,
            kind: AuditKind::Cancel(row.kind),
            subject: self.request.subject.clone(),
            request_id: self.request.request_id.clone(),
            peer: self.request.peer_text(),
            folder_id: row.folder_id.clone(),
            operation: Some(row.id),
            image: Some(row.image),
            message: None,
            changes: Vec::new(),
        }
    }
}

impl Command for RequestCancel {
    type Reply = CancelRequested;

    fn request(&self) -> Option<&RequestContext> {
        Some(&self.request)
    }

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
        let missing = || Refusal::OperationNotFound {
            id: self.operation_id.clone(),
        };
        let row = row.ok_or_else(missing)?;
        let rights = &self.request.rights;
        rights.demand_of(Role::Editor, &row.folder_id, missing)?;
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
        if state != row.state {
            draft.add(Effect::InsertAuditEvent(self.event(row, now)));
        }
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
