//! Idempotency keys of uploads, which are tied to one only once its body is there.

use super::*;
use crate::store::sqlite::Store;

fn keyed(request_hash: u8) -> Accept {
    Accept {
        idempotency: Some(Idempotency {
            key: [7; 16],
            request_hash: [request_hash; 32],
        }),
        ..caller()
    }
}

impl Fixture {
    async fn keyed_upload(&self) -> Lease {
        let change = import("f", "n", Origin::Upload);
        let start = Start::Here(LEASE);
        let accepted = self.store.accept(keyed(1), change, start).await.unwrap();
        accepted.lease.expect("the first under its key")
    }

    /// What a request under the key finds.
    async fn found(&self) -> Option<String> {
        let found = self.store.repeated_operation(&keyed(1)).await.unwrap();
        found.map(|operation| operation.id)
    }

    async fn superseded(&self) -> Option<String> {
        self.store.supersede(&keyed(1)).await.unwrap()
    }
}

#[tokio::test]
async fn a_retry_supersedes_an_upload_until_its_body_is_there() {
    let fixture = Fixture::new();
    let store = &fixture.store;
    // One image at a time.
    let (scope, metric) = (QuotaScope::Total, Metric::ComputeImagesCount);
    store
        .set_quota(caller(), scope, metric, Some(1))
        .await
        .unwrap();
    assert_eq!(fixture.superseded().await, None);
    let first = fixture.keyed_upload().await;
    assert!(first.key_is_free);
    let other = store.supersede(&keyed(2)).await;
    assert!(matches!(other, Err(Error::IdempotencyKeyReused)));
    assert_eq!(fixture.superseded().await, Some(first.operation_id.clone()));
    let ended = store.operation(&first.operation_id).await.unwrap();
    assert_eq!(failed(&ended), Reason::Superseded);
    let statuses = fixture.statuses(&first.operation_id).await;
    assert_eq!(statuses, [AuditStatus::Started, AuditStatus::Error]);
    assert_eq!(fixture.found().await, None);

    // Name and place are free for the second.
    let second = fixture.keyed_upload().await;
    let late = store.tie_key(&first).await;
    assert!(matches!(late, Err(Error::LeaseLost { .. })));
    let late = store
        .complete_import(&first, facts("late"), Vec::new())
        .await;
    assert!(matches!(late, Err(Error::LeaseLost { .. })));
    let late = store.renew(&first, LEASE, Default::default()).await;
    assert!(matches!(late, Err(Error::LeaseLost { .. })));

    store.tie_key(&second).await.unwrap();
    assert_eq!(fixture.superseded().await, None);
    assert_eq!(fixture.found().await, Some(second.operation_id.clone()));
    store
        .complete_import(&second, facts("second"), Vec::new())
        .await
        .unwrap();
    assert_eq!(fixture.superseded().await, None);
    let fixture = fixture.reopened().await;
    assert_eq!(fixture.found().await, Some(second.operation_id));
}

#[tokio::test]
async fn what_an_upload_fails_of_decides_whether_its_key_is_free() {
    use Reason as R;
    for (reason, free_before, free_after) in [
        (R::Aborted, true, true),
        (R::OtherDigest, true, true),
        (R::Internal, true, false),
        (R::Exhausted, true, false),
        (R::QuotaExceeded, true, false),
        (R::Invalid, false, false),
        (R::Cancelled, false, false),
    ] {
        for (tied, free) in [(false, free_before), (true, free_after)] {
            let fixture = Fixture::new();
            let lease = fixture.keyed_upload().await;
            if tied {
                fixture.store.tie_key(&lease).await.unwrap();
            }
            let failure = Failure::new(reason, "why");
            let lease = fixture
                .store
                .abandon(&lease, failure.clone())
                .await
                .unwrap();
            let ended = fixture.store.undone(&lease, failure).await.unwrap();
            let found = fixture.found().await;
            assert_eq!(found.is_none(), free, "{reason:?} {tied}");
            // It can be read all the same.
            let read = fixture.store.operation(&ended.id).await.unwrap();
            assert_eq!(failed(&read), reason);
        }
    }
}

#[tokio::test]
async fn one_that_fails_or_is_cancelled_makes_room_only_where_its_key_will_be_free() {
    let fixture = Fixture::new();
    let store = &fixture.store;
    let lease = fixture.keyed_upload().await;
    let failure = Failure::new(Reason::Aborted, "cut short");
    let lease = store.abandon(&lease, failure.clone()).await.unwrap();
    assert!(fixture.superseded().await.is_some());
    let ended = store.operation(&lease.operation_id).await.unwrap();
    assert_eq!(ended.outcome, Some(Outcome::Failed(failure.clone())));
    let late = store.undone(&lease, failure).await;
    assert!(matches!(late, Err(Error::LeaseLost { .. })));

    let lease = fixture.keyed_upload().await;
    store.request_cancel(&lease.operation_id).await.unwrap();
    assert_eq!(fixture.superseded().await, None);
    let cancelled = Failure::cancelled();
    let lease = store.abandon(&lease, cancelled.clone()).await.unwrap();
    assert_eq!(fixture.superseded().await, None);
    store.undone(&lease, cancelled).await.unwrap();
    assert_eq!(fixture.found().await, Some(lease.operation_id));
}

#[tokio::test]
async fn an_upload_of_a_process_that_is_gone_makes_room() {
    for tied in [false, true] {
        let fixture = Fixture::new();
        let lease = fixture.keyed_upload().await;
        if tied {
            fixture.store.tie_key(&lease).await.unwrap();
        }
        let fixture = fixture.reopened().await;
        assert_eq!(fixture.superseded().await.is_some(), !tied);
        if tied {
            fixture.pass(LEASE);
            let lease = fixture.claim().await.expect("its lease has run out");
            assert!(!lease.key_is_free);
            let failure = Failure::new(Reason::Aborted, "its body is gone");
            let lease = fixture
                .store
                .abandon(&lease, failure.clone())
                .await
                .unwrap();
            fixture.store.undone(&lease, failure).await.unwrap();
        }
        assert_eq!(fixture.found().await, None);
        fixture.keyed_upload().await;
    }
}

#[tokio::test]
async fn the_keys_of_uploads_that_an_earlier_version_left_are_free() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("metadata.sqlite");
    let task = serde_json::to_string(&import("f", "n", Origin::Upload)).unwrap();
    let file = Origin::Uri("\"origin\":\"upload\"".to_owned());
    let other = serde_json::to_string(&import("f", "n", file)).unwrap();
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
    let store = Store::open(&path, Arc::new(ManualClock::new(START))).unwrap();
    for (key, free) in [(1, true), (2, false), (3, true), (4, false), (5, false)] {
        let accept = Accept {
            idempotency: Some(Idempotency {
                key: [key; 16],
                request_hash: [1; 32],
            }),
            ..caller()
        };
        store.supersede(&accept).await.unwrap();
        let found = store.repeated_operation(&accept).await.unwrap();
        assert_eq!(found.is_none(), free, "{key}");
    }
    store.close().await;
}
