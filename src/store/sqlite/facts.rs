//! Facts: the rows that a command looks up, loaded into the working set.

use std::collections::BTreeSet;

use rusqlite::{OptionalExtension, Row, params};

use super::super::Result;
use super::effects::Effects;
use super::error::numbered;
use super::image_rows::{
    LIVE, PENDING, SELECT_BLOB, SELECT_COMPUTE_IMAGE_ROW, SELECT_DESKTOP_IMAGE_ROW, blob,
    compute_image_row, desktop_image_row,
};
use super::{Transaction, folders, identity, operation_rows};
use crate::model::{Id, KeyOf, Lookup, Metric, NameIn, Quota, QuotaScope, WorkingSet};

/// Loads what is not known yet. Effects that wait are written where they are looked up.
pub(super) fn load(
    transaction: &Transaction<'_>,
    facts: &mut WorkingSet,
    effects: &mut Effects,
    lookups: Vec<Lookup>,
) -> Result<()> {
    for lookup in lookups {
        if !facts.knows(&lookup) {
            if matches!(lookup, Lookup::Operation(_) | Lookup::IdempotencyKey(_)) {
                effects.write_operations(transaction)?;
            }
            load_one(transaction, facts, lookup)?;
        }
    }
    Ok(())
}

fn load_one(transaction: &Transaction<'_>, facts: &mut WorkingSet, lookup: Lookup) -> Result<()> {
    match lookup {
        Lookup::IdempotencyKey(key) => load_key(transaction, facts, key)?,
        Lookup::Operation(id) => {
            facts.learn_operation(id, operation_rows::get(transaction, id)?);
        }
        Lookup::DesktopImage(id) => {
            let found = transaction
                .prepare_cached(&format!(
                    "{SELECT_DESKTOP_IMAGE_ROW} WHERE image.key = ?1 AND image.id_rest = ?2"
                ))?
                .query_row([id.key, id.rest], desktop_image_row)
                .optional()?;
            let (image, blob) = found.unzip();
            facts.learn_desktop_image(id, image);
            blob.into_iter().for_each(|blob| facts.learn_blob(blob));
        }
        Lookup::ComputeImage(id) | Lookup::SourceImage(id) => {
            let found = transaction
                .prepare_cached(&format!(
                    "{SELECT_COMPUTE_IMAGE_ROW} WHERE image.key = ?1 AND image.id_rest = ?2"
                ))?
                .query_row([id.key, id.rest], compute_image_row)
                .optional()?;
            let (image, blob) = found.unzip();
            facts.learn_compute_image(id, image);
            let blob = blob.flatten();
            blob.into_iter().for_each(|blob| facts.learn_blob(blob));
        }
        Lookup::DesktopImageName(name) => {
            let sql = "SELECT key, id_rest FROM desktop_images WHERE folder_key = ?1 AND name = ?2";
            let holder = holder(transaction, sql, &name)?;
            facts.learn_desktop_image_name(name, holder);
        }
        Lookup::ComputeImageName(name) => {
            let sql = "SELECT key, id_rest FROM compute_images WHERE folder_key = ?1 AND name = ?2";
            let holder = holder(transaction, sql, &name)?;
            facts.learn_compute_image_name(name, holder);
        }
        Lookup::Quotas(scope) => {
            let quotas = quotas(transaction, &scope)?;
            facts.learn_quotas(scope, quotas);
        }
        Lookup::Digest(sha256) => {
            let found = transaction
                .prepare_cached(&format!(
                    "{SELECT_BLOB} WHERE state = {LIVE} AND sha256 = ?1"
                ))?
                .query_row([sha256], |row| blob(row, None))
                .optional()?;
            facts.learn_digest(sha256, found.as_ref().map(|blob| blob.id));
            found.into_iter().for_each(|blob| facts.learn_blob(blob));
        }
        Lookup::PendingBlobs(operation) => {
            let mut statement = transaction.prepare_cached(&format!(
                "{SELECT_BLOB} WHERE state = {PENDING} AND operation_key = ?1"
            ))?;
            let mut rows = statement.query([operation.key])?;
            let mut ids = BTreeSet::new();
            while let Some(row) = rows.next()? {
                let blob = blob(row, Some(operation))?;
                ids.insert(blob.id);
                facts.learn_blob(blob);
            }
            facts.learn_pending(operation, ids);
        }
        Lookup::Identity(key) => {
            let row = identity::find(transaction, &key)?;
            facts.learn_identity(key, row);
        }
        Lookup::IdentityChildren(key) => {
            let rows = identity::children(transaction, &key)?;
            facts.learn_identity_children(key, rows);
        }
    }
    Ok(())
}

fn load_key(transaction: &Transaction<'_>, facts: &mut WorkingSet, key: KeyOf) -> Result<()> {
    let found = transaction
        .prepare_cached(&format!(
            "{} WHERE idempotency_key = ?1 AND subject = ?2",
            operation_rows::SELECT
        ))?
        .query_row(params![key.key, key.subject], operation_rows::from_row)
        .optional()?;
    facts.learn_key(key, found.as_ref().map(|row| row.id));
    if let Some(row) = found {
        facts.learn_operation(row.id, Some(row));
    }
    Ok(())
}

/// The image that has a name.
fn holder(transaction: &Transaction<'_>, sql: &str, name: &NameIn) -> Result<Option<Id>> {
    let Some(folder_key) = folders::find(transaction, &name.folder_id)? else {
        return Ok(None);
    };
    let id = |row: &Row<'_>| {
        Ok(Id {
            key: row.get(0)?,
            rest: row.get(1)?,
        })
    };
    Ok(transaction
        .prepare_cached(sql)?
        .query_row(params![folder_key, name.name], id)
        .optional()?)
}

/// The limits that stand for a scope, by metric.
fn quotas(transaction: &Transaction<'_>, scope: &QuotaScope) -> Result<Vec<Quota>> {
    let Some(folder_key) = folders::key_of(transaction, scope)? else {
        return Ok(Vec::new());
    };
    let mut statement = transaction.prepare_cached(
        "SELECT metric, \"limit\", used FROM quotas WHERE folder_key = ?1 ORDER BY metric",
    )?;
    let quotas = statement
        .query_map([folder_key], |row| {
            Ok(Quota {
                scope: scope.clone(),
                metric: numbered("metric", Metric::from_number, row.get(0)?)?,
                limit: row.get(1)?,
                used: row.get(2)?,
            })
        })?
        .collect::<rusqlite::Result<_>>()?;
    Ok(quotas)
}
