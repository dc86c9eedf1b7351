//! Why a use case did not do what was asked.

use crate::{blobs, metadata};

/// What is wrong with one field of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidField {
    pub field: &'static str,
    pub description: String,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{}: {}", .0.field, .0.description)]
    Invalid(InvalidField),
    /// No READY image of the family is in the folder.
    #[error("no image of family {family:?} in folder {folder_id:?}")]
    FamilyNotFound { folder_id: String, family: String },
    /// A source that this server does not have.
    #[error("{0} is not supported by this server")]
    Unsupported(&'static str),
    #[error(transparent)]
    Metadata(#[from] metadata::Error),
    #[error(transparent)]
    Blobs(#[from] blobs::Error),
}

impl Error {
    /// A field that is not as it must be.
    pub fn invalid(field: &'static str, description: impl Into<String>) -> Self {
        Self::Invalid(InvalidField {
            field,
            description: description.into(),
        })
    }
}

pub type Result<T> = std::result::Result<T, Error>;
