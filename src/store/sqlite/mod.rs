//! The store in one SQLite file.

mod audit;
mod checkpoint;
mod columns;
mod content_folder;
mod effects;
mod error;
mod facts;
mod folders;
mod garbage;
mod holds;
mod identity;
mod image_rows;
mod images;
mod installation;
mod listing;
mod moving;
mod operation_rows;
mod operations;
mod queue;
mod quotas;
mod readers;
mod schema;
mod snapshot;
#[cfg(test)]
mod tests;
mod transaction;
mod verification;
mod writer;

use std::collections::HashSet;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};
use tokio::sync::Notify;

use super::{CLOCK_SLIP, Call, Error, Result, Store, made_before};
use crate::ballast::Ballast;
use crate::model::rules::SetQuota;
use crate::model::{
    AuditEvent, AuditQuery, BlobSize, Clock, ComputeImage, DeletedBlob, DesktopImage, Id,
    IdGenerator, IdentityKey, IdentityKind, IdentityRow, ListQuery, LiveBlob, NextClaim, Occupied,
    Operation, Page, Quota, RequestContext, Timestamp,
};
use readers::Readers;
use transaction::Transaction;
use writer::Writer;

pub(crate) use moving::Departing;
pub(crate) use verification::Verification;

const STATEMENTS_PER_CONNECTION: usize = 64;
/// Pages kept in memory, in KiB: of the connection that writes, which holds the ends of all
/// indexes, and of each that reads. A larger cache would cost the writer more than it saves: as long as
/// the database is smaller than a GiB, a commit that split a page between others has SQLite look through
/// all that is cached. What random idempotency keys touch outgrows four times as much, too.
const WRITER_CACHE: i64 = 16 << 10;
const READER_CACHE: i64 = 8 << 10;
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// The store of record in one file.
pub(crate) struct SqliteStore {
    writer: Writer,
    readers: Readers,
    shared: Arc<Shared>,
}

/// The parts that the writer's thread works with, too.
struct Shared {
    clock: Arc<dyn Clock>,
    ids: IdGenerator,
    removals: Notify,
    ballast: OnceLock<Ballast>,
}

impl Shared {
    /// Whether the disk is full and only what frees room is stored.
    fn is_short_of_room(&self) -> bool {
        self.ballast.get().is_some_and(Ballast::is_given)
    }
}

impl SqliteStore {
    /// Opens the database at `path`, makes it where there is none, and brings its schema up to
    /// date. Blocks.
    ///
    /// # Errors
    /// [`Error::Foreign`], [`Error::NewerSchema`], [`Error::ReadOnly`], and those of the database.
    pub(crate) fn open(path: &Path, clock: Arc<dyn Clock>) -> Result<Self> {
        Self::open_with(path, clock.clone(), |last_key| {
            IdGenerator::new(clock, last_key)
        })
    }

    /// The same with ids that are greater than those up to the key that `ids` is given.
    pub(in crate::store) fn open_with(
        path: &Path,
        clock: Arc<dyn Clock>,
        ids: impl FnOnce(i64) -> IdGenerator,
    ) -> Result<Self> {
        // Before anything is written.
        schema::check(&Connection::open(path)?, path)?;
        let mut connection = connect(path, WRITER_CACHE)?;
        if connection.is_readonly(rusqlite::MAIN_DB)? {
            return Err(Error::ReadOnly(format!("{} is read-only", path.display())));
        }
        schema::migrate(&mut connection, path)?;
        let last_key = last_key(&connection)?;
        let latest = Id::first_key(clock.now().after(CLOCK_SLIP));
        let shared = Arc::new(Shared {
            ids: ids(if last_key < latest { last_key } else { 0 }),
            clock,
            removals: Notify::new(),
            ballast: OnceLock::new(),
        });
        let checkpoints = connect(path, READER_CACHE)?;
        Ok(Self {
            writer: Writer::start(connection, checkpoints, shared.clone())?,
            readers: Readers::new(path.to_owned()),
            shared,
        })
    }

    /// Gives what frees room the room of `ballast` where the disk is full. Counts the first time.
    pub(crate) fn keep_room(&self, ballast: Ballast) {
        // A second one would be of the same folder.
        let _ = self.shared.ballast.set(ballast);
    }

    /// Whether nothing was ever accepted, as far as rows remember.
    pub(crate) async fn knows_nothing(&self) -> Result<bool> {
        self.readers.read(content_folder::knows_nothing).await
    }

    /// Device and inode of the folder that held the blobs at the last start.
    pub(crate) async fn content_folder(&self) -> Result<Option<(u64, u64)>> {
        self.readers.read(content_folder::get).await
    }

    /// Notes device and inode of the folder that holds the blobs.
    pub(crate) async fn set_content_folder(&self, folder: (u64, u64)) -> Result<()> {
        self.write_in_any_case(move |transaction, _| content_folder::set(transaction, folder))
            .await
    }

    /// Runs a statement on sets of rows in a transaction with others, at the store's time. It may run more than
    /// once.
    fn write<T: Send + 'static>(
        &self,
        work: impl FnMut(&Transaction<'_>, Timestamp) -> Result<T> + Send + 'static,
    ) -> impl Future<Output = Result<T>> + Send {
        self.writer.run(work)
    }

