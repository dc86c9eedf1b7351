//! The store in a PostgreSQL database, which several processes may share. Each has one transaction of commands in flight;
//! rows that are decided on are locked, and what cannot be locked, an absence, is decided by the unique indexes.

mod audit;
mod clock;
mod columns;
mod connection;
mod effect_rows;
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
mod listener;
mod listing;
mod lookups;
mod maintenance;
mod moving;
mod operation_rows;
mod operations;
mod password;
mod queue;
mod quotas;
mod records;
mod schema;
mod server;
mod settings;
mod transaction;
mod writer;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::{CLOCK_SLIP, Call, Error, Result, Store, made_before};
use crate::model::rules::SetQuota;
use crate::model::{
    AuditEvent, AuditQuery, BlobSize, Clock, ComputeImage, DeletedBlob, DesktopImage, Id,
    IdGenerator, IdentityKey, IdentityKind, IdentityRow, ListQuery, LiveBlob, NextClaim, Occupied,
    Operation, Page, Quota, RequestContext, Timestamp,
};
use clock::ServerClock;
use connection::{Connection, Pool};
use queue::Time;
pub(crate) use records::PostgresRecords;
pub use settings::PostgresSettings;
use settings::Settings;
use transaction::{Transaction, Tries};
use writer::Writer;

/// Connections that read, and run statements on sets of rows. The writer has one more, and the listener.
const READERS: u32 = 8;
/// Connections that a server has at the most.
const CONNECTIONS: u32 = READERS + 2;

/// The store of record in a PostgreSQL database.
pub(crate) struct PostgresStore {
    writer: Writer,
    readers: Pool,
    shared: Arc<Shared>,
    /// The address of the database, without its password.
    shown: String,
    /// The clock of the database server, where time is not a test's.
    clock: Option<Arc<ServerClock>>,
    /// The folder after which the search for work goes on.
    searched: AtomicI64,
    listener: JoinHandle<()>,
}

/// The parts that the writer's task works with, too.
struct Shared {
    clock: Arc<dyn Clock>,
    ids: IdGenerator,
    removals: Notify,
    /// Notified of work that a process has left.
    work: Notify,
}

/// Asks on a connection, once more on a new one where the connection was lost, and again where another process came
/// between: a read, too, may be refused by a database that serialises transactions, or wait in vain for a lock.
macro_rules! read {
    ($self:ident, $connection:ident => $asked:expr) => {{
        let (mut is_fresh, mut tries) = (false, Tries::alone());
        loop {
            let $connection = $self.readers.take(is_fresh).await?;
            let asked = $asked.await;
            drop($connection);
            match asked {
                Err(error) if !is_fresh && may_be_asked_again(&error) => is_fresh = true,
                Err(error) if !error::is_lost(&error) => tries
                    .again(error)
                    .await
                    .map_err(error::overtaken_too_often)?,
                answered => break answered,
            }
        }
    }};
}

/// Runs statements on sets of rows in their turn among commands, in a transaction of their own, and again where another
/// process came between.
macro_rules! write {
    ($self:ident, $transaction:ident => $work:expr) => {{
        let _turn = $self.writer.turn().await?;
        let mut tries = Tries::alone();
        loop {
            let ended = async {
                let $transaction = Transaction::begin(&$self.readers).await?;
                let worked = $work.await;
                $transaction.end(worked).await
            };
            match ended.await {
                Ok(done) => break Ok(done),
                Err(error) => tries
                    .again(error)
                    .await
                    .map_err(error::overtaken_too_often)?,
            }
        }
    }};
}

fn may_be_asked_again(error: &Error) -> bool {
    error::is_lost(error) || error::is_outdated(error)
}

impl PostgresStore {
    /// Opens a database, and brings its schema up to date.
    ///
    /// # Errors
    /// [`Error::Start`], [`Error::Foreign`], [`Error::NewerSchema`], and those of the database.
    pub(crate) async fn open(settings: &PostgresSettings, clock: Arc<dyn Clock>) -> Result<Self> {
        let clock = Arc::new(ServerClock::new(clock));
        let ids = |last_key| IdGenerator::new(clock.clone(), last_key);
        Self::open_as(settings, clock.clone(), Some(clock.clone()), ids).await
    }

    /// The same with the time of a test, and with ids that are greater than those up to the key that `ids` is given.
    #[cfg(test)]
    pub(in crate::store) async fn open_with(
        settings: &PostgresSettings,
        clock: Arc<dyn Clock>,
        ids: impl FnOnce(i64) -> IdGenerator,
    ) -> Result<Self> {
        Self::open_as(settings, clock, None, ids).await
    }

