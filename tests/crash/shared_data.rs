//! The database and the folder of blobs of several replicas, from outside: files and rows agree.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use test_support::{blob_files, eventually_within};
use tokio_postgres::Client;

use crate::data_folder;
use crate::load::Shared;

/// How long what a dead replica has left behind may take to go: others look for it once a minute.
const PATIENCE: Duration = Duration::from_secs(90);

/// While replicas run: every file has a row, which was there before it.
pub async fn files_have_rows(database: &Client, data: &Path) {
    let before = files(data);
    let rows = database
        .query(
            "SELECT file FROM blobs UNION SELECT file FROM tombstones",
            &[],
        )
        .await
        .expect("rows of blobs");
    let known: BTreeSet<String> = rows.iter().map(|row| row.get(0)).collect();
    // A file that was removed meanwhile lost its row after that.
    for file in before.intersection(&files(data)) {
        assert!(known.contains(file), "a file without a row: {file}");
    }
}

fn files(data: &Path) -> BTreeSet<String> {
    blob_files(data).into_iter().collect()
}

/// Waits until every file is the blob of an image and nothing is left to be removed.
pub async fn agrees(database: &Client, data: &Path, model: &Shared) {
    let live = eventually_within(PATIENCE, "files and rows agree", || async {
        let live = live(database).await;
        let rows: BTreeSet<String> = live.keys().cloned().collect();
        let pending = count(database, "blobs WHERE state = 0").await;
        let candidates = count(database, "blob_candidates").await;
        (rows == files(data) && pending == 0 && candidates == 0).then_some(live)
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
    data_folder::files(data, &live, model).await;
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
