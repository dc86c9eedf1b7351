//! Workers: what carries out an operation, and the settings by which operations run.

use std::time::Duration;

use async_trait::async_trait;

use super::Run;
use crate::model::{Failure, Lease, Operation};

/// Settings of the engine.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The number of operations that run at the same time, at least one. One folder never has all slots.
    pub concurrency: usize,
    /// How long a worker may be silent before another takes over.
    pub lease: Duration,
    /// How long every operation takes at least, for those who test programs that wait.
    pub simulated_latency: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            concurrency: 4,
            lease: Duration::from_secs(10),
            simulated_latency: Duration::ZERO,
        }
    }
}

/// The work of an operation once it is claimed.
#[async_trait]
pub(crate) trait Worker: Send + Sync + 'static {
    /// Does the change of the lease, and ends the operation in the store where it succeeds. Stops
    /// early, with any failure, when the run is to stop. May be called again for the same
    /// operation, with another lease. Dropping the future must stop the work too.
    async fn run(&self, run: &Run) -> Ended;

    /// Removes what a run made outside of the store, as far as it can. May be called again.
    async fn roll_back(&self, lease: &Lease);
}

/// The end of a run.
pub(crate) type Ended = std::result::Result<Operation, Failure>;
