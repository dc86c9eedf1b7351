//! Faults by which tests make a step of a worker fail, hang or end the process. Nothing of them is left in a
//! build for use.

/// The steps of an import, in their order; other changes have the last one only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Step {
    /// The file is made.
    Create,
    /// The bytes are written.
    Write,
    /// File and folder are on the disk.
    Seal,
    /// The format is looked at.
    Inspect,
    /// Blob, image and operation change together.
    Complete,
}

#[cfg(not(test))]
mod none {
    use super::Step;
    use crate::model::Failure;

    /// No faults.
    #[derive(Clone)]
    pub(crate) struct Faults;

    impl Faults {
        pub(crate) fn none() -> Self {
            Self
        }

        pub(crate) async fn before(&self, _: Step) -> Result<(), Failure> {
            Ok(())
        }

        pub(crate) async fn after(&self, _: Step) -> Result<(), Failure> {
            Ok(())
        }

        pub(crate) async fn rolled_back(&self) {}
    }
}
#[cfg(not(test))]
pub(super) use none::Faults;

#[cfg(test)]
pub(super) use injected::{Fault, Faults, Place};

#[cfg(test)]
mod injected {
    use std::collections::HashMap;
    use std::sync::{Arc, Mutex};

    use tokio::sync::Notify;

    use super::Step;
    use crate::model::Failure;

    /// The moment at which a fault is met.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub(crate) enum Place {
        Before(Step),
        After(Step),
        RolledBack,
    }

    #[derive(Debug, Clone)]
    pub(crate) enum Fault {
        Fail(Failure),
        /// Goes no further, as a process does that is about to be killed.
        Hang,
    }

    /// Faults that are met in turn, each once.
    #[derive(Clone, Default)]
    pub(crate) struct Faults {
        planned: Arc<Mutex<HashMap<Place, Vec<Fault>>>>,
        hangs: Arc<Notify>,
    }

    impl Faults {
        pub(crate) fn none() -> Self {
            Self::default()
        }

        pub(crate) fn plan(&self, place: Place, fault: Fault) {
            let mut planned = self.planned.lock().unwrap();
            planned.entry(place).or_default().push(fault);
        }

        /// Whether all that was planned has been met.
        pub(crate) fn are_over(&self) -> bool {
            self.planned.lock().unwrap().values().all(Vec::is_empty)
        }

        /// Returns once something hangs.
        pub(crate) async fn hanging(&self) {
            self.hangs.notified().await;
        }

        pub(crate) async fn before(&self, step: Step) -> Result<(), Failure> {
            self.meet(Place::Before(step)).await
        }

        pub(crate) async fn after(&self, step: Step) -> Result<(), Failure> {
            self.meet(Place::After(step)).await
        }

        pub(crate) async fn rolled_back(&self) {
            // Only a hang makes a difference there.
            let _ = self.meet(Place::RolledBack).await;
        }

        async fn meet(&self, place: Place) -> Result<(), Failure> {
            let fault = self
                .planned
                .lock()
                .unwrap()
                .get_mut(&place)
                .and_then(|faults| (!faults.is_empty()).then(|| faults.remove(0)));
            match fault {
                None => Ok(()),
                Some(Fault::Fail(failure)) => Err(failure),
                Some(Fault::Hang) => {
                    self.hangs.notify_one();
                    std::future::pending().await
                }
            }
        }
    }
}
