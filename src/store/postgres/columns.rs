//! Columns: of a row, read one after the other, in the order of its SELECT; and of many rows, to be written.

use std::collections::HashSet;

use tokio_postgres::Row;
use tokio_postgres::types::FromSql;

use super::super::Result;
use super::connection::{Value, value};
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

/// A column of each row.
pub(super) fn column<R, T>(rows: &[&R], value_of: impl Fn(&R) -> T) -> Value
where
    Vec<T>: tokio_postgres::types::ToSql + Sync + Send + 'static,
{
    value(rows.iter().map(|row| value_of(row)).collect::<Vec<T>>())
}

/// The same where a value may be one that cannot be written.
pub(super) fn try_column<R, T>(rows: &[&R], value_of: impl Fn(&R) -> Result<T>) -> Result<Value>
where
    Vec<T>: tokio_postgres::types::ToSql + Sync + Send + 'static,
{
    let values: Result<Vec<T>> = rows.iter().map(|row| value_of(row)).collect();
    Ok(value(values?))
}
