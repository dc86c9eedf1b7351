//! Refusals: why the rules do not admit a command. A refused command writes nothing.

use super::ExceededQuota;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("image {id:?} does not exist")]
    ImageNotFound { id: String },
    #[error("operation {id:?} does not exist")]
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
    BlobDamaged { id: String },
    /// The disk asked for is smaller than the disk inside the image.
    #[error("min_disk_size {requested} is less than the {virtual_size} bytes of the disk inside")]
    MinDiskSizeTooSmall { requested: i64, virtual_size: i64 },
    /// The key came with another request before.
    #[error("the idempotency key was used with another request")]
    IdempotencyKeyReused,
    #[error("the quota limit {} of {} is exceeded", .0.metric.name(), .0.scope)]
    QuotaExceeded(ExceededQuota),
    /// Another worker has taken over, or the operation has ended.
    #[error("the lease of operation {id} is lost")]
    LeaseLost { id: String },
    /// The operation was asked to be cancelled, so it must not succeed.
    #[error("operation {id} is to be cancelled")]
    CancelRequested { id: String },
}
