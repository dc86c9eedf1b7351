//! Columns of a row, read one after the other, in the order of its SELECT.

use std::collections::HashSet;

use tokio_postgres::Row;
use tokio_postgres::types::FromSql;

use super::super::Result;
use super::error::from_json;
use crate::model::{Id, Timestamp};

/// The columns that are still to be read.
pub(super) struct Columns<'row> {
    row: &'row Row,
    next: usize,
}

impl<'row> Columns<'row> {
    pub(super) fn of(row: &'row Row) -> Self {
        Self { row, next: 0 }
    }

    /// The value of the next column.
    pub(super) fn take<T: FromSql<'row>>(&mut self) -> Result<T> {
        self.next += 1;
        Ok(self.row.try_get(self.next - 1)?)
    }

    /// The id in the next two columns.
    pub(super) fn take_id(&mut self) -> Result<Id> {
        Ok(Id {
            key: self.take()?,
            rest: self.take()?,
        })
    }

    /// The id in the next two columns, which are null where there is none.
    pub(super) fn take_optional_id(&mut self) -> Result<Option<Id>> {
        Ok(match (self.take()?, self.take()?) {
            (Some(key), Some(rest)) => Some(Id { key, rest }),
            _ => None,
        })
    }

    pub(super) fn take_time(&mut self) -> Result<Option<Timestamp>> {
        Ok(self.take::<Option<i64>>()?.map(Timestamp))
    }

    /// The value in the next column, which is JSON.
    pub(super) fn take_json<T: serde::de::DeserializeOwned>(&mut self) -> Result<T> {
        from_json(self.take()?)
    }

    /// The value in the next column, which is JSON or null.
    pub(super) fn take_optional_json<T: serde::de::DeserializeOwned>(
        &mut self,
    ) -> Result<Option<T>> {
        self.take::<Option<&str>>()?.map(from_json).transpose()
    }
}

/// The keys and the rests of ids, as two arrays.
pub(super) fn columns_of<'i>(ids: impl IntoIterator<Item = &'i Id>) -> (Vec<i64>, Vec<i64>) {
    ids.into_iter().map(|id| (id.key, id.rest)).unzip()
}

/// The ids in the first two columns of rows.
pub(super) fn ids(rows: &[Row]) -> Result<HashSet<Id>> {
    rows.iter().map(|row| Columns::of(row).take_id()).collect()
}
