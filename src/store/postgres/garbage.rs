//! Garbage collection of blobs, and what is known of their bytes.

use super::super::Result;
use super::columns::{Columns, columns_of};
use super::connection::Connection;
use super::transaction::Transaction;
use crate::model::{
    BlobSize, COMPUTE_IMAGE_PREFIX, DESKTOP_IMAGE_PREFIX, DeletedBlob, Id, Timestamp,
};

/// Blobs with a tombstone that was made before some time: at most `limit` of them, the oldest first, after that one.
/// None while a hold stands.
pub(super) async fn blobs_to_delete(
    connection: &Connection,
    now: Timestamp,
    made_before: Timestamp,
    after: Option<DeletedBlob>,
    limit: usize,
) -> Result<Vec<DeletedBlob>> {
    let after = after.unwrap_or_else(DeletedBlob::before_all);
    let rows = connection
        .query(
            "SELECT file, forget_after FROM tombstones
             WHERE (forget_after, file) > ($1, $2) AND forget_after <= $3
               AND NOT EXISTS (SELECT 1 FROM blob_holds WHERE expires_at > $4)
             ORDER BY forget_after, file LIMIT $5",
            &[
                &after.forget_after.0,
                &after.id,
                &made_before.0,
                &now.0,
                &(limit as i64),
            ],
        )
        .await?;
    let blob = |row| {
        let mut columns = Columns::of(row);
        Ok(DeletedBlob {
            id: columns.take()?,
            forget_after: Timestamp(columns.take()?),
        })
    };
    rows.iter().map(blob).collect()
}

/// Has the age of a blob's tombstone count from now on. The tombstone of what a worker may still write does already.
pub(super) async fn renew_tombstone(
    transaction: &Transaction<'_>,
    now: Timestamp,
    id: &str,
) -> Result<()> {
    let sql = "UPDATE tombstones SET forget_after = $2 WHERE file = $1 AND forget_after < $2";
    transaction.execute(sql, &[&id, &now.0]).await?;
    Ok(())
}

/// Forgets blobs whose bytes are removed, but for those that may come back.
pub(super) async fn blobs_deleted(
    transaction: &Transaction<'_>,
    now: Timestamp,
    ids: &[String],
) -> Result<()> {
    let sql = "DELETE FROM tombstones WHERE file = ANY($1) AND forget_after <= $2";
    transaction.execute(sql, &[&ids, &now.0]).await?;
    Ok(())
}

/// Makes tombstones of the blobs among some candidates that no image refers to; how many were looked at.
pub(super) async fn remove_unreferenced(
    transaction: &Transaction<'_>,
    now: Timestamp,
    limit: usize,
) -> Result<usize> {
    // Those that another process looks at are that one's.
    let rows = transaction
        .query(
            "SELECT key, id_rest FROM blob_candidates ORDER BY key, id_rest LIMIT $1
             FOR UPDATE SKIP LOCKED",
            &[&(limit as i64)],
        )
        .await?;
    let candidates: Result<Vec<Id>> = rows.iter().map(|row| Columns::of(row).take_id()).collect();
    let candidates = candidates?;
    if candidates.is_empty() {
        return Ok(0);
    }
    let (keys, rests) = columns_of(&candidates);
    // A transaction that is about to refer to a blob has locked it, and is waited for. The next statement sees its rows.
    transaction
        .query(
            "SELECT 1 FROM blobs AS blob JOIN unnest($1::bigint[], $2::bigint[]) AS it (key, rest)
               ON blob.key = it.key AND blob.id_rest = it.rest
             ORDER BY blob.key, blob.id_rest FOR UPDATE OF blob",
            &[&keys, &rests],
        )
        .await?;
    transaction
        .execute(
            "WITH gone AS (
                 DELETE FROM blobs AS blob USING unnest($1::bigint[], $2::bigint[]) AS it (key, rest)
                 WHERE blob.key = it.key AND blob.id_rest = it.rest
                   AND NOT EXISTS (SELECT 1 FROM desktop_images AS image
                                   WHERE image.blob_key = it.key AND image.blob_rest = it.rest)
                   AND NOT EXISTS (SELECT 1 FROM compute_images AS image
                                   WHERE image.blob_key = it.key AND image.blob_rest = it.rest)
                 RETURNING file)
             INSERT INTO tombstones (file, forget_after) SELECT file, $3 FROM gone",
            &[&keys, &rests, &now.0],
        )
        .await?;
    transaction
        .execute(
            "DELETE FROM blob_candidates AS candidate
             USING unnest($1::bigint[], $2::bigint[]) AS it (key, rest)
             WHERE candidate.key = it.key AND candidate.id_rest = it.rest",
            &[&keys, &rests],
        )
        .await?;
    Ok(candidates.len())
}

/// Notes that blobs have other bytes than were written, or none.
pub(super) async fn mark_damaged(transaction: &Transaction<'_>, ids: &[String]) -> Result<()> {
    transaction
        .execute(
            "UPDATE blobs SET damaged = true WHERE (key, id_rest) IN (
                 SELECT key, id_rest FROM blobs WHERE file = ANY($1) AND state = 1
                 ORDER BY key, id_rest FOR UPDATE)",
            &[&ids],
        )
        .await?;
    Ok(())
}

/// The ids of all blobs that may have bytes, in any collection.
pub(super) async fn known<C: FromIterator<String>>(connection: &Connection) -> Result<C> {
    let sql = "SELECT file FROM blobs UNION SELECT file FROM tombstones";
    let rows = connection.query(sql, &[]).await?;
    rows.iter().map(|row| Columns::of(row).take()).collect()
}

/// All live blobs.
pub(super) async fn live(connection: &Connection) -> Result<Vec<BlobSize>> {
    let rows = connection
        .query(
            "SELECT file, size, stored_size FROM blobs WHERE state = 1",
            &[],
        )
        .await?;
    let blob = |row| {
        let mut columns = Columns::of(row);
        let (id, size, stored_size) = (columns.take()?, columns.take()?, columns.take()?);
        Ok(BlobSize::new(id, size, stored_size))
    };
    rows.iter().map(blob).collect()
}

/// The ids of images that have the bytes of a blob.
pub(super) async fn images_of(
    connection: &Connection,
    blob: &str,
    limit: usize,
) -> Result<Vec<String>> {
    let mut images = Vec::new();
    for (table, prefix) in [
        ("desktop_images", DESKTOP_IMAGE_PREFIX),
        ("compute_images", COMPUTE_IMAGE_PREFIX),
    ] {
        let sql = format!(
            "SELECT image.key, image.id_rest FROM blobs AS blob
               JOIN {table} AS image ON blob_key = blob.key AND blob_rest = blob.id_rest
             WHERE file = $1 ORDER BY image.key, image.id_rest LIMIT $2"
        );
        let left = (limit - images.len()) as i64;
        for row in &connection.query(&sql, &[&blob, &left]).await? {
            images.push(Columns::of(row).take_id()?.text(prefix));
        }
    }
    Ok(images)
}
