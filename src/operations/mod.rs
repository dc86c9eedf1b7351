//! Knows how accepted operations are brought to their end: claimed, run, rescheduled, cancelled, rolled back.
//! Never mentions what an operation does, nor how it is asked for.

mod engine;
mod retry;
mod run;
mod watchers;

pub use engine::{Ended, Engine, Settings, Worker};
pub use run::{ProgressCounter, Run};
