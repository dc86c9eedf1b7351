//! Accepting a change: idempotency key, quotas, images and operation in one decision.

use super::operations::{self, New};
use super::{changes, claims, draft::Draft, permissions};
use crate::model::{
    Accepted, Change, Command, Decision, Effect, Fresh, KeyOf, Lookup, OperationRow, Refusal,
    RequestContext, Room, Start, Timestamp, WorkingSet,
};

/// Accepts a change, unless a request under the same idempotency key was accepted before.
#[derive(Debug, Clone)]
pub(crate) struct Accept {
    pub request: RequestContext,
    pub change: Change,
    pub start: Start,
}

impl Command for Accept {
    type Reply = Accepted;

    fn request(&self) -> Option<&RequestContext> {
        Some(&self.request)
    }

    fn room(&self) -> Room {
        if self.change.makes_room() {
            Room::Frees
        } else {
            Room::Takes
        }
    }

    fn lookups(&self) -> Vec<Lookup> {
        let mut lookups = changes::lookups(&self.change);
        lookups.extend(key(&self.request).map(Lookup::IdempotencyKey));
        lookups
    }

    fn rows(&self, found: &WorkingSet) -> Vec<Lookup> {
        changes::rows(&self.change, found)
    }

    fn decide(
        &self,
        fresh: &Fresh,
        facts: &WorkingSet,
        now: Timestamp,
    ) -> Result<Decision<Accepted>, Refusal> {
        let mut draft = Draft::new(fresh, facts, now);
        let first = key(&self.request).and_then(|key| facts.operation_of_key(&key));
        let same = first.filter(|first| first.idempotency == self.request.idempotency);
        permissions::demand(&self.request.rights, &self.change, same, facts)?;
        if let Some(first) = repeated(&self.request, first)? {
            return draft.decide(Accepted {
                operation: first.operation(),
                repeated: true,
                lease: None,
            });
        }
        let at_once = self.start == Start::Now && !self.change.brings_bytes();
        let (applied, new) = if at_once {
            (changes::apply(&mut draft, &self.change)?, New::Done)
        } else {
            let at = match self.start {
                Start::After(delay) => now.after(delay),
                Start::Now | Start::Here(_) => now,
            };
            let change = &self.change;
            let new = New::Queued { change, at };
            (changes::prepare(&mut draft, change)?, new)
        };
        let mut row = operations::begin(&mut draft, &self.request, &self.change, applied, &new);
        let operation = row.operation();
        let mut blob = None;
        let lease = match self.start {
            Start::Here(length) => {
                let claimed = claims::take(&mut row, &self.change, fresh, now, length, Vec::new())?;
                blob = claimed.blob;
                Some(Box::new(claimed.lease))
            }
            Start::Now | Start::After(_) => None,
        };
        draft.add(Effect::InsertOperation(Box::new(row)));
        draft.effects.extend(blob.map(Effect::InsertBlob));
        draft.decide(Accepted {
            operation,
            repeated: false,
            lease,
        })
    }
}

/// The idempotency key of a request.
pub(super) fn key(request: &RequestContext) -> Option<KeyOf> {
    let idempotency = request.idempotency.as_ref()?;
    Some(KeyOf {
        key: idempotency.key,
        subject: request.subject.clone(),
    })
}

/// The first operation under the key of a request.
///
/// # Errors
/// [`Refusal::IdempotencyKeyReused`] where that was another request.
fn repeated<'a>(
    request: &RequestContext,
    first: Option<&'a OperationRow>,
) -> Result<Option<&'a OperationRow>, Refusal> {
    match first {
        Some(first) if first.idempotency != request.idempotency => {
            Err(Refusal::IdempotencyKeyReused)
        }
        first => Ok(first),
    }
}