    /// Like `write`, for what frees room: where the disk is full, it gets the room that is kept.
    async fn write_in_any_case<T: Send + 'static, F>(&self, work: F) -> Result<T>
    where
        F: FnMut(&Transaction<'_>, Timestamp) -> Result<T> + Clone + Send + 'static,
    {
        match self.write(work.clone()).await {
            Err(Error::Full) => {
                self.make_room().await;
                self.write(work).await
            }
            ended => ended,
        }
    }
}

#[async_trait]
impl Store for SqliteStore {
    fn now(&self) -> Timestamp {
        self.shared.clock.now()
    }

    fn submit(&self, call: Box<dyn Call>) -> BoxFuture<'_, ()> {
        self.writer.submit(call)
    }

    fn is_short_of_room(&self) -> bool {
        self.shared.is_short_of_room()
    }

    async fn make_room(&self) {
        if let Some(ballast) = self.shared.ballast.get().cloned() {
            // Where there is nothing to give, the log still has the room that it took.
            let given = tokio::task::spawn_blocking(move || ballast.give()).await;
            if let Err(error) = given {
                tracing::error!(%error, "room was not given");
            }
        }
        self.writer.start_log_over();
    }

    async fn removals(&self) {
        self.shared.removals.notified().await;
    }

    async fn close(&self) {
        self.writer.close().await;
        self.readers.close().await;
    }

    async fn check(&self) -> Result<()> {
        let path = self.readers.path().to_owned();
        self.readers
            .read(move |transaction| schema::check_is_current(transaction, &path))
            .await
    }

    async fn desktop_image(&self, id: &str) -> Result<DesktopImage> {
        let id = id.to_owned();
        self.readers
            .read(move |transaction| images::find_desktop_image(transaction, &id))
            .await
    }

    async fn desktop_image_blob(&self, id: &str) -> Result<(DesktopImage, LiveBlob)> {
        let id = id.to_owned();
        self.readers
            .read(move |transaction| images::find_blob(transaction, &id))
            .await
    }

    async fn desktop_images(&self, query: ListQuery) -> Result<Page<DesktopImage>> {
        self.readers
            .read(move |transaction| listing::page(transaction, &images::DESKTOP_IMAGES, &query))
            .await
    }

    async fn compute_image(&self, id: &str) -> Result<ComputeImage> {
        let id = id.to_owned();
        self.readers
            .read(move |transaction| images::find_compute_image(transaction, &id))
            .await
    }

    async fn latest_compute_image_of_family(
        &self,
        folder_id: &str,
        family: &str,
    ) -> Result<Option<ComputeImage>> {
        let (folder_id, family) = (folder_id.to_owned(), family.to_owned());
        self.readers
            .read(move |transaction| images::latest_of_family(transaction, &folder_id, &family))
            .await
    }

    async fn compute_images(&self, query: ListQuery) -> Result<Page<ComputeImage>> {
        self.readers
            .read(move |transaction| listing::page(transaction, &images::COMPUTE_IMAGES, &query))
            .await
    }

    async fn operation(&self, id: &str) -> Result<Operation> {
        let id = id.to_owned();
        self.readers
            .read(move |transaction| operations::find(transaction, &id))
            .await
    }

    async fn repeated_operation(&self, request: &RequestContext) -> Result<Option<Operation>> {
        if request.idempotency.is_none() {
            return Ok(None);
        }
        let request = request.clone();
        self.readers
            .read(move |transaction| operations::repeated(transaction, &request))
            .await
    }

    async fn operations_of_compute_image(
        &self,
        image_id: &str,
        after: Option<String>,
        limit: usize,
    ) -> Result<Vec<Operation>> {
        let image_id = image_id.to_owned();
        self.readers
            .read(move |transaction| {
                operations::of_compute_image(transaction, &image_id, after.as_deref(), limit)
            })
            .await
    }

    async fn quotas(&self) -> Result<Vec<Quota>> {
        self.readers.read(quotas::all).await
    }

    async fn set_quota(&self, set: SetQuota) -> Result<i64> {
        if self.is_short_of_room() {
            return Err(Error::Full);
        }
        self.write(move |transaction, now| quotas::set(transaction, now, &set))
            .await
    }

    async fn identity(&self, key: IdentityKey) -> Result<Option<IdentityRow>> {
        self.readers
            .read(move |transaction| identity::find(transaction, &key))
            .await
    }

    async fn identities(&self, kind: IdentityKind) -> Result<Vec<IdentityRow>> {
        self.readers
            .read(move |transaction| identity::of_kind(transaction, kind))
            .await
    }

    async fn forget_expired_identities(&self, age: Duration, limit: usize) -> Result<usize> {
        self.write(move |transaction, now| {
            identity::forget_expired(transaction, now.before(age), limit)
        })
        .await
    }

    async fn audit_events(&self, query: AuditQuery) -> Result<(Vec<AuditEvent>, i64)> {
        self.readers
            .read(move |transaction| audit::read(transaction, &query))
            .await
    }

