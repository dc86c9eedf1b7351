//! The engine of operations. Knows how an accepted operation is claimed, run under a lease, rescheduled, cancelled and
//! rolled back. Never mentions what an operation does, or how a caller asked for it.

mod engine;
mod retry;
mod run;
mod watchers;
mod worker;

pub(crate) use engine::Engine;
pub(crate) use run::{ProgressCounter, Run};
pub use worker::Settings;
pub(crate) use worker::{Ended, Worker};
