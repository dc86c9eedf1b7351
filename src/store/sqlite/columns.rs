//! Columns of a row, read one after the other. A look-up by name goes through the names of all columns before it, which
//! takes a tenth of a Get and more of a List.

use rusqlite::types::{FromSql, ValueRef};
use rusqlite::{Result, Row};

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

    /// The same, as it is stored.
    pub(super) fn take_ref(&mut self) -> Result<ValueRef<'row>> {
        self.next += 1;
        self.row.get_ref(self.next - 1)
    }
}
