//! The store of record. Knows `trait Store` and its implementations. A store decides nothing: it loads the rows that a
//! command of `model` looks up, has the command decided, writes the effects and commits. Never mentions HTTP,
//! protobuf, or where the bytes of a blob lie.

mod call;
#[cfg(test)]
mod conformance;
mod error;
pub(crate) mod memory;
pub(crate) mod moving;
pub(crate) mod postgres;
mod records;
pub(crate) mod sqlite;

use std::collections::HashSet;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::BoxFuture;

use crate::model::rules::SetQuota;
use crate::model::{
    AuditEvent, AuditQuery, BlobSize, ComputeImage, DeletedBlob, DesktopImage, IdentityKey,
    IdentityKind, IdentityRow, ListQuery, LiveBlob, NextClaim, Occupied, Operation, Page, Quota,
    RequestContext, Timestamp,
};

pub(crate) use call::Call;
pub(crate) use error::{Error, Result};
pub(crate) use records::{Recorded, Records};

/// The latest `forget_after` of a tombstone that is at least so old. Its age counts from that time: a tombstone of what
/// a worker was writing is ten minutes older.
fn made_before(now: Timestamp, age: Duration) -> Timestamp {
    match age {
        Duration::ZERO => Timestamp(i64::MAX),
        age => now.before(age),
    }
}

/// How far an id or a time may lie ahead of the clock: by a clock that was set back. One that was set to another
/// year by mistake is forgotten.
const CLOCK_SLIP: Duration = Duration::from_secs(24 * 60 * 60);

