//! Failures of operations: the reason that a caller sees, and whether another attempt may succeed.

use std::io;

use super::compute_images::LARGEST_BLOB;
use crate::blobs;
use crate::model::{Failure, Reason, Refusal};
use crate::sources::SourceError;
use crate::store;

/// The failure of an operation that the store did not go on with.
pub(super) fn store_failure(error: &store::Error) -> Failure {
    match error {
        store::Error::Refused(refusal) => refused(refusal),
        store::Error::Full => disk_full(),
        store::Error::Unreachable(_) | store::Error::OutcomeUnknown => {
            tracing::warn!(%error, "an operation could not be recorded");
            Failure::new(Reason::Unavailable, NO_DATABASE).transient()
        }
        // The error may pass.
        error => internal(error).transient(),
    }
}

fn refused(refusal: &Refusal) -> Failure {
    use Refusal as R;
    let reason = match refusal {
        R::MinDiskSizeTooSmall { .. } => Reason::Invalid,
        R::ImageNotFound { .. } => Reason::NotFound,
        R::NameTaken { .. } => Reason::AlreadyExists,
        R::ImageNotReady { .. } | R::ImageBeingDeleted { .. } | R::BlobDamaged { .. } => {
            Reason::FailedPrecondition
        }
        R::QuotaExceeded(_) => Reason::QuotaExceeded,
        // The other worker records the end of the operation.
        R::LeaseLost { .. } => Reason::Aborted,
        R::CancelRequested { .. } => return Failure::cancelled(),
        R::OperationNotFound { .. }
        | R::IdempotencyKeyReused
        | R::FolderDenied { .. }
        | R::Denied { .. }
        | R::UriDenied { .. }
        | R::IdentityNotFound { .. }
        | R::TooManyTokens => {
            return internal(refusal).transient();
        }
    };
    let failure = Failure::new(reason, refusal.to_string());
    match refusal {
        R::QuotaExceeded(exceeded) => Failure {
            subject: Some(exceeded.subject()),
            quota: Some(exceeded.reached()),
            ..failure
        },
        _ => failure,
    }
}

/// A file that is not as it must be will not be so a second later; a disk that does not answer may.
pub(super) fn source_failure(error: SourceError) -> Failure {
    use io::ErrorKind as Kind;
    let failure = Failure::new(Reason::Invalid, format!("uri: {error}"));
    match &error {
        SourceError::Io(cause)
            if !matches!(
                cause.kind(),
                Kind::NotFound
                    | Kind::PermissionDenied
                    | Kind::InvalidInput
                    | Kind::IsADirectory
                    | Kind::NotADirectory
            ) =>
        {
            failure.transient()
        }
        _ => failure,
    }
}

/// The failure of a source of more bytes than any image has.
pub(super) fn too_large() -> Failure {
    Failure::new(
        Reason::Invalid,
        format!("The image has more than {LARGEST_BLOB} bytes, the most that are supported"),
    )
}

const FOLDER_LOST: &str = "The server's content folder is not there; its log says more";

/// The failure of an operation on a full disk.
pub(super) fn disk_full() -> Failure {
    tracing::warn!("the disk is full");
    Failure::new(Reason::Exhausted, "The server's disk is full")
}

const NO_DATABASE: &str = "The server's database could not be reached; try again";
const STORAGE_AWAY: &str = "The server cannot use its storage; its log says more";
const NO_DESCRIPTORS: &str = "The server has no file descriptors left; try again later";

pub(super) fn blob_failure(error: &blobs::Error) -> Failure {
    match error {
        blobs::Error::Full => disk_full(),
        error @ blobs::Error::NoDescriptors(_) => {
            tracing::warn!(%error, "no file can be opened");
            Failure::new(Reason::Unavailable, NO_DESCRIPTORS).transient()
        }
        lost @ blobs::Error::Lost { .. } => {
            tracing::error!(error = %lost, "an import failed");
            Failure::new(Reason::Aborted, FOLDER_LOST).transient()
        }
        away @ (blobs::Error::Unreachable { .. } | blobs::Error::Refused { .. }) => {
            tracing::error!(error = %away, "an import failed");
            Failure::new(Reason::Unavailable, STORAGE_AWAY).transient()
        }
        blobs::Error::Io(error) => internal(error).transient(),
        other => internal(other).transient(),
    }
}

/// A failure whose cause is for the log, not for the caller.
pub(super) fn internal(cause: &dyn std::error::Error) -> Failure {
    tracing::error!(error = %cause, "an import failed");
    Failure::new(
        Reason::Internal,
        "Internal error; the server's log says more",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_that_is_out_of_reach_is_no_fault_of_the_server() {
        for error in [
            store::Error::Unreachable("refused".into()),
            store::Error::OutcomeUnknown,
        ] {
            let failure = store_failure(&error);
            assert_eq!(failure.reason, Reason::Unavailable, "{error}");
            assert!(failure.transient, "{error}");
        }
    }
}
