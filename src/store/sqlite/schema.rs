//! Numbered migrations; the number of the last one applied is the file's `user_version`.

use std::path::Path;

use rusqlite::{Connection, TransactionBehavior};

use super::super::{Error, Result};

const MIGRATIONS: [&str; 9] = [
    include_str!("../../../migrations/0001_initial.sql"),
    include_str!("../../../migrations/0002_contents.sql"),
    include_str!("../../../migrations/0003_uploads.sql"),
    include_str!("../../../migrations/0004_audit_changes.sql"),
    include_str!("../../../migrations/0005_blob_ids.sql"),
    include_str!("../../../migrations/0006_identity.sql"),
    include_str!("../../../migrations/0007_installation.sql"),
    include_str!("../../../migrations/0008_holds.sql"),
    include_str!("../../../migrations/0009_tombstones_by_age.sql"),
];

/// Tells a database of this program from others: "dimg".
const APPLICATION_ID: i64 = 0x6469_6d67;

/// Refuses a database that is not this program's. A new one has nothing in it yet.
pub(super) fn check(connection: &Connection, path: &Path) -> Result<()> {
    let application: i64 =
        connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let objects: i64 =
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if application != APPLICATION_ID && objects > 0 {
        return Err(Error::Foreign(path.to_owned()));
    }
    Ok(())
}

/// Refuses a database that lacks migrations, and one that has those of a later program.
pub(super) fn check_is_current(connection: &Connection, path: &Path) -> Result<()> {
    let known = MIGRATIONS.len() as i64;
    let found: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    match found {
        _ if found == known => Ok(()),
        0.. if found < known => Err(Error::OlderSchema {
            path: path.to_owned(),
            found,
            known,
        }),
        _ => Err(Error::NewerSchema {
            path: path.to_owned(),
            found,
            known,
        }),
    }
}

/// Applies the migrations that the file lacks, each in a transaction of its own.
pub(super) fn migrate(connection: &mut Connection, path: &Path) -> Result<()> {
    let known = MIGRATIONS.len() as i64;
    loop {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let found: i64 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
        if !(0..=known).contains(&found) {
            return Err(Error::NewerSchema {
                path: path.to_owned(),
                found,
                known,
            });
        }
        let Some(migration) = usize::try_from(found).ok().and_then(|n| MIGRATIONS.get(n)) else {
            return Ok(());
        };
        transaction.execute_batch(migration)?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.pragma_update(None, "user_version", found + 1)?;
        transaction.commit()?;
    }
}
