//! Columns of a row, read one after the other. rusqlite 0.43 looks a name up anew in each row, by comparing the names
//! of the columns before it (<https://docs.rs/rusqlite/0.43.0/src/rusqlite/column.rs.html>): seven per cent of the CPU
//! of a Get, by `perf record` under h2load with 8 connections of 8 streams, 2026-11-28.

use rusqlite::types::{FromSql, ValueRef};
use rusqlite::{Result, Row};

use crate::model::Id;

/// The columns of a row in the order of its SELECT.
pub(super) struct Columns<'row, 'statement> {
    row: &'row Row<'statement>,
    next: usize,
}

impl<'row, 'statement> Columns<'row, 'statement> {
    pub(super) fn of(row: &'row Row<'statement>) -> Self {
        Self { row, next: 0 }
    }

    /// The value of the next column.
    pub(super) fn take<T: FromSql>(&mut self) -> Result<T> {
        self.next += 1;
        self.row.get(self.next - 1)
    }

    /// The id in the next two columns.
    pub(super) fn take_id(&mut self) -> Result<Id> {
        Ok(Id {
            key: self.take()?,
            rest: self.take()?,
        })
    }

    /// The next column as it is stored.
    pub(super) fn take_ref(&mut self) -> Result<ValueRef<'row>> {
        self.next += 1;
        self.row.get_ref(self.next - 1)
    }
}
