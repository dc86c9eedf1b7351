//! Knows how accepted operations are brought to their end: claimed, run, rescheduled, cancelled, rolled back.
//! Never mentions what an operation does, nor how it is asked for.

mod engine;
mod retry;
mod run;
mod watchers;

pub use engine::Settings;
pub(crate) use engine::{Ended, Engine, Worker};
pub(crate) use run::{ProgressCounter, Run};
