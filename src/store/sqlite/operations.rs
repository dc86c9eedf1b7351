//! Reading operations, and forgetting them.

use std::time::Duration;

use rusqlite::{OptionalExtension, params};

use super::super::{Error, Result};
use super::operation_rows::{OF_COMPUTE_IMAGES, SELECT, from_row, get};
use super::{Transaction, images};
use crate::model::{
    COMPUTE_IMAGE_PREFIX, Id, OPERATION_PREFIX, Operation, OperationRow, Phase, Refusal,
    RequestContext, Timestamp,
};

/// The operation with this id.
pub(super) fn find(transaction: &Transaction<'_>, id: &str) -> Result<Operation> {
    let found = match Id::parse(OPERATION_PREFIX, id) {
        Some(id) => get(transaction, id)?,
        None => None,
    };
    let found = found.ok_or_else(|| Refusal::OperationNotFound { id: id.to_owned() })?;
    Ok(found.operation())
}

/// The first operation under the idempotency key of a request.
pub(super) fn repeated(
    transaction: &Transaction<'_>,
    request: &RequestContext,
) -> Result<Option<Operation>> {
    let Some(idempotency) = &request.idempotency else {
        return Ok(None);
    };
    let first = transaction
        .prepare_cached(&format!(
            "{SELECT} WHERE idempotency_key = ?1 AND subject = ?2"
        ))?
        .query_row(params![idempotency.key, request.subject], from_row)
        .optional()?;
    match first {
        Some(first) if first.idempotency != request.idempotency => {
            Err(Refusal::IdempotencyKeyReused.into())
        }
        first => Ok(first.map(|first| first.operation())),
    }
}

/// The operations of a compute image, the newest first, after the one with the id `after`.
pub(super) fn of_compute_image(
    transaction: &Transaction<'_>,
    image_id: &str,
    after: Option<&str>,
    limit: usize,
) -> Result<Vec<Operation>> {
    let image = images::find_compute_image(transaction, image_id)?;
    let key = Id::parse(COMPUTE_IMAGE_PREFIX, &image.id).map_or(0, |id| id.key);
    let before = match after {
        Some(id) => Id::parse(OPERATION_PREFIX, id).ok_or(Error::PageTokenExpired)?,
        None => Id::GREATEST,
    };
    let mut statement = transaction.prepare_cached(&format!(
        "{SELECT} WHERE image_key = ?1 AND {OF_COMPUTE_IMAGES}
             AND (operation.key, id_rest) < (?2, ?3)
         ORDER BY operation.key DESC LIMIT ?4"
    ))?;
    let operations = statement
        .query_map(params![key, before.key, before.rest, limit as i64], |row| {
            from_row(row).map(|row: OperationRow| row.operation())
        })?
        .collect::<rusqlite::Result<_>>()?;
    Ok(operations)
}

/// Forgets operations that ended longer ago than `age`; how many they were.
pub(super) fn forget(
    transaction: &Transaction<'_>,
    now: Timestamp,
    age: Duration,
    limit: usize,
) -> Result<usize> {
    let before = now.before(age);
    // An operation that was made later cannot have ended earlier.
    Ok(transaction
        .prepare_cached(
            "DELETE FROM operations WHERE key IN (
                 SELECT key FROM operations
                 WHERE key < ?1 AND phase IN (?4, ?5) AND modified_at < ?2
                 ORDER BY key LIMIT ?3)",
        )?
        .execute(params![
            Id::first_key(before),
            before.0,
            limit as i64,
            Phase::Succeeded as i64,
            Phase::Failed as i64
        ])?)
}
