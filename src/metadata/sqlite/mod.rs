//! The store in one SQLite file.

pub mod compute_images;
pub mod contents;
pub mod desktop_images;
mod listing;
pub mod operations;
mod schema;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use rusqlite::{Connection, Transaction};

use super::{Clock, Error, IdGenerator, Result, Timestamp};
use writer::Writer;

/// How many idle connections for reading are kept.
const IDLE_READERS: usize = 8;
const STATEMENTS_PER_CONNECTION: usize = 64;

/// The store of record. Cheap to clone; all clones share one writer.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    path: PathBuf,
    writer: Writer,
    readers: Mutex<Vec<Connection>>,
    clock: Arc<dyn Clock>,
    ids: IdGenerator,
}

impl Store {
    /// Opens the database at `path`, makes it where there is none, and brings its schema up to
    /// date. Blocks.
    pub fn open(path: &Path, clock: Arc<dyn Clock>) -> Result<Self> {
        let mut connection = connect(path)?;
        schema::migrate(&mut connection, path)?;
        Ok(Self {
            inner: Arc::new(Inner {
                path: path.to_owned(),
                writer: Writer::start(connection),
                readers: Mutex::new(Vec::new()),
                ids: IdGenerator::new(clock.clone()),
                clock,
            }),
        })
    }

    /// Waits until what was accepted is written and the file is closed.
    pub async fn close(&self) {
        self.inner.writer.close().await;
        self.lock_readers().clear();
    }

    pub(super) fn now(&self) -> Timestamp {
        self.inner.clock.now()
    }

    pub(super) fn ids(&self) -> &IdGenerator {
        &self.inner.ids
    }

    /// Runs `work` in a transaction with others. It may run more than once, and must refuse
    /// before its first write: only a failure of the database undoes what it wrote.
    pub(super) async fn write<T: Send + 'static>(
        &self,
        work: impl FnMut(&Transaction<'_>, &Self) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let mut work = work;
        let store = self.clone();
        self.inner
            .writer
            .submit(move |transaction| work(transaction, &store))
            .await
    }

    /// Runs `work` on a snapshot of the database.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let store = self.clone();
        tokio::task::spawn_blocking(move || {
            let idle = store.lock_readers().pop();
            let mut connection = match idle {
                Some(connection) => connection,
                None => connect(&store.inner.path)?,
            };
            let result = {
                let transaction = connection.transaction()?;
                work(&transaction)
            };
            let mut readers = store.lock_readers();
            if readers.len() < IDLE_READERS {
                readers.push(connection);
            }
            result
        })
        .await
        .map_err(|_| Error::Closed)?
    }

    fn lock_readers(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        // Nothing panics while it holds this lock, and the list would still be whole.
        self.inner
            .readers
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

fn connect(path: &Path) -> Result<Connection> {
    let connection = Connection::open(path)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_PER_CONNECTION);
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.busy_timeout(std::time::Duration::from_secs(5))?;
    Ok(connection)
}

/// A value in the database that this program cannot have written.
fn unreadable(what: String) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, what.into())
}

/// A JSON column as a value of the domain.
fn from_json<T: serde::de::DeserializeOwned>(text: &str) -> rusqlite::Result<T> {
    serde_json::from_str(text).map_err(|error| unreadable(error.to_string()))
}
