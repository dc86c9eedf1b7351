//! The store in one SQLite file.

mod accept;
mod audit;
mod checkpoint;
pub mod claims;
mod columns;
mod compute_images;
mod content_folder;
pub mod contents;
mod desktop_images;
mod differences;
mod done;
mod endings;
mod folders;
mod listing;
mod operations;
mod quotas;
mod readers;
mod schema;
mod transaction;
mod uploads;
pub mod verification;
mod writer;

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rusqlite::Connection;
use rusqlite::config::DbConfig;
use tokio::sync::Notify;

use crate::ballast::Ballast;

use super::{Error, Result};
use crate::model::{Clock, Id, IdGenerator, Timestamp};
use quotas::Limits;
use readers::Readers;
use transaction::Transaction;
use writer::Writer;

const STATEMENTS_PER_CONNECTION: usize = 64;
/// Pages kept in memory, in KiB: of the connection that writes, which holds the ends of all
/// indexes, and of each that reads. A larger cache would cost the writer more than it saves: as long as
/// the database is smaller than a GiB, a commit that split a page between others has SQLite look through
/// all that is cached. What random idempotency keys touch outgrows four times as much, too.
const WRITER_CACHE: i64 = 16 << 10;
const READER_CACHE: i64 = 8 << 10;
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// An id may lie ahead of the clock by this: a clock that was set back. One that was set to
/// another year by mistake is forgotten.
const CLOCK_SLIP: Duration = Duration::from_secs(24 * 60 * 60);

/// The store of record. Cheap to clone; all clones share one writer.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    writer: Writer,
    readers: Readers,
    clock: Arc<dyn Clock>,
    ids: IdGenerator,
    limits: Limits,
    removals: Notify,
    ballast: Arc<OnceLock<Ballast>>,
}

impl Store {
    /// Opens the database at `path`, makes it where there is none, and brings its schema up to
    /// date. Blocks.
    pub fn open(path: &Path, clock: Arc<dyn Clock>) -> Result<Self> {
        // Before anything is written.
        schema::check(&Connection::open(path)?, path)?;
        let mut connection = connect(path, WRITER_CACHE)?;
        if connection.is_readonly(rusqlite::MAIN_DB)? {
            return Err(Error::ReadOnly(format!("{} is read-only", path.display())));
        }
        schema::migrate(&mut connection, path)?;
        let last_key = last_key(&connection)?;
        let limits = Limits::load(&connection)?;
        let latest = Id::first_key(clock.now().after(CLOCK_SLIP));
        let ids = IdGenerator::new(clock.clone(), if last_key < latest { last_key } else { 0 });
        let ballast = Arc::<OnceLock<Ballast>>::default();
        Ok(Self {
            inner: Arc::new(Inner {
                writer: Writer::start(connection, connect(path, READER_CACHE)?, ballast.clone())?,
                readers: Readers::new(path.to_owned()),
                ids,
                limits,
                clock,
                removals: Notify::new(),
                ballast,
            }),
        })
    }

    /// Waits until what was accepted is written and the file is closed.
    pub async fn close(&self) {
        self.inner.writer.close().await;
        self.inner.readers.close();
    }

    /// Gives what makes room the room of `ballast` where the disk is full. Counts the first time.
    pub fn keep_room(&self, ballast: Ballast) {
        // A second one would be of the same folder.
        let _ = self.inner.ballast.set(ballast);
    }

    /// Whether the disk is full and only what makes room is stored.
    fn is_short_of_room(&self) -> bool {
        let ballast = self.inner.ballast.get();
        ballast.is_some_and(Ballast::is_given)
    }

    /// Like `write`, for what makes room or brings to its end what was accepted: where the disk is full, it
    /// gets the room that is kept.
    async fn write_in_any_case<T: Send + 'static, F>(&self, work: F) -> Result<T>
    where
        F: FnMut(&Transaction<'_>, &Self) -> Result<T> + Clone + Send + 'static,
    {
        match self.write(work.clone()).await {
            Err(Error::Full) => {
                self.make_room().await;
                self.write(work).await
            }
            ended => ended,
        }
    }

    async fn make_room(&self) {
        if let Some(ballast) = self.inner.ballast.get().cloned() {
            // Where there is nothing to give, the log still has the room that it took.
            let given = tokio::task::spawn_blocking(move || ballast.give()).await;
            if let Err(error) = given {
                tracing::error!(%error, "room was not given");
            }
        }
        self.inner.writer.start_log_over();
    }

    /// The time by the store's clock, which may go back.
    pub fn now(&self) -> Timestamp {
        self.inner.clock.now()
    }

    /// Returns once there is something to remove that was not there at the last call: contents that an
    /// image has stopped referring to, or bytes among the tombstones.
    pub async fn removals(&self) {
        self.inner.removals.notified().await;
    }

    /// Wakes who waits for removals. The commit that they wait for comes before whatever they ask for.
    fn wake_removals(&self) {
        self.inner.removals.notify_one();
    }

    fn limits(&self) -> &Limits {
        &self.inner.limits
    }

    fn new_id(&self) -> Id {
        self.inner.ids.generate()
    }

    /// Runs `work` in a transaction with others. It may run more than once, and must refuse
    /// before its first write: only a failure of the database undoes what it wrote.
    fn write<T: Send + 'static, F>(
        &self,
        mut work: F,
    ) -> impl Future<Output = Result<T>> + Send + use<T, F>
    where
        F: FnMut(&Transaction<'_>, &Self) -> Result<T> + Send + 'static,
    {
        let store = self.clone();
        self.inner
            .writer
            .submit(move |transaction| work(transaction, &store))
    }

    /// Runs `work` on a snapshot of the database.
    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.inner.readers.read(work).await
    }
}

fn connect(path: &Path, cache_kibibytes: i64) -> Result<Connection> {
    let connection = Connection::open(path)?;
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

/// A value in the database that this program cannot have written.
fn unreadable(what: String) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, what.into())
}

/// A JSON column as a value of the domain.
fn from_json<T: serde::de::DeserializeOwned>(text: &str) -> rusqlite::Result<T> {
    serde_json::from_str(text).map_err(|error| unreadable(error.to_string()))
}
