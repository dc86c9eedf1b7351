//! Errors of PostgreSQL in the words of a store, and which of them mean that a transaction is to be decided again.

use tokio_postgres::error::SqlState;

use super::super::Error;
use super::CONNECTIONS;

impl From<tokio_postgres::Error> for Error {
    fn from(error: tokio_postgres::Error) -> Self {
        match error.code() {
            Some(&SqlState::DISK_FULL) => Self::Full,
            Some(&SqlState::READ_ONLY_SQL_TRANSACTION) => Self::ReadOnly(error.to_string()),
            Some(&SqlState::DATA_CORRUPTED | &SqlState::INDEX_CORRUPTED) => {
                Self::Damaged(error.into())
            }
            Some(code) if is_of_the_connection(code) => Self::Unreachable(error.into()),
            None if error.is_closed() || is_io(&error) => Self::Unreachable(error.into()),
            _ => Self::Failed(error.into()),
        }
    }
}

fn is_io(error: &tokio_postgres::Error) -> bool {
    std::error::Error::source(error).is_some_and(|source| source.is::<std::io::Error>())
}

fn is_of_the_connection(code: &SqlState) -> bool {
    code.code().starts_with("08")
        || [
            SqlState::ADMIN_SHUTDOWN,
            SqlState::CRASH_SHUTDOWN,
            SqlState::CANNOT_CONNECT_NOW,
            SqlState::TOO_MANY_CONNECTIONS,
            SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT,
        ]
        .contains(code)
}

/// An error of the start in words for the administrator, who can do something about most of them.
pub(super) fn at_start(database: &str, error: Error) -> Error {
    let advice = match (code(&error), &error) {
        (Some(&SqlState::INVALID_PASSWORD), _) => {
            "; the password comes from the URL, a password file, PGPASSWORD or PGPASSFILE"
        }
        (Some(&SqlState::INVALID_CATALOG_NAME), _) => "; make it with createdb",
        (Some(&SqlState::INSUFFICIENT_PRIVILEGE), _) => {
            "; the user must own the database, or the first schema of its search_path"
        }
        (Some(&SqlState::TOO_MANY_CONNECTIONS), _) => {
            return Error::Start {
                database: database.to_owned(),
                why: format!(
                    "it has too few connections: each server takes up to {CONNECTIONS}; raise max_connections, or \
                     the limit of the user or of the database ({error})"
                ),
            };
        }
        (Some(&SqlState::PROTOCOL_VIOLATION), _) => {
            "; a pooler such as PgBouncer stands before the database: name the database itself"
        }
        (_, Error::Unreachable(_) | Error::Failed(_) | Error::ReadOnly(_)) => "",
        _ => return error,
    };
    Error::Start {
        database: database.to_owned(),
        why: format!("{error}{advice}"),
    }
}

fn code(error: &Error) -> Option<&SqlState> {
    match error {
        Error::Failed(source) | Error::Unreachable(source) => {
            source.downcast_ref::<tokio_postgres::Error>()?.code()
        }
        _ => None,
    }
}

/// Whether another process came between: a transaction that is decided again finds what that one left. Absence cannot
/// be locked; the unique indexes and the foreign keys tell that it has ended.
pub(super) fn is_race(error: &Error) -> bool {
    code(error).is_some_and(|code| {
        [
            SqlState::UNIQUE_VIOLATION,
            SqlState::FOREIGN_KEY_VIOLATION,
            SqlState::T_R_SERIALIZATION_FAILURE,
            SqlState::T_R_DEADLOCK_DETECTED,
            SqlState::LOCK_NOT_AVAILABLE,
            SqlState::QUERY_CANCELED,
        ]
        .contains(code)
    }) || is_outdated(error)
        || matches!(error, Error::Failed(source) if source.is::<Overtaken>())
}

/// Whether a prepared statement returns other columns than it did, by a migration of another process.
pub(super) fn is_outdated(error: &Error) -> bool {
    code(error) == Some(&SqlState::FEATURE_NOT_SUPPORTED)
}

/// Whether the connection was lost, and nothing of what was asked is known to be done.
pub(super) fn is_lost(error: &Error) -> bool {
    matches!(error, Error::Unreachable(_))
}

/// The rows that commands were decided on are not those that stand now: a folder that has come, perhaps with a limit, or
/// an equal request that was carried out.
#[derive(Debug, thiserror::Error)]
#[error("another process came between")]
struct Overtaken;

pub(super) fn overtaken() -> Error {
    Error::Failed(Overtaken.into())
}

/// The error for a caller where others came between each time: nothing was done, and the same may succeed later.
pub(super) fn overtaken_too_often(error: Error) -> Error {
    if !is_race(&error) {
        return error;
    }
    tracing::warn!(%error, "other transactions came between each time");
    Error::Unreachable(Box::new(error))
}

/// A value in the database that this program cannot have written.
pub(super) fn unreadable(what: String) -> Error {
    Error::Failed(what.into())
}

/// A JSON column as a value of the domain.
pub(super) fn from_json<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, Error> {
    serde_json::from_str(text)
        .map_err(|error| unreadable(format!("a row holds JSON that does not parse: {error}")))
}

/// A value of the domain as a JSON column.
pub(super) fn to_json<T: serde::Serialize>(value: &T) -> Result<String, Error> {
    serde_json::to_string(value).map_err(|error| Error::Failed(error.into()))
}

/// The value of an enumeration that is stored under a number.
pub(super) fn numbered<T>(
    what: &str,
    from_number: impl Fn(i64) -> Option<T>,
    number: i64,
) -> Result<T, Error> {
    from_number(number).ok_or_else(|| unreadable(format!("{what} {number}")))
}
