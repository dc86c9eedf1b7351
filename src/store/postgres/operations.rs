//! Reading operations, and forgetting them.

use std::time::Duration;

use super::super::{Error, Result};
use super::connection::Connection;
use super::images;
use super::operation_rows::{from_row, select_operation};
use super::transaction::Transaction;
use crate::model::{
    COMPUTE_IMAGE_PREFIX, Id, KeyOf, OPERATION_PREFIX, Operation, Phase, Refusal, RequestContext,
    Timestamp,
};

/// The operation with this id.
pub(super) async fn find(connection: &Connection, id: &str) -> Result<Operation> {
    let not_found = || Refusal::OperationNotFound { id: id.to_owned() };
    let parsed = Id::parse(OPERATION_PREFIX, id).ok_or_else(not_found)?;
    let found = connection
        .query_opt(
            select_operation!("WHERE operation.key = $1 AND id_rest = $2"),
            &[&parsed.key, &parsed.rest],
        )
        .await?
        .ok_or_else(not_found)?;
    Ok(from_row(&found)?.operation())
}

/// Whether one of these keys has an operation by now.
pub(super) async fn is_key_used(connection: &Connection, keys: Vec<KeyOf>) -> Result<bool> {
    if keys.is_empty() {
        return Ok(false);
    }
    let keys = keys.into_iter().map(|key| (key.key.to_vec(), key.subject));
    let (keys, subjects): (Vec<Vec<u8>>, Vec<String>) = keys.unzip();
    let used = connection
        .query_opt(
            "SELECT 1 FROM operations JOIN unnest($1::bytea[], $2::text[]) AS wanted (key_of, of_subject)
               ON idempotency_key = wanted.key_of AND subject = wanted.of_subject LIMIT 1",
            &[&keys, &subjects],
        )
        .await?;
    Ok(used.is_some())
}

/// The first operation under the idempotency key of a request.
pub(super) async fn repeated(
    connection: &Connection,
    request: &RequestContext,
) -> Result<Option<Operation>> {
    let Some(idempotency) = &request.idempotency else {
        return Ok(None);
    };
    let first = connection
        .query_opt(
            select_operation!("WHERE idempotency_key = $1 AND subject = $2"),
            &[&&idempotency.key[..], &request.subject],
        )
        .await?;
    match first.as_ref().map(from_row).transpose()? {
        Some(first) if first.idempotency != request.idempotency => {
            Err(Refusal::IdempotencyKeyReused.into())
        }
        first => Ok(first.map(|first| first.operation())),
    }
}

/// The operations of a compute image, the newest first, after the one with the id `after`.
pub(super) async fn of_compute_image(
    connection: &Connection,
    image_id: &str,
    after: Option<&str>,
    limit: usize,
) -> Result<Vec<Operation>> {
    let image = images::find_compute_image(connection, image_id).await?;
    let image = Id::parse(COMPUTE_IMAGE_PREFIX, &image.id).unwrap_or(Id::GREATEST);
    let before = match after {
        Some(id) => Id::parse(OPERATION_PREFIX, id).ok_or(Error::PageTokenExpired)?,
        None => Id::GREATEST,
    };
    // The condition on the kind is in the words of the index.
    let rows = connection
        .query(
            select_operation!(
                "WHERE image_key = $1 AND image_rest = $2 AND kind >= 4
                   AND (operation.key, id_rest) < ($3, $4)
                 ORDER BY operation.key DESC, id_rest DESC LIMIT $5"
            ),
            &[
                &image.key,
                &image.rest,
                &before.key,
                &before.rest,
                &(limit as i64),
            ],
        )
        .await?;
    rows.iter()
        .map(|row| Ok(from_row(row)?.operation()))
        .collect()
}

/// Forgets operations that ended longer ago than `age`; how many they were.
pub(super) async fn forget(
    transaction: &Transaction<'_>,
    now: Timestamp,
    age: Duration,
    limit: usize,
) -> Result<usize> {
    let before = now.before(age);
    // An operation that was made later cannot have ended earlier.
    let forgotten = transaction
        .execute(
            "DELETE FROM operations WHERE (key, id_rest) IN (
                 SELECT key, id_rest FROM operations
                 WHERE key < $1 AND phase IN ($4, $5) AND modified_at < $2
                 ORDER BY key, id_rest LIMIT $3 FOR UPDATE SKIP LOCKED)",
            &[
                &Id::first_key(before),
                &before.0,
                &(limit as i64),
                &(Phase::Succeeded as i64),
                &(Phase::Failed as i64),
            ],
        )
        .await?;
    Ok(forgotten as usize)
}
