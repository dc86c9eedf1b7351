//! A decision in the making.

use crate::model::{Decision, Effect, Fresh, Refusal, Timestamp, WorkingSet};

/// What a decision rests on, and the effects so far.
pub(super) struct Draft<'a> {
    pub(super) facts: &'a WorkingSet,
    pub(super) fresh: &'a Fresh,
    pub(super) now: Timestamp,
    pub(super) effects: Vec<Effect>,
}

impl<'a> Draft<'a> {
    pub(super) fn new(fresh: &'a Fresh, facts: &'a WorkingSet, now: Timestamp) -> Self {
        Self {
            facts,
            fresh,
            now,
            effects: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, effect: Effect) {
        self.effects.push(effect);
    }

    pub(super) fn decide<R>(self, reply: R) -> Result<Decision<R>, Refusal> {
        Ok(Decision {
            reply,
            effects: self.effects,
        })
    }
}
