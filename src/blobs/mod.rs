//! Knows immutable contents by id: written once, read from any offset, removed. Never mentions
//! images, nor who refers to a content.

mod local;
mod sparse;
mod writer;

pub use local::LocalContents;
pub use writer::{Chunk, ContentWriter, Written};

/// Why bytes were not written or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the disk that holds the contents is full")]
    Full,
    #[error("content: {0}")]
    Io(std::io::Error),
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        use std::io::ErrorKind::{QuotaExceeded, StorageFull};
        match error.kind() {
            StorageFull | QuotaExceeded => Self::Full,
            _ => Self::Io(error),
        }
    }
}
