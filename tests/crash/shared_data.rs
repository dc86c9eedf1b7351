//! The database and the blobs of several replicas, from outside: blobs and rows agree.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use test_support::eventually_within;
use tokio_postgres::Client;

use crate::blobs::Blobs;
use crate::data_folder;
use crate::load::Shared;

/// How long what a dead replica has left behind may take to go: others look for it once a minute.
const PATIENCE: Duration = Duration::from_secs(90);

/// While replicas run: every blob has a row, which was there before it.
pub async fn blobs_have_rows(database: &Client, blobs: &Blobs) {
    let before = blobs.names().await;
    let rows = database
        .query(
            "SELECT file FROM blobs UNION SELECT file FROM tombstones",
            &[],
        )
        .await
        .expect("rows of blobs");
    let known: BTreeSet<String> = rows.iter().map(|row| row.get(0)).collect();
    // A blob that was removed meanwhile lost its row after that.
    for blob in before.intersection(&blobs.names().await) {
        assert!(known.contains(blob), "a blob without a row: {blob}");
    }
}

/// Waits until every blob is that of an image and nothing is left to be removed.
pub async fn agrees(database: &Client, blobs: &Blobs, model: &Shared) {
    let live = eventually_within(PATIENCE, "blobs and rows agree", || async {
        let live = live(database).await;
        let rows: BTreeSet<String> = live.keys().cloned().collect();
        let pending = count(database, "blobs WHERE state = 0").await;
        let candidates = count(database, "blob_candidates").await;
        let agree = pending == 0 && candidates == 0 && rows == blobs.names().await;
        (agree && blobs.left_over(&rows).await.is_empty()).then_some(live)
    })
    .await;
    let unreferenced = count(
        database,
        "blobs AS blob WHERE NOT EXISTS (SELECT FROM desktop_images AS image
             WHERE (image.blob_key, image.blob_rest) = (blob.key, blob.id_rest))
         AND NOT EXISTS (SELECT FROM compute_images AS image
             WHERE (image.blob_key, image.blob_rest) = (blob.key, blob.id_rest))",
    );
    assert_eq!(unreferenced.await, 0, "blobs that no image refers to");
    // Uploads that gave their key back were sent again.
    let operations = "operations WHERE upload = 0 OR idempotency_key IS NOT NULL";
    data_folder::done_once(count(database, operations).await, model);
    data_folder::bytes(blobs, &live, model).await;
}

/// The live blobs, with their SHA-256.
async fn live(database: &Client) -> BTreeMap<String, Vec<u8>> {
    let rows = database
        .query("SELECT file, sha256 FROM blobs WHERE state = 1", &[])
        .await
        .expect("rows of blobs");
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

async fn count(database: &Client, what: &str) -> usize {
    let sql = format!("SELECT count(*) FROM {what}");
    let row = database.query_one(&sql, &[]).await.expect("a count");
    let count: i64 = row.get(0);
    count as usize
}
