//! Effects, written in the order in which they were decided. Operations that are done as they are accepted and
//! audit events are gathered first, since many rows are written by one statement, which opens its tables once and
//! goes on where it was. Operations are written before one is looked up.

use std::mem::take;

use rusqlite::types::Value;
use rusqlite::{named_params, params, params_from_iter};

use super::super::Result;
use super::error::to_json;
use super::image_rows::{LIVE, PENDING};
use super::{Transaction, audit, folders, identity, listing, operation_rows};
use crate::model::{
    BlobRow, BlobState, ComputeImageRow, DesktopImageRow, Effect, OperationRow, Phase, Quota,
};

/// How many rows a statement writes where there are so many.
const MANY: usize = 16;

/// Rows that are still to be written.
#[derive(Default)]
pub(super) struct Effects {
    done_operations: Vec<[Value; 13]>,
    /// Whether one of them has an idempotency key.
    has_key: bool,
    audit_events: Vec<[Value; 13]>,
    /// Whether something was written that has to be removed.
    pub(super) removals: bool,
}

impl Effects {
    /// Writes an effect, or gathers it.
    pub(super) fn add(&mut self, transaction: &Transaction<'_>, effect: &Effect) -> Result<()> {
        match effect {
            Effect::InsertOperation(row) if row.state.phase == Phase::Succeeded => {
                self.done_operations.push(done_operation(transaction, row)?);
                self.has_key |= row.idempotency.is_some();
                if self.done_operations.len() == MANY {
                    self.write_operations(transaction)?;
                }
            }
            Effect::InsertOperation(row) => operation_rows::insert(transaction, row)?,
            Effect::UpdateOperation(row) => {
                self.write_operations(transaction)?;
                operation_rows::update(transaction, row)?;
            }
            Effect::InsertAuditEvent(row) => {
                self.audit_events.push(audit::values(transaction, row)?);
                if self.audit_events.len() == MANY {
                    self.write_audit_events(transaction)?;
                }
            }
            Effect::InsertDesktopImage(row) => insert_desktop_image(transaction, row)?,
            Effect::UpdateDesktopImage(row) => update_desktop_image(transaction, row)?,
            Effect::DeleteDesktopImage(id) => {
                delete(
                    transaction,
                    "DELETE FROM desktop_images WHERE key = ?1",
                    id.key,
                )?;
            }
            Effect::InsertComputeImage(row) => insert_compute_image(transaction, row)?,
            Effect::UpdateComputeImage(row) => update_compute_image(transaction, row)?,
            Effect::DeleteComputeImage(id) => {
                delete(
                    transaction,
                    "DELETE FROM compute_images WHERE key = ?1",
                    id.key,
                )?;
            }
            Effect::InsertBlob(row) => insert_blob(transaction, row)?,
            Effect::UpdateBlob(row) => update_blob(transaction, row)?,
            Effect::DeleteBlob(id) => {
                delete(transaction, "DELETE FROM contents WHERE key = ?1", id.key)?;
            }
            Effect::PutChecksums { blob, checksums } => {
                transaction
                    .prepare_cached(
                        "INSERT OR REPLACE INTO content_checksums (content_key, checksums)
                         VALUES (?1, ?2)",
                    )?
                    .execute(params![blob.key, checksums])?;
            }
            Effect::InsertTombstone(tombstone) => {
                transaction
                    .prepare_cached(
                        "INSERT INTO content_deletions (content_id, forget_after) VALUES (?1, ?2)",
                    )?
                    .execute(params![tombstone.file, tombstone.forget_after.0])?;
                self.removals = true;
            }
            Effect::NoteGarbage(blob) => {
                transaction
                    .prepare_cached(
                        "INSERT OR IGNORE INTO content_candidates (content_key) VALUES (?1)",
                    )?
                    .execute([blob.key])?;
                self.removals = true;
            }
            Effect::NoteFormerName { image_id, name, at } => {
                listing::note_former_name(transaction, image_id, name, *at)?;
            }
            Effect::UpdateQuota(quota) => update_quota(transaction, quota)?,
            Effect::PutIdentity(row) => identity::put(transaction, row)?,
            Effect::DeleteIdentity(key) => identity::delete(transaction, key)?,
        }
        Ok(())
    }

