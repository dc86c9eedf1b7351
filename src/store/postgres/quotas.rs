//! Limits that stand: reading them, and counting anew what they count.

use std::collections::BTreeMap;

use tokio_postgres::Row;

use super::super::Result;
use super::audit;
use super::columns::Columns;
use super::connection::{Connection, Pipeline};
use super::error::{numbered, unreadable};
use super::folders::{self, TOTAL};
use super::transaction::Transaction;
use crate::model::rules::{self, SetQuota};
use crate::model::{Metric, Quota, QuotaScope, Timestamp};

/// Locks the limits over some folders, whose rows are locked: the columns of [`from_row`].
pub(super) const LOCK: &str = "SELECT folder.id, metric, \"limit\", used FROM quotas
    JOIN folders AS folder ON folder.key = quotas.folder_key WHERE folder.id = ANY($1)
    ORDER BY quotas.folder_key, metric FOR UPDATE OF quotas";

pub(super) fn from_row(row: &Row) -> Result<Quota> {
    let mut columns = Columns::of(row);
    Ok(Quota {
        scope: folders::scope_of(columns.take()?),
        metric: numbered("metric", Metric::from_number, columns.take()?)?,
        limit: columns.take()?,
        used: columns.take()?,
    })
}

/// The limits that stand, by scope and metric.
pub(super) async fn all(connection: &Connection) -> Result<Vec<Quota>> {
    let rows = connection
        .query(
            "SELECT folder.id, metric, \"limit\", used FROM quotas
             JOIN folders AS folder ON folder.key = quotas.folder_key
             ORDER BY folder.id, metric",
            &[],
        )
        .await?;
    rows.iter().map(from_row).collect()
}

/// Sets a limit or takes it away; what is used. Whoever counts in the scope has the folder's row locked until its
/// commit, and is waited for.
pub(super) async fn set(
    transaction: &Transaction<'_>,
    now: Timestamp,
    set: &SetQuota,
) -> Result<i64> {
    let id = folders::id_of(&set.scope);
    if set.limit.is_some() && set.scope != QuotaScope::Total {
        transaction
            .execute(
                "INSERT INTO folders (id) SELECT $1
                 WHERE NOT EXISTS (SELECT 1 FROM folders WHERE id = $1)
                 ON CONFLICT (id) DO NOTHING",
                &[&id],
            )
            .await?;
    }
    let locked = transaction
        .query_opt("SELECT key FROM folders WHERE id = $1 FOR UPDATE", &[&id])
        .await?;
    // Nothing was ever in it, and no limit stands.
    let Some(locked) = locked else {
        return Ok(0);
    };
    let folder_key: i64 = locked.try_get(0)?;
    let metric = set.metric as i64;
    let used = used(transaction, folder_key, set.metric).await?;
    let old = transaction
        .query_opt(
            "SELECT \"limit\" FROM quotas WHERE folder_key = $1 AND metric = $2 FOR UPDATE",
            &[&folder_key, &metric],
        )
        .await?;
    let old = old.map(|row| row.try_get(0)).transpose()?;
    let (quota, event) = rules::set_quota(set, old, used, now);
    match quota {
        None => {
            transaction
                .execute(
                    "DELETE FROM quotas WHERE folder_key = $1 AND metric = $2",
                    &[&folder_key, &metric],
                )
                .await?
        }
        Some(quota) => {
            transaction
                .execute(
                    "INSERT INTO quotas (folder_key, metric, \"limit\", used)
                     VALUES ($1, $2, $3, $4)
                     ON CONFLICT (folder_key, metric)
                     DO UPDATE SET \"limit\" = excluded.\"limit\", used = excluded.used",
                    &[&folder_key, &metric, &quota.limit, &quota.used],
                )
                .await?
        }
    };
    let folders = BTreeMap::from([(id, folder_key)]);
    let mut pipeline = Pipeline::default();
    audit::insert(&mut pipeline, &[event], &folders)?;
    transaction.send(pipeline).await?;
    Ok(used)
}

/// The amount that the images take, by the images themselves.
async fn used(transaction: &Transaction<'_>, folder_key: i64, metric: Metric) -> Result<i64> {
    let (what, from) = match metric {
        Metric::DesktopImagesCount => ("count(*)", "desktop_images AS image"),
        Metric::ComputeImagesCount => ("count(*)", "compute_images AS image"),
        Metric::DesktopImagesSize => (
            "coalesce(sum(blob.stored_size), 0)::bigint",
            "desktop_images AS image JOIN blobs AS blob
             ON blob.key = image.blob_key AND blob.id_rest = image.blob_rest",
        ),
        Metric::ComputeImagesSize => (
            "coalesce(sum(blob.stored_size), 0)::bigint",
            "compute_images AS image JOIN blobs AS blob
             ON blob.key = image.blob_key AND blob.id_rest = image.blob_rest",
        ),
    };
    let which = match folder_key {
        TOTAL => "$1::bigint = 0",
        // By the index.
        _ => "folder_key = $1",
    };
    let row = transaction
        .query_opt(
            &format!("SELECT {what} FROM {from} WHERE {which}"),
            &[&folder_key],
        )
        .await?;
    let row = row.ok_or_else(|| unreadable("a count without a row".to_owned()))?;
    Ok(row.try_get(0)?)
}
