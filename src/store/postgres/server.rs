//! The database server: what it must be able to do, and how it must be configured.

use super::super::{Error, Result};
use super::connection::Connection;

/// The first version that tells what became of a transaction by its 64-bit number (`pg_xact_status(xid8)`).
const OLDEST: i32 = 13;

/// Checks that the server can hold the data.
///
/// # Errors
/// Those of the database, in words.
pub(super) async fn check(connection: &Connection) -> Result<()> {
    let row = connection
        .query_opt(
            "SELECT current_setting('server_version_num')::int / 10000,
                 current_setting('server_encoding'), current_schema() IS NOT NULL",
            &[],
        )
        .await?;
    let Some(row) = row else { return Ok(()) };
    let (version, encoding): (i32, String) = (row.try_get(0)?, row.try_get(1)?);
    let why = if version < OLDEST {
        format!(
            "the server is PostgreSQL {version}, and {OLDEST} is the oldest that is served from"
        )
    } else if encoding != "UTF8" {
        format!("the encoding of the database is {encoding}; make one with UTF8")
    } else if !row.try_get::<_, bool>(2)? {
        "no schema of the search_path can be used; the user must own the database, or such a schema"
            .to_owned()
    } else {
        return Ok(());
    };
    Err(Error::Failed(why.into()))
}
