//! The data folder from outside: files and rows agree.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use rusqlite::{Connection, OpenFlags};
use test_support::{blob_files, eventually};

use crate::blobs::Blobs;
use crate::load::Shared;
use crate::model::Standing;

/// While no server runs: every file has a row, which was there before it.
pub fn files_have_rows(data: &Path) {
    let database = open(data);
    let mut statement = database
        .prepare("SELECT id FROM contents UNION SELECT content_id FROM content_deletions")
        .expect("tables of contents");
    let rows = statement.query_map([], |row| row.get(0)).expect("rows");
    let known: BTreeSet<String> = rows.map(|row| row.expect("a row")).collect();
    for file in blob_files(data) {
        assert!(known.contains(&file), "a file without a row: {file}");
    }
}

fn open(data: &Path) -> Connection {
    let path = data.join("metadata.sqlite");
    let opened = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY);
    opened.expect("the database opens")
}

/// Waits until every file is the blob of an image and nothing is left to be removed, and
/// checks that the database is whole.
pub async fn agrees(data: &Path, model: &Shared) {
    let database = open(data);
    let live = eventually("files and rows agree", || async {
        let live = live(&database);
        let rows: BTreeSet<String> = live.keys().cloned().collect();
        let files: BTreeSet<String> = blob_files(data).into_iter().collect();
        let pending = count(&database, "contents WHERE state = 0");
        let candidates = count(&database, "content_candidates");
        (rows == files && pending == 0 && candidates == 0).then_some(live)
    })
    .await;
    let unreferenced = count(
        &database,
        "contents WHERE key NOT IN (SELECT content_key FROM desktop_images)
         AND key NOT IN (SELECT content_key FROM compute_images WHERE content_key IS NOT NULL)",
    );
    assert_eq!(unreferenced, 0, "blobs that no image refers to");
    for check in ["integrity_check", "foreign_key_check"] {
        let mut statement = database
            .prepare(&format!("PRAGMA {check}"))
            .expect("a check");
        let found: Vec<String> = statement
            .query_map([], |row| Ok(format!("{:?}", row.get_ref(0)?)))
            .expect("rows")
            .map(|row| row.expect("a row"))
            .collect();
        let whole = found.is_empty() || found == [r#"Text([111, 107])"#];
        assert!(whole, "{check}: {found:?}");
    }
    // Uploads that gave their key back were sent again.
    let operations = "operations WHERE upload = 0 OR idempotency_key IS NOT NULL";
    done_once(count(&database, operations), model);
    bytes(&Blobs::Folder(data.to_owned()), &live, model).await;
}

/// There are as many operations, but for uploads that were sent again, as requests that were accepted: none was done twice.
pub fn done_once(operations: usize, model: &Shared) {
    let model = model.lock();
    let accepted = model
        .requests
        .iter()
        .filter(|request| matches!(request.standing, Standing::Accepted(_) | Standing::Found(_)));
    // Those that a server which goes on may carry out just now.
    let unknown = model.unknown().len();
    let accepted = accepted.count();
    assert!(
        (accepted..=accepted + unknown).contains(&operations),
        "{operations} operations in the store, {accepted} accepted, {unknown} unknown"
    );
}

/// Every blob has the bytes that its row promises, and there is one for each disk.
pub async fn bytes(blobs: &Blobs, live: &BTreeMap<String, Vec<u8>>, model: &Shared) {
    let expected = model.lock().living_bytes();
    let rows: BTreeSet<[u8; 32]> = live
        .values()
        .map(|sha256| sha256.as_slice().try_into().expect("32 bytes"))
        .collect();
    assert_eq!(rows.len(), live.len(), "the same bytes are there twice");
    assert!(
        rows.iter().eq(expected.keys()),
        "the live blobs are not those of the images"
    );
    for (id, sha256) in live {
        blobs.check(id, &expected[&sha256[..]]).await;
    }
}

/// The live blobs, with their SHA-256.
fn live(database: &Connection) -> BTreeMap<String, Vec<u8>> {
    let mut statement = database
        .prepare_cached("SELECT id, sha256 FROM contents WHERE state = 1")
        .expect("a table of contents");
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)));
    rows.expect("rows").map(|row| row.expect("a row")).collect()
}

fn count(database: &Connection, what: &str) -> usize {
    let rows: i64 = database
        .query_row(&format!("SELECT count(*) FROM {what}"), [], |row| {
            row.get(0)
        })
        .expect("a number of rows");
    rows as usize
}