/// A database of record. All that is changed is on stable storage before anybody is told.
///
/// Commands of the rules go through `execute`. The other methods are reads, and statements on sets of rows, which
/// decide nothing.
///
/// # Errors
/// Reads fail with [`Error::Refused`] where the image or operation does not exist, and every method with the errors
/// of a database that cannot do its work ([`Error::is_failure`]).
#[async_trait]
pub(crate) trait Store: Send + Sync + 'static {
    /// The time by the store's clock, which may go back.
    fn now(&self) -> Timestamp;

    /// Queues a call once it is polled. The store tells the caller how it ended, after the commit.
    fn submit(&self, call: Box<dyn Call>) -> BoxFuture<'_, ()>;

    /// Whether the disk is full, so that only what frees room is stored.
    fn is_short_of_room(&self) -> bool {
        false
    }

    /// Gives the room that is kept for it to what frees room or ends what was accepted.
    async fn make_room(&self) {}

    /// Returns once there is something to remove that was not there at the last call: blobs that an image has
    /// stopped referring to, or blobs with a tombstone.
    async fn removals(&self);

    /// Asks the database for the version of its schema.
    ///
    /// # Errors
    /// [`Error::NewerSchema`] where a later program has left what this one cannot work with.
    async fn check(&self) -> Result<()>;

    /// Returns once another process may have left work, if that is ever heard of.
    async fn work(&self) {
        std::future::pending().await
    }

    /// Takes no more, and waits until what was taken is written.
    async fn close(&self);

    /// The desktop image with this id.
    async fn desktop_image(&self, id: &str) -> Result<DesktopImage>;

    /// The desktop image with this id, and the blob that it refers to. One that is being created cannot be read
    /// yet: `Refusal::ImageNotReady`.
    async fn desktop_image_blob(&self, id: &str) -> Result<(DesktopImage, LiveBlob)>;

    /// One page of the desktop images of a folder.
    async fn desktop_images(&self, query: ListQuery) -> Result<Page<DesktopImage>>;

    /// The compute image with this id.
    async fn compute_image(&self, id: &str) -> Result<ComputeImage>;

    /// The newest READY image of a family in a folder.
    async fn latest_compute_image_of_family(
        &self,
        folder_id: &str,
        family: &str,
    ) -> Result<Option<ComputeImage>>;

    /// One page of the compute images of a folder.
    async fn compute_images(&self, query: ListQuery) -> Result<Page<ComputeImage>>;

    /// The operation with this id.
    async fn operation(&self, id: &str) -> Result<Operation>;

    /// The first operation under the idempotency key of a request, if there is one. Of another request:
    /// `Refusal::IdempotencyKeyReused`.
    async fn repeated_operation(&self, request: &RequestContext) -> Result<Option<Operation>>;

    /// The operations of a compute image, the newest first, at most `limit` of them, starting
    /// after the one with the id `after`.
    async fn operations_of_compute_image(
        &self,
        image_id: &str,
        after: Option<String>,
        limit: usize,
    ) -> Result<Vec<Operation>>;

    /// The limits that stand, by scope and metric; those of all folders together come first.
    async fn quotas(&self) -> Result<Vec<Quota>>;

    /// Sets a limit, or takes it away, with its audit event. What the images of the scope take is counted anew,
    /// and returned.
    async fn set_quota(&self, set: SetQuota) -> Result<i64>;

    /// The identity row of a key, if there is one.
    async fn identity(&self, key: IdentityKey) -> Result<Option<IdentityRow>>;

    /// All identity rows of a kind, by id.
    async fn identities(&self, kind: IdentityKind) -> Result<Vec<IdentityRow>>;

    /// Forgets identity rows that expired longer ago than `age`, at most `limit` of them, with those that hang on
    /// them; how many had expired.
    async fn forget_expired_identities(&self, age: Duration, limit: usize) -> Result<usize>;

    /// Audit events, the oldest first, and the sequence number up to which all were looked at.
    async fn audit_events(&self, query: AuditQuery) -> Result<(Vec<AuditEvent>, i64)>;

    /// The operation whose turn is next, by `model::Rank`. No time of the queue can be further ahead than
    /// `horizon`.
    async fn next_claim(&self, occupied: Occupied, horizon: Duration) -> Result<NextClaim>;

    /// Forgets operations that ended longer ago than `age`, with their idempotency keys: at most
    /// `limit` of them; how many they were.
    async fn forget_operations(&self, age: Duration, limit: usize) -> Result<usize>;

    /// Forgets audit events older than `age`, at most `limit` rows of them; how many they were. The last one
    /// stays, so that sequence numbers go on from it.
    async fn forget_audit_events(&self, age: Duration, limit: usize) -> Result<usize>;

    /// Prunes names given up longer ago than `age`; page tokens that refer to them expire.
    async fn prune_former_names(&self, age: Duration) -> Result<()>;

    /// Looks at blobs that images have stopped referring to, at most `limit` of them, and makes tombstones of
    /// those that no other image refers to. Returns how many it has looked at.
    async fn remove_unreferenced(&self, limit: usize) -> Result<usize>;

    /// Places a hold: for so long, unless it is renewed or ended, there are no blobs to delete, though there are
    /// tombstones. The id must be new.
    async fn place_hold(&self, id: &str, lease: Duration) -> Result<()>;

    /// Has a hold last for so long from now on; false where it has run out.
    async fn renew_hold(&self, id: &str, lease: Duration) -> Result<bool>;

    /// Ends a hold; none is no error.
    async fn end_hold(&self, id: &str) -> Result<()>;

    /// Blobs whose tombstone is at least so old, all of them where `age` is zero: at most `limit` of them, the oldest
    /// first, after that one. None while a hold stands.
    async fn blobs_to_delete(
        &self,
        age: Duration,
        after: Option<DeletedBlob>,
        limit: usize,
    ) -> Result<Vec<DeletedBlob>>;

    /// Has the age of a blob's tombstone count from now on, since the bytes are being read; none is no error.
    async fn renew_tombstone(&self, blob_id: &str) -> Result<()>;

    /// Forgets blobs whose bytes are removed, but for those that may come back.
    async fn blobs_deleted(&self, ids: Vec<String>) -> Result<()>;

    /// Notes that blobs have other bytes than were written, or none. Bytes that have taken the place of these
    /// meanwhile are not meant.
    async fn mark_damaged(&self, blob_ids: Vec<String>) -> Result<()>;

    /// The ids of all blobs that may have bytes: pending, live, and with a tombstone.
    async fn known_blobs(&self) -> Result<HashSet<String>>;

    /// All live blobs: each has bytes, unless they were lost.
    async fn live_blobs(&self) -> Result<Vec<BlobSize>>;

    /// The ids of images that have the bytes of a blob, at most `limit` of them, desktop images first, by id.
    async fn images_of_blob(&self, blob_id: &str, limit: usize) -> Result<Vec<String>>;

    /// The name of the installation that the database is of: the one that was noted first, or `made` where none was.
    async fn installation(&self, made: String) -> Result<String>;

    /// Takes or renews the lease of the one process that does what is to be done from time to time; false where
    /// another process has it.
    async fn take_maintenance(&self, _holder: &str, _lease: Duration) -> Result<bool> {
        Ok(true)
    }
}
