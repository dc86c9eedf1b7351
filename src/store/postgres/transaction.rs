//! Transactions, and how one ends whose connection is lost while it commits.

use std::ops::Deref;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::super::{Error, Result};
use super::connection::{Connection, Pool, Pooled};
use super::error::{is_lost, is_race};

/// How long a lost commit is asked after: as long as callers wait, more or less.
const LONGEST_DOUBT: Duration = Duration::from_secs(10);
const BETWEEN_QUESTIONS: Duration = Duration::from_millis(100);
/// How often a transaction is begun whose connections are lost.
const MOST_LOST: u32 = 3;

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
                // It was lost while nobody used it.
                Err(Error::Unreachable(_)) if !is_fresh => is_fresh = true,
                Err(error) => return Err(error),
            }
        }
    }

    /// The number by which the database knows the transaction, if it has changed anything.
    pub(super) async fn number(&self) -> Result<Option<String>> {
        let row = self
            .query_opt("SELECT pg_current_xact_id_if_assigned()::text", &[])
            .await?;
        Ok(row.map(|row| row.try_get(0)).transpose()?.flatten())
    }

    /// Commits what a piece of work did, or rolls it back.
    pub(super) async fn end<T>(self, worked: Result<T>) -> Result<T> {
        match worked {
            Ok(done) => {
                let number = self.number().await?;
                self.commit(number).await.map(|()| done)
            }
            Err(error) => {
                self.roll_back().await;
                Err(error)
            }
        }
    }

    /// Commits the transaction with this number. Where the connection is lost meanwhile, the database is asked what
    /// became of it.
    pub(super) async fn commit(mut self, number: Option<String>) -> Result<()> {
        let committed = self.connection.run("COMMIT").await;
        let pool = self.pool();
        match (committed, number) {
            (Ok(()), _) => {
                self.has_ended = true;
                Ok(())
            }
            (Err(error), Some(number)) if matches!(error, Error::Unreachable(_)) => {
                drop(self);
                match outcome(pool, &number).await {
                    Some(true) => Ok(()),
                    Some(false) => Err(error),
                    None => Err(Error::OutcomeUnknown),
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

/// Whether a transaction was committed; None where the database cannot say. A commit that is still going on is waited
/// for.
async fn outcome(pool: &Pool, number: &str) -> Option<bool> {
    let until = Instant::now() + LONGEST_DOUBT;
    while Instant::now() < until {
        if let Ok(connection) = pool.take(true).await {
            let sql = "SELECT pg_xact_status($1::text::xid8)";
            if let Ok(Some(row)) = connection.query_opt(sql, &[&number]).await {
                match row.try_get::<_, Option<&str>>(0).ok()? {
                    Some("committed") => return Some(true),
                    Some("aborted") => return Some(false),
                    Some(_) => {}
                    // It is older than what the database remembers.
                    None => return None,
                }
            }
        }
        sleep(BETWEEN_QUESTIONS).await;
    }
    None
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

/// The tries that a transaction has where others come between.
pub(super) struct Tries {
    made: u32,
    most: u32,
}

impl Tries {
    /// Those of the statements of one caller, whom a race that is lost now and then would answer with an error of the
    /// database.
    pub(super) fn alone() -> Self {
        Self { made: 0, most: 20 }
    }

    /// Those of several commands, each of which can be tried alone afterwards.
    pub(super) fn together() -> Self {
        Self { made: 0, most: 3 }
    }

    /// Returns when the transaction is to be tried again.
    ///
    /// # Errors
    /// The same, where it is not.
    pub(super) async fn again(&mut self, error: Error) -> Result<()> {
        self.made += 1;
        let is_lost = is_lost(&error);
        let most = if is_lost { MOST_LOST } else { self.most };
        if self.made >= most || !(is_lost || is_race(&error)) {
            return Err(error);
        }
        tracing::debug!(%error, "a transaction is tried again");
        if is_lost {
            sleep(BETWEEN_QUESTIONS * self.made).await;
        }
        Ok(())
    }
}