    async fn open_as(
        settings: &PostgresSettings,
        clock: Arc<dyn Clock>,
        server_clock: Option<Arc<ServerClock>>,
        ids: impl FnOnce(i64) -> IdGenerator,
    ) -> Result<Self> {
        let settings = Settings::new(settings)?;
        let shown = settings.shown().to_owned();
        let readers = Pool::new(settings.clone(), READERS as usize);
        let writers = Pool::new(settings.clone(), 1);
        let prepared = prepare(&readers, &writers, server_clock.as_deref(), &shown).await;
        let last_key = prepared.map_err(|error| error::at_start(&shown, error))?;
        let latest = Id::first_key(clock.now().after(CLOCK_SLIP));
        let shared = Arc::new(Shared {
            ids: ids(if last_key < latest { last_key } else { 0 }),
            clock,
            removals: Notify::new(),
            work: Notify::new(),
        });
        Ok(Self {
            writer: Writer::start(writers, shared.clone()),
            readers,
            shown,
            listener: listener::start(settings, shared.clone()),
            shared,
            clock: server_clock,
            searched: AtomicI64::new(0),
        })
    }
}

/// Makes the database ready, with all connections that a server may have; the greatest key of its rows.
async fn prepare(
    readers: &Pool,
    writers: &Pool,
    clock: Option<&ServerClock>,
    shown: &str,
) -> Result<i64> {
    // Connections that the database does not grant now would be missing under load. An address that leads nowhere is
    // told at once.
    readers.fill(READERS).await?;
    writers.fill(1).await?;
    let mut tries = Tries::alone();
    loop {
        match make_ready(readers, clock, shown).await {
            Ok(last_key) => return Ok(last_key),
            Err(error) => tries.again(error).await?,
        }
    }
}

async fn make_ready(readers: &Pool, clock: Option<&ServerClock>, shown: &str) -> Result<i64> {
    let connection = readers.take(false).await?;
    server::check(&connection).await?;
    if let Some(clock) = clock {
        clock.look(&connection).await?;
    }
    drop(connection);
    schema::migrate(readers, shown).await?;
    last_key(&*readers.take(false).await?).await
}

#[async_trait]
impl Store for PostgresStore {
    fn now(&self) -> Timestamp {
        self.shared.clock.now()
    }

