//! Errors of the use cases.

use crate::model::Refusal;
use crate::{blobs, store};

/// A field of a request that is not as it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidField {
    pub field: &'static str,
    pub description: String,
}

/// The error of a use case.
///
/// Any use case fails with [`Error::Store`] where the store is closed or cannot do its work
/// ([`store::Error::is_failure`]). The section `# Errors` of each one names the other variants.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{} of the request's fields are not as they must be", .0.len())]
    Invalid(Vec<InvalidField>),
    /// The credentials of the caller are good no more.
    #[error("Token is invalid or has expired.")]
    Unauthenticated,
    /// All slots for uploads are taken.
    #[error("too many uploads are running; try again later")]
    Busy,
    /// No READY image of the family is in the folder.
    #[error("no image of family {family:?} in folder {folder_id:?}")]
    FamilyNotFound { folder_id: String, family: String },
    /// A source that this server does not have.
    #[error("{0} is not supported by this server")]
    Unsupported(&'static str),
    /// The image is there, but its bytes are not those that were written.
    #[error(transparent)]
    Damaged(Refusal),
    #[error(transparent)]
    Store(#[from] store::Error),
    #[error(transparent)]
    Blobs(#[from] blobs::Error),
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Self::Store(refusal.into())
    }
}

impl Error {
    /// A field that is not as it must be.
    pub fn invalid(field: &'static str, description: impl Into<String>) -> Self {
        Self::Invalid(vec![InvalidField {
            field,
            description: description.into(),
        }])
    }
}

/// Words for an administrator about a blob with damaged bytes.
pub(super) fn damaged_blob(blob_id: &str, damage: &blobs::Error) -> String {
    format!(
        "blob {blob_id}: {damage}; upload or import the same bytes once more, which mends all of its images"
    )
}

pub(crate) type Result<T> = std::result::Result<T, Error>;
