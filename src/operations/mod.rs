//! Knows how accepted operations are brought to their end: claimed, run, put off, cancelled, undone.
//! Never mentions what an operation does, nor how it is asked for.

mod engine;
mod model;
mod retry;
mod run;
mod state;
mod watchers;

pub use engine::{Ended, Engine, Settings, Worker};
pub use model::{Failure, Kind, Operation, Outcome, Progress, ReachedQuota, Reason, Transfer};
pub use run::{ProgressCounter, Run};
pub use state::{Event, Phase, Refused, State};