    /// Writes what was gathered.
    pub(super) fn finish(&mut self, transaction: &Transaction<'_>) -> Result<()> {
        self.write_operations(transaction)?;
        self.write_audit_events(transaction)
    }

    pub(super) fn write_operations(&mut self, transaction: &Transaction<'_>) -> Result<()> {
        // Fresh idempotency keys are random: each goes to another page of their index. A statement of
        // many rows that sets their primary keys may fail midway for all that SQLite knows, whatever OR
        // FAIL says, and copies each page before it first changes it.
        let is_alone = take(&mut self.has_key);
        insert(
            transaction,
            DONE_OPERATIONS,
            is_alone,
            &mut self.done_operations,
        )
    }

    fn write_audit_events(&mut self, transaction: &Transaction<'_>) -> Result<()> {
        // SQLite itself numbers these rows, and copies nothing.
        insert(transaction, audit::COLUMNS, false, &mut self.audit_events)
    }
}

/// The table, and the columns of [`done_operation`].
const DONE_OPERATIONS: &str =
    "operations (phase, key, id_rest, kind, folder_key, image_key, image_id_rest,
    response, subject, request_id, idempotency_key, request_hash, modified_at)";

/// The values of an operation that is done as it is accepted.
fn done_operation(transaction: &Transaction<'_>, row: &OperationRow) -> Result<[Value; 13]> {
    let idempotency = row.idempotency.as_ref();
    Ok([
        Value::from(row.state.phase as i64),
        Value::from(row.id.key),
        Value::from(row.id.rest),
        Value::from(row.kind as i64),
        Value::from(folders::intern(transaction, &row.folder_id)?),
        Value::from(row.image.key),
        Value::from(row.image.rest),
        Value::from(operation_rows::response_column(row)?),
        Value::from(row.subject.clone()),
        Value::from(row.request_id.clone()),
        Value::from(idempotency.map(|it| it.key.to_vec())),
        Value::from(idempotency.map(|it| it.request_hash.to_vec())),
        Value::from(row.modified_at.0),
    ])
}

/// Inserts rows, many by one statement unless they are better written alone. A row that fails undoes the whole
/// transaction, so that SQLite need not be able to undo the rows before it.
fn insert<const N: usize>(
    transaction: &Transaction<'_>,
    into: &str,
    is_alone: bool,
    rows: &mut Vec<[Value; N]>,
) -> Result<()> {
    let at_once = if is_alone || rows.len() < MANY {
        1
    } else {
        MANY
    };
    let row = format!("(?{})", ", ?".repeat(N - 1));
    let sql = format!(
        "INSERT OR FAIL INTO {into} VALUES {}",
        vec![&*row; at_once].join(", ")
    );
    for rows in rows.chunks(at_once) {
        transaction
            .prepare_cached(&sql)?
            .execute(params_from_iter(rows.iter().flatten()))?;
    }
    rows.clear();
    Ok(())
}

fn delete(transaction: &Transaction<'_>, sql: &str, key: i64) -> Result<()> {
    transaction.prepare_cached(sql)?.execute([key])?;
    Ok(())
}

fn insert_desktop_image(transaction: &Transaction<'_>, row: &DesktopImageRow) -> Result<()> {
    let image = &row.image;
    let folder_key = folders::intern(transaction, &image.folder_id)?;
    transaction
        .prepare_cached(
            "INSERT INTO desktop_images (key, id_rest, folder_key, status, name, description,
                 labels, min_disk_size, content_key)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        )?
        .execute(params![
            row.id.key,
            row.id.rest,
            folder_key,
            image.status as i64,
            image.name,
            image.description,
            to_json(&image.labels)?,
            image.min_disk_size,
            row.blob.key,
        ])?;
    Ok(())
}

fn update_desktop_image(transaction: &Transaction<'_>, row: &DesktopImageRow) -> Result<()> {
    let image = &row.image;
    transaction
        .prepare_cached(
            "UPDATE desktop_images SET status = ?2, name = ?3, description = ?4, labels = ?5
             WHERE key = ?1",
        )?
        .execute(params![
            row.id.key,
            image.status as i64,
            image.name,
            image.description,
            to_json(&image.labels)?,
        ])?;
    Ok(())
}

