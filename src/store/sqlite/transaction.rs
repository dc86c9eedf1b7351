//! A transaction that keeps the statements it has used at hand, and what copies look up.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ops::{Deref, DerefMut};

use rusqlite::{CachedStatement, Connection, Statement, TransactionBehavior};

use super::compute_images::Source;
use super::done::Waiting;
use crate::model::Id;

/// A transaction, rolled back where it is dropped without `commit`. One that holds a thousand
/// commands runs the same few statements a thousand times: it finds them by a look at a short list,
/// where the connection's cache would hash the SQL and change its order of use twice each time.
pub struct Transaction<'c> {
    inner: rusqlite::Transaction<'c>,
    connection: &'c Connection,
    idle: RefCell<Vec<Named<'c>>>,
    /// The READY compute images that were copied, until a statement may have changed one: most
    /// copies of a batch are of one image.
    pub(super) sources: RefCell<HashMap<Id, Source>>,
    /// The keys of the folders that changes were accepted for. A folder keeps its key for good.
    pub(super) folders: RefCell<HashMap<String, i64>>,
    /// To be written before the commit.
    pub(super) done: RefCell<Waiting>,
}

struct Named<'c> {
    sql: Box<str>,
    statement: CachedStatement<'c>,
    changes_sources: bool,
}

impl<'c> Named<'c> {
    fn prepare(connection: &'c Connection, sql: &str) -> rusqlite::Result<Self> {
        let statement = connection.prepare_cached(sql)?;
        let names_sources = || sql.contains("compute_images") || sql.contains("contents");
        Ok(Self {
            sql: sql.into(),
            changes_sources: !statement.readonly() && names_sources(),
            statement,
        })
    }
}

impl<'c> Transaction<'c> {
    pub fn begin(
        connection: &'c Connection,
        behavior: TransactionBehavior,
    ) -> rusqlite::Result<Self> {
        Ok(Self {
            inner: rusqlite::Transaction::new_unchecked(connection, behavior)?,
            connection,
            idle: RefCell::default(),
            sources: RefCell::default(),
            folders: RefCell::default(),
            done: RefCell::default(),
        })
    }

    pub fn commit(self) -> rusqlite::Result<()> {
        debug_assert!(self.done.borrow().is_empty(), "what waits is written first");
        self.inner.commit()
    }

    /// The statement for `sql`, prepared at its first use.
    pub fn prepare_cached(&self, sql: &str) -> rusqlite::Result<Prepared<'_, 'c>> {
        let mut idle = self.idle.borrow_mut();
        let known = idle.iter().position(|named| *named.sql == *sql);
        let named = match known {
            Some(position) => idle.swap_remove(position),
            None => Named::prepare(self.connection, sql)?,
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
pub struct Prepared<'t, 'c> {
    transaction: &'t Transaction<'c>,
    /// There until it is dropped.
    named: Option<Named<'c>>,
}

impl<'c> Deref for Prepared<'_, 'c> {
    type Target = Statement<'c>;

    fn deref(&self) -> &Statement<'c> {
        // Nothing but `drop` takes it.
        &self.named.as_ref().expect("in use").statement
    }
}

impl<'c> DerefMut for Prepared<'_, 'c> {
    fn deref_mut(&mut self) -> &mut Statement<'c> {
        // Nothing but `drop` takes it.
        &mut self.named.as_mut().expect("in use").statement
    }
}

impl Drop for Prepared<'_, '_> {
    fn drop(&mut self) {
        if let Some(mut named) = self.named.take() {
            // Otherwise a value would stand where the next user binds none.
            named.statement.clear_bindings();
            if named.changes_sources {
                self.transaction.sources.borrow_mut().clear();
            }
            self.transaction.idle.borrow_mut().push(named);
        }
    }
}
