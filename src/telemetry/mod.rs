//! The log. Knows what the process logs, and how the process ends without losing a line. Never mentions images,
//! requests or a store.

mod causes;
mod lines;
pub mod log;

pub(crate) use causes::chain;
