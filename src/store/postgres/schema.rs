//! Numbered migrations, applied in one transaction by whichever process comes first.

use std::path::PathBuf;
use std::time::Duration;

use tokio::time::sleep;

use super::super::{Error, Result};
use super::connection::{Connection, Pool};
use super::transaction::Transaction;

/// A migration: its number, which is that of the equal one of SQLite, the lowest version of a program that may work with
/// what it leaves, and its statements.
/// Migrations only add; what is no longer used is taken away by one of a later release.
struct Migration {
    version: i64,
    readable_from: i64,
    sql: &'static str,
}

const MIGRATIONS: [Migration; 4] = [
    Migration {
        version: 6,
        readable_from: 6,
        sql: include_str!("../../../migrations/postgres/0006_initial.sql"),
    },
    Migration {
        version: 7,
        readable_from: 6,
        sql: include_str!("../../../migrations/postgres/0007_installation.sql"),
    },
    // A program that knows none of these tables does no harm. No command places a hold: backups of PostgreSQL are made
    // with its own tools. Maintenance is only done twice, and commits are marked for the process itself.
    Migration {
        version: 8,
        readable_from: 6,
        sql: include_str!("../../../migrations/postgres/0008_replicas.sql"),
    },
    Migration {
        version: 9,
        readable_from: 6,
        sql: include_str!("../../../migrations/postgres/0009_tombstones_by_age.sql"),
    },
];

/// Tells a database of this program from others.
const APPLICATION: &str = "desktop-images";
/// The number of the lock under which migrations are applied: "dimg". It is asked for again and again: the wait for it
/// would end with the limit of waits for locks, and a migration of many rows takes longer.
const LOCK: &str = "SELECT pg_try_advisory_xact_lock(1684630887)";
const BETWEEN_ASKS: Duration = Duration::from_millis(50);
/// A migration takes as long as its rows need. A lock it gives up soon, and tries again: those who come while it waits
/// for one wait behind it.
const LIMITS: &str = "SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 1000";

/// Brings the schema up to date.
///
/// # Errors
/// [`Error::Foreign`] where the schema holds another program's tables, and [`Error::NewerSchema`] where a later
/// version has left what this one cannot work with.
pub(super) async fn migrate(pool: &Pool, shown: &str) -> Result<()> {
    let mut waits = false;
    loop {
        let transaction = Transaction::begin(pool).await?;
        let row = transaction.query_opt(LOCK, &[]).await?;
        if row.map_or(Ok(false), |row| row.try_get(0))? {
            let migrated = apply(&transaction, shown).await;
            return transaction.end(migrated).await;
        }
        transaction.roll_back().await;
        if !waits {
            tracing::info!(
                "another process migrates the database, or looks whether it has to; it is waited for"
            );
            waits = true;
        }
        sleep(BETWEEN_ASKS).await;
    }
}

/// Fails where a later version has left meanwhile what this one cannot work with.
pub(super) async fn check(connection: &Connection, shown: &str) -> Result<()> {
    match version(connection).await? {
        Found::Version {
            readable_from,
            version,
        } if readable_from > known() => Err(Error::NewerSchema {
            path: PathBuf::from(shown),
            found: version,
            known: known(),
        }),
        Found::Version { .. } => Ok(()),
        Found::Empty | Found::Foreign => Err(Error::Foreign(PathBuf::from(shown))),
    }
}

/// Whether a database has the schema.
///
/// # Errors
/// Those of [`migrate`].
pub(super) async fn is_there(transaction: &Transaction<'_>, shown: &str) -> Result<bool> {
    match found(transaction).await? {
        Found::Empty => Ok(false),
        _ => check(transaction, shown).await.map(|()| true),
    }
}

/// The version of the last migration that this program knows.
fn known() -> i64 {
    MIGRATIONS[MIGRATIONS.len() - 1].version
}

async fn apply(transaction: &Transaction<'_>, shown: &str) -> Result<()> {
    let known = known();
    let found = match found(transaction).await? {
        Found::Empty => 0,
        Found::Foreign => return Err(Error::Foreign(PathBuf::from(shown))),
        Found::Version {
            readable_from,
            version,
        } if readable_from > known => {
            return Err(Error::NewerSchema {
                path: PathBuf::from(shown),
                found: version,
                known,
            });
        }
        Found::Version { version, .. } => version,
    };
    for migration in MIGRATIONS.iter().filter(|it| it.version > found) {
        transaction.run(LIMITS).await?;
        transaction.run_for_long(migration.sql).await?;
        transaction
            .execute(
                "INSERT INTO schema_version (application, version, readable_from)
                 VALUES ($1, $2, $3) ON CONFLICT (one)
                 DO UPDATE SET version = excluded.version, readable_from = excluded.readable_from",
                &[&APPLICATION, &migration.version, &migration.readable_from],
            )
            .await?;
        tracing::info!(version = migration.version, "the database was migrated");
    }
    Ok(())
}

enum Found {
    Empty,
    Foreign,
    Version { version: i64, readable_from: i64 },
}

async fn found(transaction: &Transaction<'_>) -> Result<Found> {
    let row = transaction
        .query_opt(
            "SELECT count(*), count(*) FILTER (WHERE relname = 'schema_version')
             FROM pg_class WHERE relnamespace = current_schema()::regnamespace
               AND NOT EXISTS (SELECT 1 FROM pg_depend
                               WHERE classid = 'pg_class'::regclass AND objid = pg_class.oid
                                 AND deptype = 'e')",
            &[],
        )
        .await?;
    let (objects, ours) = match row {
        None => (0, 0),
        Some(row) => (row.try_get::<_, i64>(0)?, row.try_get::<_, i64>(1)?),
    };
    if ours == 0 {
        return Ok(if objects == 0 {
            Found::Empty
        } else {
            Found::Foreign
        });
    }
    // Another program may have a table of this name, with other columns.
    let named: i64 = transaction
        .query_opt(
            "SELECT count(*) FROM pg_attribute
             WHERE attrelid = 'schema_version'::regclass
               AND attname IN ('application', 'version', 'readable_from')",
            &[],
        )
        .await?
        .map_or(Ok(0), |row| row.try_get(0))?;
    if named != 3 {
        return Ok(Found::Foreign);
    }
    version(transaction).await
}

async fn version(connection: &Connection) -> Result<Found> {
    let row = connection
        .query_opt(
            "SELECT version, readable_from FROM schema_version WHERE application = $1",
            &[&APPLICATION],
        )
        .await?;
    Ok(match row {
        None => Found::Foreign,
        Some(row) => Found::Version {
            version: row.try_get(0)?,
            readable_from: row.try_get(1)?,
        },
    })
}
