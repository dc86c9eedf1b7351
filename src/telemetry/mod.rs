//! Knows what the process tells of itself: its log, and how it ends so that nothing of the log is lost.
//! Never mentions images, requests or a store.

mod lines;
pub mod log;
