//! Knows the store of record: images, contents and operations as rows, and each change as one
//! named transaction. Never mentions HTTP, protobuf, or where the bytes of a content lie.

#[cfg(feature = "bench-baselines")]
mod baseline;
mod sqlite;
#[cfg(test)]
mod tests;

#[cfg(feature = "bench-baselines")]
pub use baseline::Baseline;
pub use sqlite::Store;
pub use sqlite::claims::{CancelRequested, Candidate, NextClaim, Occupied, Renewed};
pub use sqlite::contents::{ContentFacts, DeletedContent, LiveContent};
pub use sqlite::verification::{Recorded, Verification};

use std::path::PathBuf;

use crate::model::ExceededQuota;

/// Why the store did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("image {id:?} is not in the store")]
    ImageNotFound { id: String },
    #[error("operation {id:?} is not in the store")]
    OperationNotFound { id: String },
    #[error("folder {folder_id:?} has an image named {name:?}")]
    NameTaken { folder_id: String, name: String },
    /// The image is still being created.
    #[error("image {id:?} is not ready")]
    ImageNotReady { id: String },
    #[error("image {id:?} is being deleted")]
    ImageBeingDeleted { id: String },
    /// A read has found other bytes than the image should have, or none.
    #[error("the bytes of image {id:?} are damaged")]
    ContentDamaged { id: String },
    /// The disk asked for is smaller than the disk inside the image.
    #[error("min_disk_size {requested} is less than the {virtual_size} bytes of the disk inside")]
    MinDiskSizeTooSmall { requested: i64, virtual_size: i64 },
    /// The key came with another request before.
    #[error("the idempotency key was used with another request")]
    IdempotencyKeyReused,
    #[error("the quota limit {} of {} is exceeded", .0.metric.name(), .0.scope)]
    QuotaExceeded(ExceededQuota),
    /// The last item of the page is gone, and so is what was known of it.
    #[error("the page token has expired")]
    PageTokenExpired,
    /// Another worker has taken over, or the operation has ended.
    #[error("the lease of operation {id} is lost")]
    LeaseLost { id: String },
    /// It was asked to be cancelled, so it must not succeed.
    #[error("operation {id} is to be cancelled")]
    CancelRequested { id: String },
    #[error("the disk that holds the database is full")]
    Full,
    /// While the server runs: no descriptor is left.
    #[error("the database cannot be opened: {0}")]
    CannotOpen(rusqlite::Error),
    #[error("the database cannot be written to: {0}")]
    ReadOnly(String),
    #[error("the database is damaged; restore it from a backup: {0}")]
    Damaged(rusqlite::Error),
    #[error("{path} has schema version {found}; this program knows versions up to {known}")]
    NewerSchema {
        path: PathBuf,
        found: i64,
        known: i64,
    },
    /// Only told where a database is to be read as it is.
    #[error("{path} has schema version {found}, from before this program's version {known}")]
    OlderSchema {
        path: PathBuf,
        found: i64,
        known: i64,
    },
    #[error(
        "{0} is not a database of this program, or one from before its first release: move it away"
    )]
    Foreign(PathBuf),
    #[error("the store is shutting down")]
    Closed,
    #[error("a row holds JSON that does not parse: {0}")]
    Json(#[from] serde_json::Error),
    #[error("database: {0}")]
    Sqlite(rusqlite::Error),
}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode as Code;
        match error.sqlite_error_code() {
            Some(Code::DiskFull) => Self::Full,
            Some(Code::CannotOpen) => Self::CannotOpen(error),
            Some(Code::ReadOnly) => Self::ReadOnly(error.to_string()),
            Some(Code::DatabaseCorrupt | Code::NotADatabase) => Self::Damaged(error),
            _ => Self::Sqlite(error),
        }
    }
}

impl Error {
    /// Whether the database failed, rather than said no: the transaction must be undone, and
    /// the same may succeed later.
    pub fn is_failure(&self) -> bool {
        matches!(
            self,
            Self::Sqlite(_)
                | Self::Full
                | Self::CannotOpen(_)
                | Self::Json(_)
                | Self::ReadOnly(_)
                | Self::Damaged(_)
        )
    }
}

pub type Result<T> = std::result::Result<T, Error>;
