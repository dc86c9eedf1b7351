//! Errors of SQLite in the words of a store.

use super::super::Error;

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode as Code;
        match error.sqlite_error_code() {
            Some(Code::DiskFull) => Self::Full,
            Some(Code::CannotOpen) => Self::CannotOpen(error.into()),
            Some(Code::ReadOnly) => Self::ReadOnly(error.to_string()),
            Some(Code::DatabaseCorrupt | Code::NotADatabase) => Self::Damaged(error.into()),
            _ => Self::Failed(error.into()),
        }
    }
}

/// A value in the database that this program cannot have written.
pub(super) fn unreadable(what: String) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, what.into())
}

/// A JSON column as a value of the domain.
pub(super) fn from_json<T: serde::de::DeserializeOwned>(text: &str) -> rusqlite::Result<T> {
    serde_json::from_str(text)
        .map_err(|error| unreadable(format!("a row holds JSON that does not parse: {error}")))
}

/// A value of the domain as a JSON column.
pub(super) fn to_json<T: serde::Serialize>(value: &T) -> rusqlite::Result<String> {
    serde_json::to_string(value)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))
}

/// The value of an enumeration that is stored under a number.
pub(super) fn numbered<T>(
    what: &str,
    from_number: impl Fn(i64) -> Option<T>,
    number: i64,
) -> rusqlite::Result<T> {
    from_number(number).ok_or_else(|| unreadable(format!("{what} {number}")))
}
