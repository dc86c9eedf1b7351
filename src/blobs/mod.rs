//! Blobs, the immutable bytes of images. Knows how a blob is written once, read from any offset, and removed, by its
//! id. Never mentions images, or the rows that refer to a blob.

mod checksums;
#[cfg(test)]
mod conformance;
mod examined;
mod local;
mod local_reader;
mod object;
mod reader;
mod sparse;
mod writer;

pub(crate) use checksums::{BLOCK, Checksums};
pub(crate) use examined::{Examined, examine};
pub(crate) use local::LocalBlobs;
pub(crate) use object::ObjectBlobs;
pub use object::{BlobLayout, ObjectSettings, RedirectSettings};
pub(crate) use reader::{BlobReader, by_blocks, by_many_blocks};
pub(crate) use writer::{BlobWriter, Chunk, Written};

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use disk_image::ReadAt;

/// A store of blobs. An id is given to one blob and never again.
#[async_trait]
pub(crate) trait BlobStore: Debug + Send + Sync {
    /// Checks that the blobs are still where they were, and can be reached.
    ///
    /// # Errors
    /// [`Error::Lost`] where that is not so, [`Error::Unreachable`], [`Error::Refused`] and [`Error::NoDescriptors`].
    async fn check(&self) -> Result<(), Error>;

    /// Starts a new blob, of `length` bytes where that is known. Of a blob whose writer was not finished, what is
    /// stored is no blob, and goes when the id is removed.
    ///
    /// # Errors
    /// [`Error::Lost`], [`Error::Unreachable`], [`Error::Refused`], [`Error::NoDescriptors`], [`Error::Full`], and
    /// [`Error::Io`], as for an id that is in use.
    async fn create(&self, id: &str, length: Option<u64>) -> Result<BlobWriter, Error>;

    /// Opens a blob of so many bytes, to be read mostly from start to end.
    ///
    /// # Errors
    /// [`Error::Missing`], [`Error::WrongSize`], [`Error::Lost`], [`Error::Unreachable`], [`Error::Refused`],
    /// [`Error::NoDescriptors`] and [`Error::Io`].
    async fn open(
        &self,
        id: &str,
        size: u64,
        checksums: Option<Checksums>,
    ) -> Result<Arc<dyn BlobReader>, Error>;

    /// Opens a blob of so many bytes for reads that block and compare nothing. An error of such a read that is not one
    /// of the system is an [`Error`].
    ///
    /// # Errors
    /// Those of [`BlobStore::open`].
    async fn open_unchecked(&self, id: &str, size: u64) -> Result<Box<Unchecked>, Error>;

    /// A URL at which whoever has it reads a blob of so many bytes from the place of the blobs itself, for some minutes.
    /// Nobody compares the bytes. The answer has this `Content-Disposition`, where that is possible. None where the place
    /// has no such URLs, or does not have the blob byte by byte.
    ///
    /// # Errors
    /// Those of [`BlobStore::open`].
    async fn presigned(
        &self,
        _id: &str,
        _size: u64,
        _disposition: &str,
    ) -> Result<Option<String>, Error> {
        Ok(None)
    }

    /// Removes blobs, and what is stored of those that were never finished; none is no error. Returns the ids of those
    /// that do not come back. The log tells why others were not removed.
    ///
    /// # Errors
    /// Those of [`BlobStore::check`], and [`Error::Io`] where a removal may not last.
    async fn remove(&self, ids: Vec<String>) -> Result<Vec<String>, Error>;

    /// The ids of all blobs, and of those that were begun.
    ///
    /// # Errors
    /// Those of [`BlobStore::check`], and [`Error::Io`].
    async fn list(&self) -> Result<Vec<String>, Error>;

    /// The number of bytes that are stored of each of these, by id.
    ///
    /// # Errors
    /// Those of [`BlobStore::list`].
    async fn stored(&self) -> Result<HashMap<String, u64>, Error>;

    /// Whether a blob of so many bytes, of which `stored_size` are in blocks that are not all zeros, may be whole where
    /// `stored` bytes are stored of it. To open it gives the certain answer.
    fn fits(&self, stored: u64, size: u64, stored_size: u64) -> bool;
}

/// The bytes of a blob, not compared with its checksums.
pub(crate) type Unchecked = dyn ReadAt + Send + Sync;

/// The error of a blob whose bytes were not written or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the disk that holds the blobs is full")]
    Full,
    /// The place of the blobs is not there, or another one is where it was.
    #[error("{place} is lost: {reason}")]
    Lost { place: String, reason: String },
    /// The place of the blobs does not answer, or not in time. That may pass.
    #[error("{place} cannot be reached: {reason}")]
    Unreachable { place: String, reason: String },
    /// The place of the blobs does not let this process do its work.
    #[error("{place} refuses what the server must do: {reason}")]
    Refused { place: String, reason: String },
    /// The place is there, and no blob of this id is in it.
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
