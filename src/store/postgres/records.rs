//! The records of blobs as whoever verifies them reads them.

use std::collections::HashSet;

use tokio::runtime::Handle;

use super::super::records::{Recorded, Records};
use super::super::{Error, Result};
use super::columns::Columns;
use super::connection::{Connection, Pool};
use super::error::unreadable;
use super::image_rows::digest;
use super::settings::Settings;
use super::transaction::Transaction;
use super::{PostgresSettings, error, garbage, schema, server};
use crate::model::Id;

/// How many blobs are looked up at once.
const PAGE: i64 = 256;

macro_rules! select_recorded {
    () => {
        "SELECT key, id_rest, file, size, sha256, damaged, checksums
         FROM blobs LEFT JOIN blob_checksums USING (key, id_rest) WHERE state = 1"
    };
}

/// A database that is being verified.
pub(crate) struct PostgresRecords {
    pool: Pool,
    runtime: Handle,
}

impl PostgresRecords {
    /// Opens a database that a server has used. One with a schema of before is not brought up to date.
    ///
    /// # Errors
    /// Those of the start of a store, and [`Error::Foreign`] where no server has used the database.
    pub(crate) async fn open(settings: &PostgresSettings) -> Result<Self> {
        let settings = Settings::new(settings)?;
        let shown = settings.shown().to_owned();
        let pool = Pool::new(settings, 1);
        let asked = async {
            let transaction = Transaction::begin_reading(&pool).await?;
            let asked = async {
                server::check(&transaction).await?;
                match schema::is_there(&transaction, &shown).await? {
                    true => Ok(()),
                    false => Err(Error::Foreign(shown.clone().into())),
                }
            };
            let asked = asked.await;
            transaction.end(asked).await
        };
        let asked = asked.await;
        asked.map_err(|error| error::at_start(&shown, error))?;
        Ok(Self {
            pool,
            runtime: Handle::current(),
        })
    }

    fn read<T>(&self, work: impl AsyncFnOnce(&Connection) -> Result<T>) -> Result<T> {
        self.runtime.block_on(async {
            let connection = self.pool.take(false).await?;
            work(&connection).await
        })
    }

    fn write<T>(&self, work: impl AsyncFnOnce(&Transaction<'_>) -> Result<T>) -> Result<T> {
        self.runtime.block_on(async {
            let transaction = Transaction::begin(&self.pool).await?;
            let worked = work(&transaction).await;
            transaction.end(worked).await
        })
    }
}

impl Records for PostgresRecords {
    fn installation(&mut self) -> Result<Option<String>> {
        self.read(async |connection| {
            let sql = "SELECT id FROM installation";
            let found = connection.query_opt(sql, &[]).await?;
            found.map(|row| Columns::of(&row).take()).transpose()
        })
    }

    /// None: PostgreSQL has checksums of its own.
    fn faults(&mut self) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    fn extent(&mut self) -> Result<(u64, u64)> {
        self.read(async |connection| {
            let sql = "SELECT count(*), coalesce(sum(size), 0)::bigint FROM blobs WHERE state = 1";
            let found = connection.query_opt(sql, &[]).await?;
            let row = found.ok_or_else(|| unreadable("no row of a sum".to_owned()))?;
            let mut columns = Columns::of(&row);
            Ok((unsigned(columns.take()?), unsigned(columns.take()?)))
        })
    }

    fn blobs_after(&mut self, last: Option<Id>) -> Result<Vec<Recorded>> {
        let (key, rest) = last.map_or((i64::MIN, i64::MIN), |last| (last.key, last.rest));
        self.read(async |connection| {
            let sql = concat!(
                select_recorded!(),
                " AND (key, id_rest) > ($1, $2) ORDER BY key, id_rest LIMIT $3"
            );
            let rows = connection.query(sql, &[&key, &rest, &PAGE]).await?;
            rows.iter().map(recorded).collect()
        })
    }

    fn blob(&mut self, row: Id) -> Result<Option<Recorded>> {
        self.read(async |connection| {
            let sql = concat!(select_recorded!(), " AND key = $1 AND id_rest = $2");
            let found = connection.query_opt(sql, &[&row.key, &row.rest]).await?;
            found.map(|row| recorded(&row)).transpose()
        })
    }

    fn known_blobs(&mut self) -> Result<HashSet<String>> {
        self.read(async |connection| garbage::known(connection).await)
    }

    fn images_of(&mut self, blob_id: &str, limit: usize) -> Result<Vec<String>> {
        self.read(async |connection| garbage::images_of(connection, blob_id, limit).await)
    }

    fn note_sound(&mut self, blob: &Recorded, checksums: &[u8]) -> Result<()> {
        self.write(async |transaction| {
            transaction
                .execute(
                    "WITH sound AS (
                         UPDATE blobs SET damaged = false
                         WHERE key = $1 AND id_rest = $2 AND file = $3 AND state = 1
                         RETURNING key, id_rest)
                     INSERT INTO blob_checksums (key, id_rest, checksums)
                     SELECT key, id_rest, $4 FROM sound
                     ON CONFLICT (key, id_rest) DO UPDATE SET checksums = excluded.checksums",
                    &[&blob.key, &blob.rest, &blob.id, &checksums],
                )
                .await?;
            Ok(())
        })
    }

    fn note_damaged(&mut self, blob: &Recorded) -> Result<()> {
        let ids = [blob.id.clone()];
        self.write(async |transaction| garbage::mark_damaged(transaction, &ids).await)
    }
}

fn recorded(row: &tokio_postgres::Row) -> Result<Recorded> {
    let mut columns = Columns::of(row);
    Ok(Recorded {
        key: columns.take()?,
        rest: columns.take()?,
        id: columns.take()?,
        size: unsigned(columns.take()?),
        sha256: digest(columns.take()?)?,
        damaged: columns.take()?,
        checksums: columns.take()?,
    })
}

/// No size is less than zero.
fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}
