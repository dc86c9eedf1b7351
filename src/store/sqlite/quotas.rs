//! Limits that stand: reading them, and counting anew what they count.

use rusqlite::{OptionalExtension, params};

use super::super::Result;
use super::error::numbered;
use super::folders::{self, TOTAL};
use super::{Transaction, audit};
use crate::model::rules::{self, SetQuota};
use crate::model::{Metric, Quota, QuotaScope, Timestamp};

/// The limits that stand, by scope and metric.
pub(super) fn all(transaction: &Transaction<'_>) -> Result<Vec<Quota>> {
    let mut statement = transaction.prepare_cached(
        "SELECT folder.id, metric, \"limit\", used FROM quotas
         LEFT JOIN folders AS folder ON folder.key = quotas.folder_key
         ORDER BY folder.id, metric",
    )?;
    let quotas = statement
        .query_map([], |row| {
            let folder: Option<String> = row.get(0)?;
            Ok(Quota {
                scope: folder.map_or(QuotaScope::Total, QuotaScope::Folder),
                metric: numbered("metric", Metric::from_number, row.get(1)?)?,
                limit: row.get(2)?,
                used: row.get(3)?,
            })
        })?
        .collect::<rusqlite::Result<_>>()?;
    Ok(quotas)
}

/// Sets a limit or takes it away; what is used.
pub(super) fn set(transaction: &Transaction<'_>, now: Timestamp, set: &SetQuota) -> Result<i64> {
    let folder_key = match (&set.scope, set.limit) {
        (QuotaScope::Folder(id), Some(_)) => Some(folders::intern(transaction, id)?),
        (scope, _) => folders::key_of(transaction, scope)?,
    };
    // Nothing was ever in it, and no limit stands.
    let Some(folder_key) = folder_key else {
        return Ok(0);
    };
    let metric = set.metric as i64;
    let used = used(transaction, folder_key, set.metric)?;
    let old: Option<i64> = transaction
        .prepare_cached("SELECT \"limit\" FROM quotas WHERE folder_key = ?1 AND metric = ?2")?
        .query_row([folder_key, metric], |row| row.get(0))
        .optional()?;
    let (quota, event) = rules::set_quota(set, old, used, now);
    audit::insert(transaction, event)?;
    match quota {
        None => transaction
            .prepare_cached("DELETE FROM quotas WHERE folder_key = ?1 AND metric = ?2")?
            .execute([folder_key, metric])?,
        Some(quota) => transaction
            .prepare_cached(
                "INSERT OR REPLACE INTO quotas (folder_key, metric, \"limit\", used)
                 VALUES (?1, ?2, ?3, ?4)",
            )?
            .execute([folder_key, metric, quota.limit, quota.used])?,
    };
    Ok(used)
}

/// The amount that the images take, by the images themselves.
fn used(transaction: &Transaction<'_>, folder_key: i64, metric: Metric) -> Result<i64> {
    let (what, from) = match metric {
        Metric::DesktopImagesCount => ("count(*)", "desktop_images"),
        Metric::ComputeImagesCount => ("count(*)", "compute_images"),
        Metric::DesktopImagesSize => (
            "coalesce(sum(content.stored_size), 0)",
            "desktop_images JOIN contents AS content ON content.key = content_key",
        ),
        Metric::ComputeImagesSize => (
            "coalesce(sum(content.stored_size), 0)",
            "compute_images JOIN contents AS content ON content.key = content_key",
        ),
    };
    let which = match folder_key {
        TOTAL => "?1 = 0",
        // By the index.
        _ => "folder_key = ?1",
    };
    Ok(transaction.query_row(
        &format!("SELECT {what} FROM {from} WHERE {which}"),
        params![folder_key],
        |row| row.get(0),
    )?)
}