    async fn next_claim(&self, occupied: Occupied, horizon: Duration) -> Result<NextClaim> {
        let now = self.now();
        self.readers
            .read(move |transaction| queue::next_claim(transaction, &occupied, now, horizon))
            .await
    }

    async fn forget_operations(&self, age: Duration, limit: usize) -> Result<usize> {
        self.write(move |transaction, now| operations::forget(transaction, now, age, limit))
            .await
    }

    async fn forget_audit_events(&self, age: Duration, limit: usize) -> Result<usize> {
        self.write(move |transaction, now| audit::forget(transaction, now, age, limit))
            .await
    }

    async fn prune_former_names(&self, age: Duration) -> Result<()> {
        const BATCH: usize = 1000;
        loop {
            let pruned = self.write(move |transaction, now| {
                listing::prune_former_names(transaction, now.before(age), BATCH)
            });
            if pruned.await? < BATCH {
                return Ok(());
            }
        }
    }

    async fn remove_unreferenced(&self, limit: usize) -> Result<usize> {
        self.write_in_any_case(move |transaction, now| {
            garbage::remove_unreferenced(transaction, now, limit)
        })
        .await
    }

    async fn place_hold(&self, id: &str, lease: Duration) -> Result<()> {
        let id = id.to_owned();
        self.write_in_any_case(move |transaction, now| {
            holds::place(transaction, now, &id, now.after(lease))
        })
        .await
    }

    async fn renew_hold(&self, id: &str, lease: Duration) -> Result<bool> {
        let id = id.to_owned();
        self.write_in_any_case(move |transaction, now| {
            holds::renew(transaction, now, &id, now.after(lease))
        })
        .await
    }

    async fn end_hold(&self, id: &str) -> Result<()> {
        let id = id.to_owned();
        self.write_in_any_case(move |transaction, _| holds::end(transaction, &id))
            .await
    }

    async fn blobs_to_delete(
        &self,
        age: Duration,
        after: Option<DeletedBlob>,
        limit: usize,
    ) -> Result<Vec<DeletedBlob>> {
        let now = self.now();
        let before = made_before(now, age);
        self.readers
            .read(move |transaction| {
                garbage::blobs_to_delete(transaction, now, before, after, limit)
            })
            .await
    }

    async fn renew_tombstone(&self, blob_id: &str) -> Result<()> {
        let id = blob_id.to_owned();
        self.write(move |transaction, now| garbage::renew_tombstone(transaction, now, &id))
            .await
    }

    async fn blobs_deleted(&self, ids: Vec<String>) -> Result<()> {
        self.write_in_any_case(move |transaction, now| {
            garbage::blobs_deleted(transaction, now, &ids)
        })
        .await
    }

    async fn mark_damaged(&self, blob_ids: Vec<String>) -> Result<()> {
        self.write(move |transaction, _| garbage::mark_damaged(transaction, &blob_ids))
            .await
    }

    async fn known_blobs(&self) -> Result<HashSet<String>> {
        self.readers.read(garbage::known).await
    }

    async fn live_blobs(&self) -> Result<Vec<BlobSize>> {
        self.readers.read(garbage::live).await
    }

    async fn images_of_blob(&self, blob_id: &str, limit: usize) -> Result<Vec<String>> {
        let id = blob_id.to_owned();
        self.readers
            .read(move |transaction| garbage::images_of(transaction, &id, limit))
            .await
    }

    async fn installation(&self, made: String) -> Result<String> {
        self.write_in_any_case(move |transaction, _| installation::named(transaction, &made))
            .await
    }
}

/// Opens a database that is there. Of one that was taken away, SQLite would make an empty one in its place, and remove
/// the log beside it, with all that is committed in it.
fn connect(path: &Path, cache_kibibytes: i64) -> Result<Connection> {
    connect_to(path, cache_kibibytes).map_err(|error| match path.try_exists() {
        Ok(false) => Error::Unreachable(format!("{} is not there", path.display()).into()),
        _ => error,
    })
}

fn connect_to(path: &Path, cache_kibibytes: i64) -> Result<Connection> {
    let flags = OpenFlags::default() & !OpenFlags::SQLITE_OPEN_CREATE;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_PER_CONNECTION);
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "cache_size", -cache_kibibytes)?;
    // Plans do not depend on values, or statements would be prepared anew for each.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    // Checkpoints have a thread of their own.
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    Ok(connection)
}

/// The greatest key that was ever given, as far as rows remember.
fn last_key(connection: &Connection) -> Result<i64> {
    let last = connection.query_row(
        "SELECT max(coalesce((SELECT max(key) FROM operations), 0),
                    coalesce((SELECT max(key) FROM compute_images), 0),
                    coalesce((SELECT max(key) FROM desktop_images), 0),
                    coalesce((SELECT max(key) FROM contents), 0),
                    coalesce((SELECT max(operation_key, image_key) FROM audit_events
                              ORDER BY sequence DESC LIMIT 1), 0))",
        [],
        |row| row.get(0),
    )?;
    Ok(last)
}
