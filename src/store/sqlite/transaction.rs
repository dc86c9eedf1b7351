//! A transaction that keeps the statements it has used at hand.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ops::{Deref, DerefMut};

use rusqlite::{CachedStatement, Connection, Statement, TransactionBehavior};

/// A transaction, rolled back where it is dropped without `commit`. One that holds a thousand
/// commands runs the same few statements a thousand times: it finds them by a look at a short list,
/// where the connection's cache would hash the SQL and change its order of use twice each time.
pub(super) struct Transaction<'c> {
    inner: rusqlite::Transaction<'c>,
    connection: &'c Connection,
    idle: RefCell<Vec<Named<'c>>>,
    /// The keys of the folders that were looked for.
    pub(super) folders: RefCell<HashMap<String, i64>>,
}

struct Named<'c> {
    sql: Box<str>,
    statement: CachedStatement<'c>,
}

impl<'c> Transaction<'c> {
    pub(super) fn begin(
        connection: &'c Connection,
        behavior: TransactionBehavior,
    ) -> rusqlite::Result<Self> {
        Ok(Self {
            inner: rusqlite::Transaction::new_unchecked(connection, behavior)?,
            connection,
            idle: RefCell::default(),
            folders: RefCell::default(),
        })
    }

    pub(super) fn commit(self) -> rusqlite::Result<()> {
        self.inner.commit()
    }

    /// The statement for `sql`, prepared at its first use.
    pub(super) fn prepare_cached(&self, sql: &str) -> rusqlite::Result<Prepared<'_, 'c>> {
        let mut idle = self.idle.borrow_mut();
        let known = idle.iter().position(|named| *named.sql == *sql);
        let named = match known {
            Some(position) => idle.swap_remove(position),
            None => Named {
                sql: sql.into(),
                statement: self.connection.prepare_cached(sql)?,
            },
        };
        Ok(Prepared {
            transaction: self,
            named: Some(named),
        })
    }
}

impl Deref for Transaction<'_> {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        self.connection
    }
}

/// A statement in use.
pub(super) struct Prepared<'t, 'c> {
    transaction: &'t Transaction<'c>,
    /// There until it is dropped.
    named: Option<Named<'c>>,
}

impl<'c> Deref for Prepared<'_, 'c> {
    type Target = Statement<'c>;

    #[expect(clippy::expect_used, reason = "nothing but `drop` takes it")]
    fn deref(&self) -> &Statement<'c> {
        &self.named.as_ref().expect("in use").statement
    }
}

impl<'c> DerefMut for Prepared<'_, 'c> {
    #[expect(clippy::expect_used, reason = "nothing but `drop` takes it")]
    fn deref_mut(&mut self) -> &mut Statement<'c> {
        &mut self.named.as_mut().expect("in use").statement
    }
}

impl Drop for Prepared<'_, '_> {
    fn drop(&mut self) {
        if let Some(mut named) = self.named.take() {
            // Otherwise a value would stand where the next user binds none.
            named.statement.clear_bindings();
            self.transaction.idle.borrow_mut().push(named);
        }
    }
}
