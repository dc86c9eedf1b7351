//! Knows how accepted operations are brought to their end: run, cancelled, taken up again.
//! Never mentions what an operation does, nor how it is asked for.

mod engine;
mod model;

pub use engine::{Ended, Engine, Tracked, Worker, cancelled};
pub use model::{Failure, Kind, Operation, Outcome, Reason};
