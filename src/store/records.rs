//! The records of blobs as whoever verifies them reads them, beside servers that work with them. Calls block: in a thread
//! of a tokio runtime that may block.

use std::collections::HashSet;

use super::Result;
use crate::model::Id;

/// A live blob as its row has it.
#[derive(Debug, Clone)]
pub(crate) struct Recorded {
    pub key: i64,
    /// With the key, what tells the row from all others; 0 in SQLite, where the key does so alone.
    pub rest: i64,
    pub id: String,
    /// Bytes.
    pub size: u64,
    pub sha256: [u8; 32],
    pub damaged: bool,
    /// As they were kept; none of blobs from before there were any.
    pub checksums: Option<Vec<u8>>,
}

impl Recorded {
    pub(crate) fn row(&self) -> Id {
        Id {
            key: self.key,
            rest: self.rest,
        }
    }
}

/// A database that is being verified. Reads are short but for those of the whole database, and so are writes, since
/// servers wait for them.
pub(crate) trait Records {
    /// The name of the installation, where it has one.
    fn installation(&mut self) -> Result<Option<String>>;

    /// Faults of the database itself, in its own words, where it can tell.
    fn faults(&mut self) -> Result<Vec<String>>;

    /// How many live blobs there are, and the sum of their sizes in bytes.
    fn extent(&mut self) -> Result<(u64, u64)>;

    /// Some live blobs, by row, after that one.
    fn blobs_after(&mut self, last: Option<Id>) -> Result<Vec<Recorded>>;

    /// The live blob of this row as it is now, if it is still there.
    fn blob(&mut self, row: Id) -> Result<Option<Recorded>>;

    /// The ids of all blobs that may have bytes: pending, live, and with a tombstone.
    fn known_blobs(&mut self) -> Result<HashSet<String>>;

    /// Ids of images that refer to a blob: at most `limit`, desktop images first.
    fn images_of(&mut self, blob_id: &str, limit: usize) -> Result<Vec<String>>;

    /// Notes that all bytes of a blob were read and are sound, with their checksums, unless other bytes have taken its
    /// place.
    fn note_sound(&mut self, blob: &Recorded, checksums: &[u8]) -> Result<()>;

    /// Notes that a blob has other bytes than were written, or none, unless other bytes have taken its place.
    fn note_damaged(&mut self, blob: &Recorded) -> Result<()>;
}
