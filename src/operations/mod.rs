//! The engine of operations. Knows how an accepted operation is claimed, run under a lease, rescheduled, cancelled and
//! rolled back. Never mentions what an operation does, or how a caller asked for it.

mod engine;
mod retry;
mod run;
mod watchers;

pub use engine::Settings;
pub(crate) use engine::{Ended, Engine, Worker};
pub(crate) use run::{ProgressCounter, Run};