fn insert_compute_image(transaction: &Transaction<'_>, row: &ComputeImageRow) -> Result<()> {
    let image = &row.image;
    let folder_key = folders::intern(transaction, &image.folder_id)?;
    transaction
        .prepare_cached(
            "INSERT INTO compute_images (key, id_rest, folder_key, status, name, description,
                 labels, family, min_disk_size, product_ids, os, pooled, hardware_generation,
                 content_key)
             VALUES (:key, :id_rest, :folder_key, :status, :name, :description, :labels, :family,
                 :min_disk_size, :product_ids, :os, :pooled, :hardware_generation, :content_key)",
        )?
        .execute(named_params! {
            ":key": row.id.key,
            ":id_rest": row.id.rest,
            ":folder_key": folder_key,
            ":status": image.status as i64,
            ":name": image.name,
            ":description": image.description,
            ":labels": to_json(&image.labels)?,
            ":family": image.family,
            ":min_disk_size": image.min_disk_size,
            ":product_ids": to_json(&image.product_ids)?,
            ":os": image.os.as_ref().map(to_json).transpose()?,
            ":pooled": image.pooled,
            ":hardware_generation": image.hardware_generation.as_ref().map(to_json).transpose()?,
            ":content_key": row.blob.map(|blob| blob.key),
        })?;
    Ok(())
}

fn update_compute_image(transaction: &Transaction<'_>, row: &ComputeImageRow) -> Result<()> {
    let image = &row.image;
    transaction
        .prepare_cached(
            "UPDATE compute_images SET status = ?2, name = ?3, description = ?4, labels = ?5,
                    min_disk_size = ?6, content_key = ?7
             WHERE key = ?1",
        )?
        .execute(params![
            row.id.key,
            image.status as i64,
            image.name,
            image.description,
            to_json(&image.labels)?,
            image.min_disk_size,
            row.blob.map(|blob| blob.key),
        ])?;
    Ok(())
}

fn insert_blob(transaction: &Transaction<'_>, row: &BlobRow) -> Result<()> {
    let operation = match &row.state {
        BlobState::Pending { operation } => Some(operation.key),
        BlobState::Live(_) => None,
    };
    transaction
        .prepare_cached(
            "INSERT INTO contents (key, id_rest, id, state, operation_key)
             VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute(params![
            row.id.key,
            row.id.rest,
            row.file,
            PENDING,
            operation
        ])?;
    // The rules insert none that is live at once.
    match &row.state {
        BlobState::Pending { .. } => Ok(()),
        BlobState::Live(_) => update_blob(transaction, row),
    }
}

fn update_blob(transaction: &Transaction<'_>, row: &BlobRow) -> Result<()> {
    let facts = row.facts();
    transaction
        .prepare_cached(
            "UPDATE contents SET id = :id, damaged = :damaged, state = :state,
                    operation_key = iif(:state, NULL, operation_key), format = :format,
                    size = :size, stored_size = :stored_size, virtual_size = :virtual_size,
                    sha256 = :sha256
             WHERE key = :key",
        )?
        .execute(named_params! {
            ":key": row.id.key,
            ":id": row.file,
            ":damaged": row.damaged,
            ":state": if facts.is_some() { LIVE } else { PENDING },
            ":format": facts.map(|facts| facts.format.as_str()),
            ":size": facts.map(|facts| facts.size),
            ":stored_size": facts.map(|facts| facts.stored_size),
            ":virtual_size": facts.map(|facts| facts.virtual_size),
            ":sha256": facts.map(|facts| facts.sha256),
        })?;
    Ok(())
}

fn update_quota(transaction: &Transaction<'_>, quota: &Quota) -> Result<()> {
    let folder_key = folders::key_of(transaction, &quota.scope)?;
    transaction
        .prepare_cached("UPDATE quotas SET used = ?3 WHERE folder_key = ?1 AND metric = ?2")?
        .execute(params![folder_key, quota.metric as i64, quota.used])?;
    Ok(())
}
