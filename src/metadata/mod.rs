//! Knows the store of record: images, contents and operations as rows, and each change as one
//! named transaction. Never mentions HTTP, protobuf, or where the bytes of a content lie.

#[cfg(feature = "bench-baselines")]
mod baseline;
mod ids;
mod listing;
mod sqlite;
mod time;

#[cfg(feature = "bench-baselines")]
pub use baseline::Baseline;
pub use ids::IdGenerator;
pub use listing::{Column, Condition, Direction, ListQuery, Page, Position, name_hash};
pub use sqlite::Store;
pub use sqlite::compute_images::{ComputeImageChanges, NewComputeImage, Origin};
pub use sqlite::contents::{ContentFacts, LiveContent};
pub use sqlite::desktop_images::{DesktopImageChanges, NewDesktopImage};
pub use sqlite::operations::{Accept, Idempotency, Lease, Settled};
#[cfg(test)]
use time::ManualClock;
pub use time::{Clock, SystemClock, Timestamp};

use std::path::PathBuf;

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
    /// The disk asked for is smaller than the disk inside the image.
    #[error("min_disk_size {requested} is less than the {virtual_size} bytes of the disk inside")]
    MinDiskSizeTooSmall { requested: i64, virtual_size: i64 },
    /// The key came with another request before.
    #[error("the idempotency key was used with another request")]
    IdempotencyKeyReused,
    /// The last item of the page is gone, and so is what was known of it.
    #[error("the page token has expired")]
    PageTokenExpired,
    /// Another worker has taken over, or the operation has ended.
    #[error("the lease of operation {id} is lost")]
    LeaseLost { id: String },
    #[error("the disk that holds the database is full")]
    Full,
    #[error("{path} has schema version {found}; this program knows versions up to {known}")]
    NewerSchema {
        path: PathBuf,
        found: i64,
        known: i64,
    },
    #[error("the store is shutting down")]
    Closed,
    #[error("a row holds JSON that does not parse: {0}")]
    Json(#[from] serde_json::Error),
    #[error("database: {0}")]
    Sqlite(rusqlite::Error),
}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        if error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull) {
            Self::Full
        } else {
            Self::Sqlite(error)
        }
    }
}

impl Error {
    /// Whether the transaction must be undone: the database failed, rather than said no.
    fn is_failure(&self) -> bool {
        matches!(self, Self::Sqlite(_) | Self::Full | Self::Json(_))
    }
}

pub type Result<T> = std::result::Result<T, Error>;
