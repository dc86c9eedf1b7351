//! Connections: with statements that are prepared once, and a pool of them. The library has no time limits of its own
//! (<https://github.com/rust-postgres/rust-postgres/issues/246>, 0.7.18): the server ends a statement, the kernel a
//! connection that nobody answers, and `LONGEST_WAIT` what both have missed.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::SinkExt;
use futures_util::future::join_all;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row, Statement};

use super::super::{Error, Result};
use super::error::is_outdated;
use super::settings::Settings;

/// Longer than the server's own limit for a statement.
const LONGEST_WAIT: Duration = Duration::from_secs(40);
/// How many statements a connection keeps prepared. No SQL holds values, so that there are not many.
const PREPARED: usize = 256;

/// A parameter of a statement.
pub(super) type Value = Box<dyn ToSql + Sync + Send>;

/// Statements that are sent together, each without waiting for the one before.
#[derive(Default)]
pub(super) struct Pipeline(Vec<(&'static str, Vec<Value>)>);

impl Pipeline {
    /// Adds a statement; its place among the answers.
    pub(super) fn add(&mut self, sql: &'static str, values: Vec<Value>) -> usize {
        self.0.push((sql, values));
        self.0.len() - 1
    }
}

pub(super) fn value(value: impl ToSql + Sync + Send + 'static) -> Value {
    Box::new(value)
}

/// Notes that this transaction is the last of its connection.
const MARK: &str = "INSERT INTO commits (connection, last) VALUES ($1, $2)
    ON CONFLICT (connection) DO UPDATE SET last = excluded.last, at = excluded.at";

/// A transaction, by its place among those of its connection.
#[derive(Debug, Clone)]
pub(super) struct Mark {
    pub(super) connection: String,
    pub(super) number: i64,
}

/// A connection and its prepared statements.
pub(super) struct Connection {
    client: Client,
    /// A name that no other connection ever has.
    name: String,
    /// The number of transactions that it has marked.
    marked: AtomicI64,
    prepared: Mutex<HashMap<String, Statement>>,
}

impl Connection {
    pub(super) fn new(client: Client) -> Self {
        Self {
            client,
            name: uuid::Uuid::new_v4().to_string(),
            marked: AtomicI64::new(0),
            prepared: Mutex::default(),
        }
    }

    async fn prepared(&self, sql: &str) -> Result<Statement> {
        if let Some(statement) = lock(&self.prepared).get(sql) {
            return Ok(statement.clone());
        }
        let statement = within(self.client.prepare(sql)).await?;
        let mut prepared = lock(&self.prepared);
        if prepared.len() == PREPARED {
            prepared.clear();
        }
        prepared.insert(sql.to_owned(), statement.clone());
        Ok(statement)
    }

    pub(super) async fn query(
        &self,
        sql: &str,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>> {
        let statement = self.prepared(sql).await?;
        self.noted(within(self.client.query(&statement, values)).await)
    }

    /// Forgets prepared statements that return other columns than they did: a migration has changed them.
    fn noted<T>(&self, answered: Result<T>) -> Result<T> {
        if answered.as_ref().is_err_and(is_outdated) {
            lock(&self.prepared).clear();
        }
        answered
    }

    pub(super) async fn query_opt(
        &self,
        sql: &str,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<Option<Row>> {
        Ok(self.query(sql, values).await?.into_iter().next())
    }

    /// The rows that a statement has changed.
    pub(super) async fn execute(&self, sql: &str, values: &[&(dyn ToSql + Sync)]) -> Result<u64> {
        let statement = self.prepared(sql).await?;
        self.noted(within(self.client.execute(&statement, values)).await)
    }

    /// Adds a mark to the transaction that is open, as the last of its statements.
    pub(super) fn add_mark(&self, pipeline: &mut Pipeline) -> Mark {
        let mark = Mark {
            connection: self.name.clone(),
            number: self.marked.fetch_add(1, Ordering::Relaxed) + 1,
        };
        let values = vec![value(mark.connection.clone()), value(mark.number)];
        pipeline.add(MARK, values);
        mark
    }

    /// Runs statements without values, not prepared.
    pub(super) async fn run(&self, sql: &str) -> Result<()> {
        within(self.client.batch_execute(sql)).await
    }

    /// The same, for as long as they take: the kernel ends a connection that nobody answers.
    pub(super) async fn run_for_long(&self, sql: &str) -> Result<()> {
        Ok(self.client.batch_execute(sql).await?)
    }

    /// Hands rows, in the text format, to a COPY statement; how many it took.
    pub(super) async fn copy_in(&self, sql: &str, rows: Bytes) -> Result<u64> {
        within(async {
            let mut sink = pin!(self.client.copy_in(sql).await?);
            sink.send(rows).await?;
            sink.finish().await
        })
        .await
    }

    /// Sends statements together. The first error is told: the others follow from it.
    pub(super) async fn send(&self, pipeline: Pipeline) -> Result<Vec<Vec<Row>>> {
        // One that has to be prepared first would fall behind those after it.
        let mut statements = Vec::with_capacity(pipeline.0.len());
        for (sql, _) in &pipeline.0 {
            statements.push(self.prepared(sql).await?);
        }
        let values: Vec<Vec<&(dyn ToSql + Sync)>> = pipeline
            .0
            .iter()
            .map(|(_, values)| {
                let values = values.iter();
                values.map(|it| &**it as &(dyn ToSql + Sync)).collect()
            })
            .collect();
        let sent = statements
            .iter()
            .zip(&values)
            .map(|(statement, values)| within(self.client.query(statement, values)));
        self.noted(join_all(sent).await.into_iter().collect())
    }

    fn is_closed(&self) -> bool {
        self.client.is_closed()
    }
}

async fn within<T>(
    asked: impl Future<Output = std::result::Result<T, tokio_postgres::Error>>,
) -> Result<T> {
    match tokio::time::timeout(LONGEST_WAIT, asked).await {
        Ok(answered) => Ok(answered?),
        Err(_) => Err(Error::Unreachable("the database does not answer".into())),
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Connections that are used by one after the other.
pub(super) struct Pool {
    settings: Settings,
    idle: Mutex<Vec<Connection>>,
    room: Semaphore,
    is_closed: AtomicBool,
}

impl Pool {
    pub(super) fn new(settings: Settings, size: usize) -> Self {
        Self {
            settings,
            idle: Mutex::default(),
            room: Semaphore::new(size),
            is_closed: AtomicBool::new(false),
        }
    }

    /// A connection; a new one where those at hand may be dead.
    pub(super) async fn take(&self, fresh: bool) -> Result<Pooled<'_>> {
        let permit = self.room.acquire().await.map_err(|_| Error::Closed)?;
        if fresh {
            lock(&self.idle).clear();
        }
        let idle = {
            let mut idle = lock(&self.idle);
            std::iter::from_fn(|| idle.pop()).find(|it| !it.is_closed())
        };
        let connection = match idle {
            Some(connection) => connection,
            None => Connection::new(self.settings.connect().await?),
        };
        Ok(Pooled {
            connection: Some(connection),
            pool: self,
            _permit: permit,
        })
    }

    /// Makes as many connections as there may be.
    pub(super) async fn fill(&self, size: u32) -> Result<()> {
        let made = join_all((0..size).map(|_| self.take(false))).await;
        made.into_iter().try_for_each(|made| made.map(drop))
    }

    /// Waits until all connections are given back, and closes them.
    pub(super) async fn close(&self, size: u32) {
        self.is_closed.store(true, Ordering::Release);
        // Requests under way end first.
        let all = self.room.acquire_many(size).await;
        drop(all);
        self.room.close();
        lock(&self.idle).clear();
    }
}

/// A connection that goes back to the pool when it is dropped.
pub(super) struct Pooled<'p> {
    connection: Option<Connection>,
    pool: &'p Pool,
    _permit: SemaphorePermit<'p>,
}

impl<'p> Pooled<'p> {
    pub(super) fn pool(&self) -> &'p Pool {
        self.pool
    }

    /// Gives no connection back that may be in a state of its own.
    pub(super) fn discard(&mut self) -> Option<Connection> {
        self.connection.take()
    }
}

impl std::ops::Deref for Pooled<'_> {
    type Target = Connection;

    #[allow(clippy::expect_used, reason = "only `discard` takes it")]
    fn deref(&self) -> &Connection {
        self.connection.as_ref().expect("in use")
    }
}

impl Drop for Pooled<'_> {
    fn drop(&mut self) {
        let gone = self.pool.is_closed.load(Ordering::Acquire);
        if let Some(connection) = self.connection.take().filter(|it| !gone && !it.is_closed()) {
            lock(&self.pool.idle).push(connection);
        }
    }
}
