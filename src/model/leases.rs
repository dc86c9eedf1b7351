//! Leases: who works on an operation, and which operation is next.

use std::collections::HashSet;
use std::time::Duration;

use super::{Change, Failure, Id, Operation, Phase, Timestamp};

/// When an accepted change is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// In the accepting transaction where only rows change, else when a worker's turn comes.
    Now,
    /// When a worker's turn comes, and not before this has passed.
    After(Duration),
    /// By the caller, which gets a lease of this length.
    Here(Duration),
}

/// An accepted change: a new operation, or the first one under the same idempotency key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Accepted {
    pub operation: Operation,
    pub repeated: bool,
    /// Of a new operation that was to start here.
    pub lease: Option<Box<Lease>>,
}

/// The right to go on with an operation, as long as no other worker has claimed it since.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lease {
    pub id: Id,
    pub operation_id: String,
    pub image_id: String,
    pub folder_id: String,
    /// Of the request that asked for the operation.
    pub request_id: String,
    /// Running or rolling back.
    pub phase: Phase,
    pub change: Change,
    /// The blob that this attempt writes; empty where it writes none.
    pub blob_id: String,
    /// Ids of blobs that earlier attempts wrote; they have tombstones since the claim.
    pub discarded: Vec<String>,
    /// Whether it is an upload whose idempotency key is not tied to it yet.
    pub key_is_free: bool,
    /// Counts the claims of the operation, from 1.
    pub attempt: i64,
    /// Whether it was to be cancelled when it was claimed.
    pub cancel_requested: bool,
    /// The failure of the attempt before, or the one that is being rolled back.
    pub failure: Option<Failure>,
    /// The fencing token.
    pub token: i64,
}

impl Lease {
    /// The operation, as one that is not to be looked for.
    pub(crate) fn candidate(&self) -> Candidate {
        Candidate {
            id: self.id,
            folder_id: self.folder_id.clone(),
        }
    }
}

/// An operation that may be claimed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Candidate {
    pub id: Id,
    pub folder_id: String,
}

/// The work that a process has already when it looks for more.
#[derive(Debug, Default, Clone)]
pub(crate) struct Occupied {
    /// Not to be looked for.
    pub held: HashSet<Candidate>,
    /// Those that count against the limit of their folder.
    pub in_slots: Vec<Candidate>,
    /// How many of a folder may have a slot. Beyond that only those are looked for that have to
    /// be ended, being cancelled or rolled back.
    pub folder_limit: usize,
}

impl Occupied {
    /// How many operations of a folder have a slot.
    pub(crate) fn in_folder(&self, folder_id: &str) -> usize {
        let in_slots = self.in_slots.iter();
        in_slots.filter(|it| it.folder_id == folder_id).count()
    }
}

/// The answer to the search for work.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct NextClaim {
    pub candidate: Option<Candidate>,
    /// When the next operation may be claimed, where none may be now and one will.
    pub next_at: Option<Timestamp>,
}

/// The order in which operations have their turn, the least first: of the folder in which the fewest leases are in
/// force, of all processes, the one that has waited longest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank {
    leases: usize,
    since: Timestamp,
    id: Id,
}

impl Rank {
    /// The rank of an operation that could be claimed since `claimable_at`. A time of the future was written
    /// before the clock was set back, and counts as now.
    pub(crate) fn new(leases: usize, claimable_at: Timestamp, now: Timestamp, id: Id) -> Self {
        Self {
            leases,
            since: claimable_at.min(now),
            id,
        }
    }
}

/// Whether an operation may be claimed. A time beyond `horizon`, further ahead than any lease or pause, was
/// written before the clock was set back, and counts as past.
pub(crate) fn is_due(claimable_at: Timestamp, now: Timestamp, horizon: Duration) -> bool {
    claimable_at <= now || claimable_at > now.after(horizon)
}

/// How a claim ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Claimed {
    Lease(Box<Lease>),
    /// Another worker was faster, or the operation has ended.
    Gone,
    /// A later version of the server accepted the operation, and this one does not know how to do it: the
    /// operation has failed.
    Ended(Box<Operation>),
}

/// An operation that is to be cancelled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CancelRequested {
    /// As it now stands.
    pub operation: Operation,
    /// Set where it has not ended: if nobody has it, somebody has to end it.
    pub candidate: Option<Candidate>,
}

/// The news that the holder of a lease learns at its renewal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Renewed {
    pub cancel_requested: bool,
}
