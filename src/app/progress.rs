//! The progress of commands that work on a data folder for a long time.

/// A listener to the progress.
pub trait Progress: Send {
    /// So many bytes are to be worked on, as the words say.
    fn begin(&mut self, what: &'static str, bytes: u64);
    /// So many more are done. False ends all.
    fn advance(&mut self, bytes: u64) -> bool;
}
