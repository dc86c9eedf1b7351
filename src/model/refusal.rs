//! Refusals: why the rules do not admit a command. A refused command writes nothing. The words are those that callers
//! read, whether a request is refused at once or its operation fails.

use super::{ExceededQuota, IdentityKind, ReachedQuota, Role};

/// Why a command is not admitted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("Image \"{id}\" not found")]
    ImageNotFound { id: String },
    #[error("Operation \"{id}\" not found")]
    OperationNotFound { id: String },
    #[error("Image with name \"{name}\" already exists in folder {folder_id}")]
    NameTaken { folder_id: String, name: String },
    /// The image is still being created.
    #[error("Image \"{id}\" is not ready: wait for the operation that creates it, or cancel that")]
    ImageNotReady { id: String },
    #[error("Image \"{id}\" is being deleted")]
    ImageBeingDeleted { id: String },
    /// A read has found other bytes than the image should have, or none.
    #[error(
        "The bytes of image \"{id}\" are damaged: upload or import the same bytes once more, which mends this \
         image and all others with these bytes"
    )]
    BlobDamaged { id: String },
    /// The disk asked for is smaller than the disk inside the image.
    #[error("min_disk_size {requested} is less than the {virtual_size} bytes of the disk inside")]
    MinDiskSizeTooSmall { requested: i64, virtual_size: i64 },
    /// The key came with another request before.
    #[error("The idempotency key was used with another request; use a new key for a new request")]
    IdempotencyKeyReused,
    /// The caller lacks a role in the folder, which may exist or not.
    #[error("Permission denied to folder {folder_id}")]
    FolderDenied { folder_id: String },
    /// The caller lacks a role in all folders.
    #[error("Permission denied: this takes the role {role} in all folders")]
    Denied { role: Role },
    /// The grants of the caller narrow the imports into the folder to other uris.
    #[error("Permission denied to import this uri into folder {folder_id}: the grant names others")]
    UriDenied { folder_id: String },
    #[error("{} \"{id}\" not found", .kind.noun())]
    IdentityNotFound { kind: IdentityKind, id: String },
    /// The tokens that were exchanged for the credential and have not ended.
    #[error(
        "Too many tokens were exchanged for this credential in the last hour; use one until it expires"
    )]
    TooManyTokens,
    #[error("Quota limit {} exceeded", .0.metric.name())]
    QuotaExceeded(ExceededQuota),
    /// Another worker has taken over, or the operation has ended.
    #[error("the lease of operation {id} is lost")]
    LeaseLost { id: String },
    /// The operation was asked to be cancelled, so it must not succeed.
    #[error("operation {id} is to be cancelled")]
    CancelRequested { id: String },
}

impl ExceededQuota {
    /// The subject of the limit, as QuotaFailure names it.
    pub(crate) fn subject(&self) -> String {
        match &self.scope {
            super::QuotaScope::Folder(id) => format!("folder:{id}"),
            super::QuotaScope::Total => "total".to_owned(),
        }
    }

    /// The limit with its numbers.
    pub(crate) fn reached(&self) -> ReachedQuota {
        ReachedQuota {
            name: self.metric.name().to_owned(),
            limit: self.limit,
            used: self.used,
            requested: self.requested,
        }
    }
}
