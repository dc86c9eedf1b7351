//! Migrations, and the file of the database, which only this store has.

use std::sync::Arc;

use crate::model::rules::Supersede;
use crate::model::{
    Change, Idempotency, ManualClock, NewComputeImage, Origin, RequestContext, Timestamp,
};
use crate::store::sqlite::SqliteStore;
use crate::store::{Error, Store};

fn import(origin: Origin) -> Change {
    let new = NewComputeImage {
        folder_id: "f".to_owned(),
        name: "n".to_owned(),
        description: String::new(),
        labels: Default::default(),
        family: String::new(),
        min_disk_size: 0,
        product_ids: Vec::new(),
        os: None,
        pooled: false,
        hardware_generation: None,
    };
    Change::CreateComputeImage { new, origin }
}

#[tokio::test]
async fn the_keys_of_uploads_that_an_earlier_version_left_are_free() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("metadata.sqlite");
    let task = serde_json::to_string(&import(Origin::Upload)).unwrap();
    let file = Origin::Uri("\"origin\":\"upload\"".to_owned());
    let other = serde_json::to_string(&import(file)).unwrap();
    let row = |key: u8, phase: i64, task: Option<&str>, error: Option<(&str, &str)>| {
        let connection = rusqlite::Connection::open(&path).unwrap();
        connection
            .execute(
                "INSERT INTO operations (key, id_rest, kind, phase, folder_key, image_key,
                     image_id_rest, subject, request_id, idempotency_key, request_hash,
                     modified_at, claimable_at, task, error_reason, error_message)
                 VALUES (?1, 0, 4, ?2, 1, ?1, 0, 'somebody', '', ?3, ?4, 0, ?5, ?6, ?7, ?8)",
                rusqlite::params![
                    i64::from(key),
                    phase,
                    [key; 16],
                    [1_u8; 32],
                    task.map(|_| 0),
                    task,
                    error.map(|(reason, _)| reason),
                    error.map(|(_, message)| message)
                ],
            )
            .unwrap();
    };
    let connection = rusqlite::Connection::open(&path).unwrap();
    connection
        .execute_batch(include_str!("../../../migrations/0001_initial.sql"))
        .unwrap();
    connection
        .execute_batch(
            "PRAGMA application_id = 1684630887; PRAGMA user_version = 1;
             INSERT INTO folders VALUES (1, 'f')",
        )
        .unwrap();
    row(1, 1, Some(&task), None);
    row(2, 1, Some(&other), None);
    row(
        3,
        4,
        None,
        Some(("aborted", "The upload ended early, after 5 bytes")),
    );
    row(
        4,
        4,
        None,
        Some(("aborted", "Given up after 10 attempts that were cut short")),
    );
    row(
        5,
        4,
        None,
        Some(("invalid", "The upload ended early, after 5 bytes")),
    );
    drop(connection);
    let clock = Arc::new(ManualClock::new(Timestamp(1_800_000_000_000_000)));
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open(&path, clock).unwrap());
    for (key, free) in [(1, true), (2, false), (3, true), (4, false), (5, false)] {
        let accept = RequestContext {
            idempotency: Some(Idempotency {
                key: [key; 16],
                request_hash: [1; 32],
            }),
            subject: "somebody".to_owned(),
            request_id: String::new(),
            ..RequestContext::internal("")
        };
        store.execute(Supersede(accept.clone())).await.unwrap();
        let found = store.repeated_operation(&accept).await.unwrap();
        assert_eq!(found.is_none(), free, "{key}");
    }
    store.close().await;
}

#[tokio::test]
async fn no_read_puts_a_database_in_the_place_of_one_that_is_away() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("metadata.sqlite");
    let away = folder.path().join("away");
    let clock = Arc::new(ManualClock::new(Timestamp(0)));
    let store = SqliteStore::open(&path, clock).unwrap();
    let name = store.installation("first".to_owned()).await.unwrap();
    let log = folder.path().join("metadata.sqlite-wal");
    let logged = std::fs::read(&log).unwrap();
    assert!(!logged.is_empty(), "what is committed is in the log");
    std::fs::rename(&path, &away).unwrap();
    // The first read opens a connection.
    let refused = store.check().await.unwrap_err();
    assert!(matches!(refused, Error::Unreachable(_)), "{refused}");
    assert!(!path.exists());
    assert!(std::fs::read(&log).unwrap() == logged);
    std::fs::rename(&away, &path).unwrap();
    store.check().await.unwrap();
    assert_eq!(store.installation("other".to_owned()).await.unwrap(), name);
    store.close().await;
}
