//! Effects of a decision: rows to insert, update and delete, in the order in which they are to be written.

use super::{
    AuditRow, BlobRow, ComputeImageRow, DesktopImageRow, Id, IdentityKey, IdentityRow,
    OperationRow, Quota, Timestamp,
};

/// A change of one row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Effect {
    InsertDesktopImage(DesktopImageRow),
    UpdateDesktopImage(DesktopImageRow),
    DeleteDesktopImage(Id),
    InsertComputeImage(ComputeImageRow),
    UpdateComputeImage(ComputeImageRow),
    DeleteComputeImage(Id),
    InsertOperation(Box<OperationRow>),
    UpdateOperation(Box<OperationRow>),
    InsertBlob(BlobRow),
    UpdateBlob(BlobRow),
    DeleteBlob(Id),
    /// Keeps the checksums of a live blob, in place of those that were kept.
    PutChecksums {
        blob: Id,
        checksums: Vec<u8>,
    },
    /// The bytes of a blob are to be removed.
    InsertTombstone(Tombstone),
    /// An image has stopped referring to a blob: whether another refers to it is looked at later, in a
    /// transaction of its own.
    NoteGarbage(Id),
    /// An image has given up its name.
    NoteFormerName {
        image_id: String,
        name: String,
        at: Timestamp,
    },
    UpdateQuota(Quota),
    /// Inserts an identity row, or takes the place of the one of its key.
    PutIdentity(Box<IdentityRow>),
    DeleteIdentity(IdentityKey),
    InsertAuditEvent(AuditRow),
}

/// The row that says that the bytes of a blob are to be removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tombstone {
    /// The id of the bytes.
    pub file: String,
    /// Until then a worker may write them once more.
    pub forget_after: Timestamp,
}

/// The outcome of a command that is admitted: the reply to its caller, and the rows that are written before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Decision<R> {
    pub reply: R,
    pub effects: Vec<Effect>,
}
