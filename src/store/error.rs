//! Errors of a store, in words that name no database.

use std::path::PathBuf;

use crate::model::Refusal;
use crate::telemetry::chain;

/// The error of the database beneath. Some databases tell what happened in a cause of it alone.
pub(super) type Source = Box<dyn std::error::Error + Send + Sync>;

/// Why a store did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The rules do not admit it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The last item of the page is gone, and so is what was known of it.
    #[error("the page token has expired")]
    PageTokenExpired,
    #[error("the disk that holds the database is full")]
    Full,
    /// While the server runs: no descriptor is left.
    #[error("the database cannot be opened: {}", chain(&**.0))]
    CannotOpen(Source),
    #[error("the database cannot be written to: {0}")]
    ReadOnly(String),
    #[error("the database is damaged; restore it from a backup: {}", chain(&**.0))]
    Damaged(Source),
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
    /// A database on a server that cannot be served from, as it or this program is configured.
    #[error("{database}: {why}")]
    Start { database: String, why: String },
    /// Nothing was done.
    #[error("the database cannot be reached: {}", chain(&**.0))]
    Unreachable(Source),
    /// The connection was lost while the database committed, and it has not come back to say what it did.
    #[error("the database went away during a commit; whether the change was made is not known")]
    OutcomeUnknown,
    #[error("the store is shutting down")]
    Closed,
    #[error("database: {}", chain(&**.0))]
    Failed(Source),
}

impl Error {
    /// Whether the database failed, rather than the rules said no: the same may succeed later.
    pub fn is_failure(&self) -> bool {
        matches!(
            self,
            Self::Failed(_)
                | Self::Full
                | Self::CannotOpen(_)
                | Self::ReadOnly(_)
                | Self::Damaged(_)
                | Self::Unreachable(_)
                | Self::OutcomeUnknown
        )
    }
}

pub(crate) type Result<T> = std::result::Result<T, Error>;
