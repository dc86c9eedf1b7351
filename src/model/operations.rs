//! Operations as this server knows them.

use serde::{Deserialize, Serialize};

use super::{ComputeImage, DesktopImage, Kind, Timestamp};

/// A mutation that was accepted: what it is, how far it is, and how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Operation {
    pub id: String,
    pub kind: Kind,
    pub folder_id: String,
    pub image_id: String,
    pub created_at: Timestamp,
    pub created_by: String,
    pub modified_at: Timestamp,
    /// Counts the attempts, from 1 once the first has begun.
    pub attempt: i64,
    /// Of the present attempt.
    pub progress: Progress,
    /// How its bytes come in; none where it brings none in, or has ended.
    pub transfer: Option<Transfer>,
    pub outcome: Option<Outcome>,
}

impl Operation {
    pub(crate) fn is_done(&self) -> bool {
        self.outcome.is_some()
    }
}

/// How the bytes of a new image come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transfer {
    /// The server reads them from where they are.
    Import,
    /// The caller sends them.
    Upload,
}

/// How many bytes an attempt has dealt with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    pub done: u64,
    pub total: Option<u64>,
}

/// How an operation ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The resource as it was at that moment; none where it was deleted.
    Succeeded(Option<Resource>),
    Failed(Failure),
}

/// The image that an operation left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Resource {
    DesktopImage(DesktopImage),
    ComputeImage(ComputeImage),
}

/// Why an operation failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Failure {
    pub reason: Reason,
    pub message: String,
    /// Whose limit stood in the way, where one did.
    pub subject: Option<String>,
    /// That limit.
    pub quota: Option<ReachedQuota>,
    /// Whether another attempt may succeed.
    pub transient: bool,
}

/// A limit that stood in the way of an operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ReachedQuota {
    pub name: String,
    pub limit: i64,
    pub used: i64,
    /// How much more the operation would have taken; none where that was not known.
    pub requested: Option<i64>,
}

impl Failure {
    /// A failure that no other attempt would mend.
    pub(crate) fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
            subject: None,
            quota: None,
            transient: false,
        }
    }

    /// The same failure, as one that may pass.
    pub(crate) fn transient(self) -> Self {
        Self {
            transient: true,
            ..self
        }
    }

    /// The failure of an upload that its caller began again.
    pub(crate) fn superseded() -> Self {
        Self::new(Reason::Superseded, "superseded by a retry")
    }

    /// The failure of an operation that its caller cancelled.
    pub(crate) fn cancelled() -> Self {
        Self::new(Reason::Cancelled, "The operation was cancelled")
    }
}

/// The kinds of failure that callers tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    /// The request cannot be met: the image or a parameter is at fault.
    Invalid,
    /// The image of the change is gone.
    NotFound,
    /// The name is taken.
    AlreadyExists,
    /// The image is not in a state that admits the change.
    FailedPrecondition,
    /// The caller cancelled it.
    Cancelled,
    /// It was cut short, and may be tried again as a new request.
    Aborted,
    /// A later request took the place of this upload.
    Superseded,
    /// Other bytes came than the caller said.
    OtherDigest,
    /// The credentials of the caller were good no more before all was there.
    Unauthenticated,
    /// The caller lost the right to it before all was there.
    PermissionDenied,
    /// The server lacks something for a moment.
    Unavailable,
    /// Room has run out.
    Exhausted,
    /// A limit that the administrator set stands in the way.
    QuotaExceeded,
    /// The server is at fault.
    Internal,
}

impl Reason {
    const NAMES: [(Self, &str); 14] = [
        (Self::Invalid, "invalid"),
        (Self::NotFound, "not_found"),
        (Self::AlreadyExists, "already_exists"),
        (Self::FailedPrecondition, "failed_precondition"),
        (Self::Cancelled, "cancelled"),
        (Self::Aborted, "aborted"),
        (Self::Superseded, "superseded"),
        (Self::OtherDigest, "other_digest"),
        (Self::Unauthenticated, "unauthenticated"),
        (Self::PermissionDenied, "permission_denied"),
        (Self::Unavailable, "unavailable"),
        (Self::Exhausted, "exhausted"),
        (Self::QuotaExceeded, "quota_exceeded"),
        (Self::Internal, "internal"),
    ];

    /// The name under which it is stored.
    pub(crate) fn as_str(self) -> &'static str {
        Self::NAMES
            .into_iter()
            .find(|(reason, _)| *reason == self)
            .map_or("internal", |(_, name)| name)
    }

    /// The one stored under this name; a name of a later version counts as internal.
    pub(crate) fn from_name(name: &str) -> Self {
        Self::NAMES
            .into_iter()
            .find(|(_, known)| *known == name)
            .map_or(Self::Internal, |(reason, _)| reason)
    }
}
