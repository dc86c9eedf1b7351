//! The database server: what it must be able to do, and how it must be configured.

use super::super::{Error, Result};
use super::connection::Connection;

/// The first version with 64-bit numbers of transactions (`pg_current_xact_id_if_assigned`).
const OLDEST: i32 = 13;

/// Checks that the server can hold the data, and warns where it may lose what was acknowledged.
///
/// # Errors
/// Those of the database, in words.
pub(super) async fn check(connection: &Connection) -> Result<()> {
    let row = connection
        .query_opt(
            "SELECT current_setting('server_version_num')::int / 10000,
                 current_setting('server_encoding'), current_schema() IS NOT NULL,
                 coalesce(current_setting('desktop_images.direct', true), '') = 'on',
                 current_setting('synchronous_commit'), current_setting('synchronous_standby_names'),
                 current_setting('fsync') = 'on'",
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
    } else if !row.try_get::<_, bool>(3)? {
        "a pooler such as PgBouncer stands before the database, and keeps the settings of connections from it: name \
         the database itself"
            .to_owned()
    } else {
        warn(row.try_get(4)?, row.try_get(5)?, row.try_get(6)?);
        return Ok(());
    };
    Err(Error::Failed(why.into()))
}

fn warn(synchronous_commit: &str, standbys: &str, fsync: bool) {
    if !fsync || matches!(synchronous_commit, "off") {
        tracing::warn!(
            synchronous_commit,
            fsync,
            "the database acknowledges commits before they are on the disk: a crash of its server can lose what callers \
             were told is done"
        );
    } else if standbys.is_empty() || synchronous_commit == "local" {
        tracing::warn!(
            synchronous_commit,
            synchronous_standby_names = standbys,
            "no standby of the database has each commit before it is acknowledged: a fail-over can lose what callers \
             were told is done"
        );
    }
}
