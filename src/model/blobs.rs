//! Blobs: the immutable bytes of images, as the rules know them.

use super::Timestamp;

/// The facts of a blob once it is written and checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BlobFacts {
    /// `qcow2` or `raw`.
    pub format: String,
    /// Bytes.
    pub size: i64,
    /// Bytes, all-zero blocks not counted.
    pub stored_size: i64,
    /// Bytes of the disk inside.
    pub virtual_size: i64,
    pub sha256: [u8; 32],
}

/// A live blob, and its bytes in number.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct BlobSize {
    pub id: String,
    pub size: u64,
    /// All-zero blocks not counted.
    pub stored_size: u64,
}

impl BlobSize {
    /// A blob with the numbers that a database has of it. None of these is negative.
    pub(crate) fn new(id: String, size: i64, stored_size: i64) -> Self {
        let unsigned = |number| u64::try_from(number).unwrap_or_default();
        Self {
            id,
            size: unsigned(size),
            stored_size: unsigned(stored_size),
        }
    }
}

/// A blob that has a tombstone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DeletedBlob {
    pub id: String,
    /// Until then a worker may write the blob once more. The age of the tombstone counts from then.
    pub forget_after: Timestamp,
}

impl DeletedBlob {
    /// The one that no other comes before, where they are ordered by age.
    pub(crate) fn before_all() -> Self {
        Self {
            id: String::new(),
            forget_after: Timestamp(i64::MIN),
        }
    }
}

/// A blob that images refer to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LiveBlob {
    pub id: String,
    pub facts: BlobFacts,
    /// Whether a read has found other bytes than were written, or none.
    pub damaged: bool,
    /// The checksums of its blocks, as they were kept.
    pub checksums: Option<Vec<u8>>,
}
