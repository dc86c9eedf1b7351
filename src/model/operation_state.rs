//! The states of an operation as one function of state and event. The rules ask it before each
//! change, so that no other path can be taken.

/// How far an operation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Phase {
    /// Waits for a worker.
    Queued = 0,
    /// A worker does it, or did when it was last heard of.
    Running = 1,
    /// It failed or was cancelled: what it made is being removed.
    RollingBack = 2,
    Succeeded = 3,
    Failed = 4,
}

impl Phase {
    pub(crate) const ALL: [Self; 5] = [
        Self::Queued,
        Self::Running,
        Self::RollingBack,
        Self::Succeeded,
        Self::Failed,
    ];

    /// The phase stored under this number.
    pub(crate) fn from_number(number: i64) -> Option<Self> {
        Self::ALL.into_iter().find(|phase| *phase as i64 == number)
    }

    pub(crate) fn is_done(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed)
    }
}

/// All that decides what may happen next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct State {
    pub phase: Phase,
    pub cancel_requested: bool,
}

/// An event in the life of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Event {
    /// A worker claims it: its turn has come, or the lease of the worker before has run out.
    Claimed,
    /// The worker has done what was asked for.
    Completed,
    /// The worker releases it, to be claimed again later.
    Rescheduled,
    /// It failed, or was cancelled: what it made is to be removed.
    RollbackStarted,
    /// The rows and bytes that the operation made are removed.
    RolledBack,
    /// The caller cancelled it.
    CancelRequested,
}

/// Why an event cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    #[error("the operation has ended")]
    Done,
    #[error("the operation is to be cancelled")]
    Cancelled,
    #[error("no worker has the operation in that phase")]
    OutOfTurn,
}

impl State {
    pub(crate) const NEW: Self = Self {
        phase: Phase::Queued,
        cancel_requested: false,
    };

    /// The state after an event.
    pub(crate) fn after(self, event: Event) -> Result<Self, Refused> {
        use Event as E;
        use Phase as P;
        let phase = match (self.phase, event) {
            (P::Succeeded | P::Failed, _) => return Err(Refused::Done),
            (P::Queued | P::Running, E::CancelRequested) => {
                return Ok(Self {
                    cancel_requested: true,
                    ..self
                });
            }
            // It has failed already, and ends as what it failed of.
            (P::RollingBack, E::CancelRequested) => P::RollingBack,
            (P::Queued | P::Running, E::Claimed) => P::Running,
            (P::RollingBack, E::Claimed) => P::RollingBack,
            (P::Running, E::Completed) if self.cancel_requested => return Err(Refused::Cancelled),
            (P::Running, E::Completed) => P::Succeeded,
            (P::Running, E::Rescheduled) => P::Queued,
            (P::RollingBack, E::Rescheduled) => P::RollingBack,
            (P::Running, E::RollbackStarted) => P::RollingBack,
            (P::RollingBack, E::RolledBack) => P::Failed,
            (P::Queued, E::Completed | E::Rescheduled | E::RollbackStarted | E::RolledBack)
            | (P::Running, E::RolledBack)
            | (P::RollingBack, E::Completed | E::RollbackStarted) => {
                return Err(Refused::OutOfTurn);
            }
        };
        Ok(Self { phase, ..self })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    const EVENTS: [Event; 6] = [
        Event::Claimed,
        Event::Completed,
        Event::Rescheduled,
        Event::RollbackStarted,
        Event::RolledBack,
        Event::CancelRequested,
    ];

    fn states() -> impl Iterator<Item = State> {
        Phase::ALL.into_iter().flat_map(|phase| {
            [false, true].map(|cancel_requested| State {
                phase,
                cancel_requested,
            })
        })
    }

    #[test]
    fn what_has_ended_stays_as_it_is() {
        for state in states().filter(|state| state.phase.is_done()) {
            for event in EVENTS {
                assert_eq!(state.after(event), Err(Refused::Done));
            }
        }
    }

    /// A worker that does what its phase asks for brings every operation to its end.
    #[test]
    fn every_operation_can_end_from_wherever_it_is() {
        for state in states() {
            let mut reached = HashSet::from([state]);
            let mut ended = false;
            let mut open = vec![state];
            while let Some(state) = open.pop() {
                ended |= state.phase.is_done();
                for event in EVENTS {
                    if let Ok(next) = state.after(event)
                        && reached.insert(next)
                    {
                        open.push(next);
                    }
                }
            }
            assert!(ended, "{state:?}");
        }
    }

    #[test]
    fn a_worker_may_be_gone_at_any_moment() {
        for state in states().filter(|state| !state.phase.is_done()) {
            assert!(state.after(Event::Claimed).is_ok(), "{state:?}");
        }
    }

    proptest! {
        #[test]
        fn a_history_keeps_its_promises(
            events in prop::collection::vec(prop::sample::select(&EVENTS[..]), 0..40)
        ) {
            let mut state = State::NEW;
            let (mut failed_to_succeed, mut cancelled, mut ends) = (false, false, 0);
            for event in events {
                let Ok(next) = state.after(event) else { continue };
                if next.phase.is_done() {
                    ends += 1;
                    // Nothing but a rolled-back operation fails, and nothing rolled back succeeds.
                    prop_assert_eq!(next.phase == Phase::Failed, state.phase == Phase::RollingBack);
                }
                failed_to_succeed |= next.phase == Phase::RollingBack;
                cancelled |= next.cancel_requested;
                prop_assert!(!(failed_to_succeed && next.phase == Phase::Succeeded));
                prop_assert!(!(cancelled && next.phase == Phase::Succeeded));
                prop_assert!(next.cancel_requested >= state.cancel_requested);
                state = next;
            }
            prop_assert!(ends <= 1);
        }
    }
}
