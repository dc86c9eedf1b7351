//! Knows how accepted operations are brought to their end: claimed, run, put off, cancelled, undone.
//! Never mentions what an operation does, nor how it is asked for.

mod engine;
mod retry;
mod run;
mod watchers;

pub use engine::{Ended, Engine, Settings, Worker};
pub use run::{ProgressCounter, Run};