    fn submit(&self, call: Box<dyn Call>) -> BoxFuture<'_, ()> {
        self.writer.submit(call)
    }

    async fn removals(&self) {
        self.shared.removals.notified().await;
    }

    async fn work(&self) {
        self.shared.work.notified().await;
    }

    async fn close(&self) {
        self.listener.abort();
        self.writer.close().await;
        self.readers.close(READERS).await;
    }

    async fn check(&self) -> Result<()> {
        read!(self, connection => schema::check(&connection, &self.shown))
    }

    async fn desktop_image(&self, id: &str) -> Result<DesktopImage> {
        Ok(read!(self, connection => images::find_desktop_image(&connection, id))?.image)
    }

    async fn desktop_image_blob(&self, id: &str) -> Result<(DesktopImage, LiveBlob)> {
        read!(self, connection => images::find_blob(&connection, id))
    }

    async fn desktop_images(&self, query: ListQuery) -> Result<Page<DesktopImage>> {
        self.page(&images::DESKTOP_IMAGES, &query).await
    }

    async fn compute_image(&self, id: &str) -> Result<ComputeImage> {
        read!(self, connection => images::find_compute_image(&connection, id))
    }

    async fn latest_compute_image_of_family(
        &self,
        folder_id: &str,
        family: &str,
    ) -> Result<Option<ComputeImage>> {
        read!(self, connection => images::latest_of_family(&connection, folder_id, family))
    }

    async fn compute_images(&self, query: ListQuery) -> Result<Page<ComputeImage>> {
        self.page(&images::COMPUTE_IMAGES, &query).await
    }

    async fn operation(&self, id: &str) -> Result<Operation> {
        read!(self, connection => operations::find(&connection, id))
    }

    async fn repeated_operation(&self, request: &RequestContext) -> Result<Option<Operation>> {
        if request.idempotency.is_none() {
            return Ok(None);
        }
        read!(self, connection => operations::repeated(&connection, request))
    }

    async fn operations_of_compute_image(
        &self,
        image_id: &str,
        after: Option<String>,
        limit: usize,
    ) -> Result<Vec<Operation>> {
        read!(self, connection =>
            operations::of_compute_image(&connection, image_id, after.as_deref(), limit))
    }

    async fn quotas(&self) -> Result<Vec<Quota>> {
        read!(self, connection => quotas::all(&connection))
    }

    async fn set_quota(&self, set: SetQuota) -> Result<i64> {
        write!(self, transaction => quotas::set(&transaction, self.now(), &set))
    }

    async fn identity(&self, key: IdentityKey) -> Result<Option<IdentityRow>> {
        read!(self, connection => identity::find(&connection, &key))
    }

    async fn identities(&self, kind: IdentityKind) -> Result<Vec<IdentityRow>> {
        read!(self, connection => identity::of_kind(&connection, kind))
    }

    async fn forget_expired_identities(&self, age: Duration, limit: usize) -> Result<usize> {
        let before = self.now().before(age);
        write!(self, transaction => identity::forget_expired(&transaction, before, limit))
    }

    async fn audit_events(&self, query: AuditQuery) -> Result<(Vec<AuditEvent>, i64)> {
        self.number_events().await?;
        read!(self, connection => audit::read(&connection, &query))
    }

    async fn next_claim(&self, occupied: Occupied, horizon: Duration) -> Result<NextClaim> {
        let time = match &self.clock {
            Some(clock) => Time::Of(clock),
            None => Time::Given(self.now()),
        };
        read!(self, connection =>
            queue::next_claim(&connection, &occupied, &time, horizon, &self.searched))
    }

    async fn forget_operations(&self, age: Duration, limit: usize) -> Result<usize> {
        let now = self.now();
        write!(self, transaction => operations::forget(&transaction, now, age, limit))
    }

    async fn forget_audit_events(&self, age: Duration, limit: usize) -> Result<usize> {
        let now = self.now();
        self.number_events().await?;
        write!(self, transaction => audit::forget(&transaction, now, age, limit))
    }

    async fn prune_former_names(&self, age: Duration) -> Result<()> {
        const BATCH: usize = 1000;
        let before = self.now().before(age);
        loop {
            let pruned: Result<usize> = write!(self, transaction =>
                listing::prune_former_names(&transaction, before, BATCH));
            if pruned? < BATCH {
                return Ok(());
            }
        }
    }

    async fn remove_unreferenced(&self, limit: usize) -> Result<usize> {
        let now = self.now();
        write!(self, transaction => garbage::remove_unreferenced(&transaction, now, limit))
    }

    async fn place_hold(&self, id: &str, lease: Duration) -> Result<()> {
        let now = self.now();
        let until = now.after(lease);
        write!(self, transaction => holds::place(&transaction, now, id, until))
    }

    async fn renew_hold(&self, id: &str, lease: Duration) -> Result<bool> {
        let now = self.now();
        let until = now.after(lease);
        write!(self, transaction => holds::renew(&transaction, now, id, until))
    }

    async fn end_hold(&self, id: &str) -> Result<()> {
        write!(self, transaction => holds::end(&transaction, id))
    }

    async fn blobs_to_delete(
        &self,
        age: Duration,
        after: Option<DeletedBlob>,
        limit: usize,
    ) -> Result<Vec<DeletedBlob>> {
        let now = self.now();
        let before = made_before(now, age);
        read!(self, connection =>
            garbage::blobs_to_delete(&connection, now, before, after.clone(), limit))
    }

    async fn renew_tombstone(&self, blob_id: &str) -> Result<()> {
        let now = self.now();
        write!(self, transaction => garbage::renew_tombstone(&transaction, now, blob_id))
    }

    async fn blobs_deleted(&self, ids: Vec<String>) -> Result<()> {
        let now = self.now();
        write!(self, transaction => garbage::blobs_deleted(&transaction, now, &ids))
    }

    async fn mark_damaged(&self, blob_ids: Vec<String>) -> Result<()> {
        write!(self, transaction => garbage::mark_damaged(&transaction, &blob_ids))
    }

    async fn known_blobs(&self) -> Result<HashSet<String>> {
        read!(self, connection => garbage::known(&connection))
    }

    async fn live_blobs(&self) -> Result<Vec<BlobSize>> {
        read!(self, connection => garbage::live(&connection))
    }

    async fn images_of_blob(&self, blob_id: &str, limit: usize) -> Result<Vec<String>> {
        read!(self, connection => garbage::images_of(&connection, blob_id, limit))
    }

    async fn installation(&self, made: String) -> Result<String> {
        write!(self, transaction => installation::named(&transaction, &made))
    }

    async fn take_maintenance(&self, holder: &str, lease: Duration) -> Result<bool> {
        let now = self.now();
        write!(self, transaction =>
            maintenance::take(&transaction, now, holder, now.after(lease)))
    }
}

impl PostgresStore {
    async fn page<T: Send>(&self, table: &listing::Table<T>, query: &ListQuery) -> Result<Page<T>> {
        if !listing::has_segments(query) {
            return read!(self, connection => listing::page(&connection, table, query));
        }
        let mut tries = Tries::alone();
        loop {
            let read = async {
                let transaction = Transaction::begin_reading(&self.readers).await?;
                let page = listing::page(&transaction, table, query).await;
                transaction.roll_back().await;
                page
            };
            match read.await {
                Err(error) if !error::is_lost(&error) => tries
                    .again(error)
                    .await
                    .map_err(error::overtaken_too_often)?,
                read => return read,
            }
        }
    }

    async fn number_events(&self) -> Result<()> {
        let mut tries = Tries::alone();
        while let Err(error) = audit::number(&self.readers).await {
            let again = tries.again(error).await;
            again.map_err(error::overtaken_too_often)?;
        }
        Ok(())
    }
}

/// The greatest key that was ever given, as far as rows remember.
async fn last_key(connection: &Connection) -> Result<i64> {
    let last = connection
        .query_opt(
            "SELECT greatest((SELECT max(key) FROM operations), (SELECT max(key) FROM compute_images),
                             (SELECT max(key) FROM desktop_images), (SELECT max(key) FROM blobs),
                             (SELECT greatest(operation_key, image_key) FROM audit_events
                              ORDER BY arrival DESC LIMIT 1), 0)",
            &[],
        )
        .await?;
    Ok(last.map_or(Ok(0), |row| row.try_get(0))?)
}
