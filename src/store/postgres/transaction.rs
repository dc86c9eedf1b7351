//! Transactions, and how one ends whose connection is lost while it commits.

use std::ops::Deref;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

use super::super::{Error, Result};
use super::connection::{Connection, Mark, Pipeline, Pool, Pooled};
use super::error::{is_lost, is_race};

/// The time for which a lost commit is asked after where no caller says how long it waits, and at the most.
const USUAL_DOUBT: Duration = Duration::from_secs(10);
const LONGEST_DOUBT: Duration = Duration::from_secs(60);
/// The time for which a database that is away is tried: a restart or a fail-over takes a few seconds.
const LONGEST_ABSENCE: Duration = Duration::from_secs(5);
const LONGEST_RACE_PAUSE: Duration = Duration::from_millis(20);
const BETWEEN_QUESTIONS: Duration = Duration::from_millis(100);

/// A transaction. The connection of one that is dropped before its end is closed, which rolls it back.
pub(super) struct Transaction<'p> {
    connection: Pooled<'p>,
    has_ended: bool,
}

impl<'p> Transaction<'p> {
    /// One in which each statement sees what was committed before it, whatever the default of the database is: all
    /// that is decided on is locked.
    pub(super) async fn begin(pool: &'p Pool) -> Result<Self> {
        Self::begin_as(pool, "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE").await
    }

    /// One that sees rows as they are now, and changes none.
    pub(super) async fn begin_reading(pool: &'p Pool) -> Result<Self> {
        Self::begin_as(pool, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await
    }

    async fn begin_as(pool: &'p Pool, sql: &str) -> Result<Self> {
        let mut is_fresh = false;
        loop {
            let connection = pool.take(is_fresh).await?;
            let transaction = Self {
                connection,
                has_ended: false,
            };
            match transaction.connection.run(sql).await {
                Ok(()) => return Ok(transaction),
                // It was lost while nobody used it, or its server has become a standby.
                Err(Error::Unreachable(_) | Error::ReadOnly(_)) if !is_fresh => is_fresh = true,
                Err(error) => return Err(error),
            }
        }
    }

    /// A mark of the transaction, if it has changed anything.
    async fn mark(&self) -> Result<Option<Mark>> {
        let sql = "SELECT pg_current_xact_id_if_assigned() IS NOT NULL";
        let row = self.query_opt(sql, &[]).await?;
        if !row.map_or(Ok(false), |row| row.try_get(0))? {
            return Ok(None);
        }
        let mut pipeline = Pipeline::default();
        let mark = self.add_mark(&mut pipeline);
        self.send(pipeline).await?;
        Ok(Some(mark))
    }

    /// Commits what a piece of work did, or rolls it back.
    pub(super) async fn end<T>(self, worked: Result<T>) -> Result<T> {
        match worked {
            Ok(done) => {
                let mark = self.mark().await?;
                self.commit(mark, None).await.map(|()| done)
            }
            Err(error) => {
                self.roll_back().await;
                Err(error)
            }
        }
    }

    /// Commits the transaction with this mark. Where the connection is lost meanwhile, the database is asked what
    /// became of it, until the last caller has stopped waiting.
    pub(super) async fn commit(
        mut self,
        mark: Option<Mark>,
        deadline: Option<Instant>,
    ) -> Result<()> {
        let committed = self.connection.run("COMMIT").await;
        let pool = self.pool();
        match (committed, mark) {
            (Ok(()), _) => {
                self.has_ended = true;
                Ok(())
            }
            (Err(error), Some(mark)) if matches!(error, Error::Unreachable(_)) => {
                drop(self);
                let now = Instant::now();
                let until = deadline
                    .unwrap_or(now + USUAL_DOUBT)
                    .min(now + LONGEST_DOUBT);
                match timeout_at(until, outcome(pool, &mark)).await {
                    Ok(true) => Ok(()),
                    Ok(false) => Err(error),
                    Err(_) => Err(Error::OutcomeUnknown),
                }
            }
            (Err(error), _) => Err(error),
        }
    }

    pub(super) async fn roll_back(mut self) {
        self.has_ended = self.connection.run("ROLLBACK").await.is_ok();
    }

    fn pool(&self) -> &'p Pool {
        self.connection.pool()
    }
}

/// Whether a transaction was committed. A database that is away is waited for.
///
/// The number of a transaction (`pg_xact_status`) would not tell: after a crash or a fail-over of the database another
/// transaction may have the same one, if nothing that this one wrote had reached the disk, or the standby.
async fn outcome(pool: &Pool, mark: &Mark) -> bool {
    loop {
        match last_mark(pool, mark).await {
            Ok(last) => return last == mark.number,
            Err(error) => tracing::debug!(%error, "the outcome of a commit is asked again"),
        }
        sleep(BETWEEN_QUESTIONS).await;
    }
}

/// The number of the last transaction that the connection of a mark has committed. It changes the row, and so waits for
/// one that is still going on, and for the standby, which then has the commit, too: PostgreSQL shows commits whose
/// wait for a standby was broken off.
async fn last_mark(pool: &Pool, mark: &Mark) -> Result<i64> {
    let sql = "INSERT INTO commits (connection, last) VALUES ($1, 0)
         ON CONFLICT (connection) DO UPDATE SET last = commits.last RETURNING last";
    let mut transaction = Transaction::begin(pool).await?;
    let row = transaction.query_opt(sql, &[&mark.connection]).await?;
    let last = row.map_or(Ok(0), |row| row.try_get(0))?;
    transaction.connection.run("COMMIT").await?;
    transaction.has_ended = true;
    Ok(last)
}

impl Deref for Transaction<'_> {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.connection
    }
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        if !self.has_ended {
            self.connection.discard();
        }
    }
}

/// The tries that a transaction has where others come between, or the connection is lost.
pub(super) struct Tries {
    left: u32,
    lost: Option<Instant>,
}

impl Tries {
    /// Those of the statements of one caller, whom a race that is lost now and then would answer with an error of the
    /// database.
    pub(super) fn alone() -> Self {
        Self::of(20)
    }

    /// Those of several commands, each of which can be tried alone afterwards.
    pub(super) fn together() -> Self {
        Self::of(3)
    }

    fn of(left: u32) -> Self {
        Self { left, lost: None }
    }

    /// Returns when the transaction is to be tried again.
    ///
    /// # Errors
    /// The same, where it is not.
    pub(super) async fn again(&mut self, error: Error) -> Result<()> {
        let pause = if is_lost(&error) {
            let since = *self.lost.get_or_insert_with(Instant::now);
            if since.elapsed() >= LONGEST_ABSENCE {
                return Err(error);
            }
            BETWEEN_QUESTIONS
        } else {
            self.left -= 1;
            if self.left == 0 || !is_race(&error) {
                return Err(error);
            }
            // Those who met do not meet again.
            LONGEST_RACE_PAUSE.mul_f64(rand::random())
        };
        tracing::debug!(%error, "a transaction is tried again");
        sleep(pause).await;
        Ok(())
    }
}
