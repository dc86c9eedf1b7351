//! Blobs, the immutable bytes of images. Knows how a blob is written once, read from any offset, and removed, by its
//! id. Never mentions images, or the rows that refer to a blob.

mod checksums;
mod local;
mod reader;
mod sparse;
mod writer;

pub(crate) use checksums::Checksums;
pub(crate) use local::{Examined, LocalBlobs};
pub(crate) use reader::BlobReader;
pub(crate) use writer::{BlobWriter, Chunk, Written};

use std::path::PathBuf;

/// The error of a blob whose bytes were not written or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the disk that holds the blobs is full")]
    Full,
    /// The folder of the blobs is not there, or another one is in its place.
    #[error("the content folder {folder} is lost: {reason}")]
    FolderLost { folder: PathBuf, reason: String },
    /// The folder is there, and no file of this id is in it.
    #[error("the file is missing")]
    Missing,
    #[error("the file has {found} bytes, and should have {size}")]
    WrongSize { found: u64, size: u64 },
    /// Other bytes than were written.
    #[error("the {length} bytes from {offset} on are not those that were written")]
    BadBlock { offset: u64, length: u64 },
    #[error("the bytes from {offset} on cannot be read: {error}")]
    Unreadable { offset: u64, error: std::io::Error },
    /// All bytes were read, and they are other ones: in blocks of 4 MiB that begin at these offsets, where
    /// that is known.
    #[error("its SHA-256 is another one{}", places(.blocks))]
    WrongDigest { blocks: Vec<u64> },
    /// No file can be opened for now.
    #[error("blob: {0}")]
    NoDescriptors(std::io::Error),
    #[error("blob: {0}")]
    Io(std::io::Error),
}

/// Offsets are told of a few blocks.
fn places(blocks: &[u64]) -> String {
    const TOLD: usize = 8;
    if blocks.is_empty() {
        return String::new();
    }
    let told: Vec<String> = blocks.iter().take(TOLD).map(u64::to_string).collect();
    let more = match blocks.len().saturating_sub(TOLD) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!(
        ": damaged are the blocks of 4 MiB at {}{more}",
        told.join(", ")
    )
}

impl Error {
    /// Whether the bytes of a blob are not those that were written.
    pub fn is_damage(&self) -> bool {
        matches!(
            self,
            Self::Missing
                | Self::WrongSize { .. }
                | Self::BadBlock { .. }
                | Self::Unreadable { .. }
                | Self::WrongDigest { .. }
        )
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        use std::io::ErrorKind::{QuotaExceeded, StorageFull};
        match error.kind() {
            StorageFull | QuotaExceeded => Self::Full,
            _ if is_lack_of_descriptors(&error) => Self::NoDescriptors(error),
            _ => Self::Io(error),
        }
    }
}

fn is_lack_of_descriptors(error: &std::io::Error) -> bool {
    use rustix::io::Errno;
    matches!(
        Errno::from_io_error(error),
        Some(Errno::MFILE | Errno::NFILE)
    )
}
