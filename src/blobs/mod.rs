//! Knows immutable contents by id: written once, read from any offset, removed. Never mentions
//! images, nor who refers to a content.

mod local;
mod sparse;
mod writer;

pub use local::{FolderIdentity, LocalContents};
pub use writer::{Chunk, ContentWriter, Written};

use std::path::PathBuf;

/// Why bytes were not written or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the disk that holds the contents is full")]
    Full,
    /// The folder of the contents is not there, or another one is in its place.
    #[error("the content folder {folder} is lost: {reason}")]
    FolderLost { folder: PathBuf, reason: String },
    /// The folder is there, and no file of this id is in it.
    #[error("the file is missing")]
    Missing,
    #[error("the file has {found} bytes, and should have {size}")]
    WrongSize { found: u64, size: u64 },
    #[error("content: {0}")]
    Io(std::io::Error),
}

impl Error {
    /// Whether the bytes of a content are not those that were written.
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Missing | Self::WrongSize { .. })
    }
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
