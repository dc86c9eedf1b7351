//! Rows of the store of record, as the rules read and write them. A row refers to others by their whole ids.

use super::{
    AuditKind, BlobFacts, Change, ComputeImage, DesktopImage, Failure, FieldChange, Id,
    Idempotency, Kind, OPERATION_PREFIX, Operation, Outcome, Phase, Progress, Resource, State,
    Timestamp, Transfer,
};

/// A desktop image and the blob that it refers to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DesktopImageRow {
    pub id: Id,
    pub blob: Id,
    pub image: DesktopImage,
}

/// A compute image and the blob that it refers to, once there is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ComputeImageRow {
    pub id: Id,
    pub blob: Option<Id>,
    pub image: ComputeImage,
}

/// A blob. A row is there before the first byte is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BlobRow {
    /// Images refer to a blob by this id, which it keeps when equal bytes take the place of its own.
    pub id: Id,
    /// The id of the bytes, in the words of the blob store.
    pub file: String,
    pub state: BlobState,
    /// Whether a read has found other bytes than were written, or none.
    pub damaged: bool,
}

/// How far a blob is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum BlobState {
    /// An operation writes it.
    Pending {
        operation: Id,
    },
    Live(BlobFacts),
}

impl BlobRow {
    /// The facts of a live blob.
    pub(crate) fn facts(&self) -> Option<&BlobFacts> {
        match &self.state {
            BlobState::Live(facts) => Some(facts),
            BlobState::Pending { .. } => None,
        }
    }
}

/// An operation, which is the entry of the queue too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OperationRow {
    pub id: Id,
    pub kind: Kind,
    pub state: State,
    pub folder_id: String,
    pub image: Id,
    pub subject: String,
    pub request_id: String,
    pub idempotency: Option<Idempotency>,
    pub upload_key: UploadKey,
    pub modified_at: Timestamp,
    /// Counts the claims.
    pub attempt: i64,
    /// When a worker may claim it: its turn comes, or the lease of the worker before runs out. None once it
    /// has ended.
    pub claimable_at: Option<Timestamp>,
    pub lease_token: Option<i64>,
    /// When retries end, from the first failure that may pass.
    pub retry_until: Option<Timestamp>,
    pub task: Task,
    pub progress: Progress,
    /// The image that it left.
    pub resource: Option<Resource>,
    /// The last failure; callers see it once the operation has ended.
    pub failure: Option<Failure>,
}

/// The work that an operation has still to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Task {
    Known(Box<Change>),
    /// A later version of the server accepted it; as it is stored.
    Unknown(String),
    /// It has ended.
    None,
}

impl Task {
    /// How the bytes of the change come in.
    pub(crate) fn transfer(&self) -> Option<Transfer> {
        match self {
            Self::Known(change) => change.transfer(),
            Self::Unknown(_) | Self::None => None,
        }
    }
}

/// Whether the idempotency key of an operation is tied to it. The numbers are those it is stored under.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum UploadKey {
    /// It is no upload under a key: a key is tied from the beginning.
    None = 0,
    /// The body of the upload arrives: a retry takes its place.
    Arrives = 1,
    /// The body was taken whole and its digest agreed: the key is tied.
    Taken = 2,
}

impl UploadKey {
    /// The one stored under this number.
    pub(crate) fn from_number(number: i64) -> Option<Self> {
        [Self::None, Self::Arrives, Self::Taken]
            .into_iter()
            .find(|key| *key as i64 == number)
    }
}

impl OperationRow {
    /// The id as callers know it.
    pub(crate) fn text_id(&self) -> String {
        self.id.text(OPERATION_PREFIX)
    }

    /// The id of the image that it is about, as callers know it.
    pub(crate) fn image_id(&self) -> String {
        self.image.text(self.kind.image_prefix())
    }

    /// The operation as callers see it.
    pub(crate) fn operation(&self) -> Operation {
        Operation {
            id: self.text_id(),
            kind: self.kind,
            folder_id: self.folder_id.clone(),
            image_id: self.image_id(),
            created_at: self.id.created_at(),
            created_by: self.subject.clone(),
            modified_at: self.modified_at,
            attempt: self.attempt,
            progress: self.progress,
            transfer: self.task.transfer(),
            outcome: match self.state.phase {
                Phase::Succeeded => Some(Outcome::Succeeded(self.resource.clone())),
                // The failure is not told before the operation has ended.
                Phase::Failed => self.failure.clone().map(Outcome::Failed),
                Phase::Queued | Phase::Running | Phase::RollingBack => None,
            },
        }
    }
}

/// An audit event; the store gives it its sequence number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AuditRow {
    pub time: Timestamp,
    pub step: AuditStep,
    pub kind: AuditKind,
    pub subject: String,
    pub request_id: String,
    /// The address that the request came from; empty in events that come later than the request.
    pub peer: String,
    /// Empty where it is about all folders.
    pub folder_id: String,
    /// Of a mutation that an operation carries out.
    pub operation: Option<Id>,
    pub image: Option<Id>,
    /// Of an error.
    pub message: Option<String>,
    pub changes: Vec<FieldChange>,
}

/// How far a mutation has come. The numbers are those it is stored under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AuditStep {
    Started = 0,
    Done = 1,
    Error = 2,
    Cancelled = 3,
    /// Both at once: two events in one row.
    StartedAndDone = 4,
}

impl AuditStep {
    /// The one stored under this number.
    pub(crate) fn from_number(number: i64) -> Option<Self> {
        [
            Self::Started,
            Self::Done,
            Self::Error,
            Self::Cancelled,
            Self::StartedAndDone,
        ]
        .into_iter()
        .find(|step| *step as i64 == number)
    }
}
