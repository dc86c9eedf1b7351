//! Leases: which worker may go on with an operation, and for how long.

use super::*;

/// Every write that a worker can make, by one that has lost its lease.
async fn is_powerless(store: &Tested, lease: &Lease) {
    let lost = |refused: Option<Error>| match refused {
        Some(Error::Refused(Refusal::LeaseLost { id })) => assert_eq!(id, lease.operation_id),
        other => panic!("{other:?}"),
    };
    lost(store.renew(lease, LEASE, Progress::default()).await.err());
    lost(store.complete(lease).await.err());
    lost(
        store
            .complete_import(lease, facts("late"), Vec::new())
            .await
            .err(),
    );
    lost(store.start_rollback(lease, broken()).await.err());
    lost(store.rolled_back(lease, broken()).await.err());
    lost(store.release(lease).await.err());
    let pause = Duration::from_secs(1);
    lost(store.retry(lease, broken(), pause, LEASE).await.err());
}

pub(super) async fn a_worker_that_was_silent_for_too_long_can_commit_nothing(backend: Backend) {
    let fixture = Fixture::new(backend).await;
    let late = fixture.upload("f", "n").await;
    assert_eq!(fixture.next().await, None, "the lease is held");
    fixture.pass(LEASE);
    let taken_over = fixture.claim().await.unwrap();
    assert_eq!(taken_over.attempt, 2);
    assert_ne!(taken_over.blob_id, late.blob_id);
    is_powerless(&fixture.store, &late).await;
    let deleted = fixture.store.blobs_to_delete(Duration::ZERO, None, 9).await;
    let deleted = deleted.unwrap();
    assert_eq!(deleted[0].id, late.blob_id);
    assert!(deleted.len() == 1 && deleted[0].forget_after > fixture.store.now());
    // Its bytes may come late, so they are looked for again and again for a while.
    let ids = vec![late.blob_id.clone()];
    fixture.store.blobs_deleted(ids.clone()).await.unwrap();
    assert!(fixture.store.known_blobs().await.unwrap().contains(&ids[0]));
    fixture.pass(Duration::from_secs(601));
    fixture.store.blobs_deleted(ids.clone()).await.unwrap();
    assert!(!fixture.store.known_blobs().await.unwrap().contains(&ids[0]));

    let ended = fixture
        .store
        .complete_import(&taken_over, facts("n"), Vec::new())
        .await
        .unwrap();
    assert!(matches!(ended.outcome, Some(Outcome::Succeeded(_))));
    is_powerless(&fixture.store, &late).await;
    is_powerless(&fixture.store, &taken_over).await;
    assert_eq!(
        fixture.statuses(&ended.id).await,
        [AuditStatus::Started, AuditStatus::Done]
    );
}

pub(super) async fn a_lease_that_is_renewed_is_kept_and_tells_of_a_cancel(backend: Backend) {
    let fixture = Fixture::new(backend).await;
    let lease = fixture.upload("f", "n").await;
    for done in 1..20 {
        fixture.pass(LEASE / 2);
        let progress = Progress {
            done,
            total: Some(20),
        };
        let renewed = fixture.store.renew(&lease, LEASE, progress).await.unwrap();
        assert!(!renewed.cancel_requested);
        assert_eq!(fixture.next().await, None);
        let operation = fixture.store.operation(&lease.operation_id).await.unwrap();
        assert_eq!(operation.progress, progress);
        assert_eq!(operation.modified_at, fixture.clock.now());
    }
    // A heartbeat alone changes nothing that a caller sees.
    let before = fixture.store.operation(&lease.operation_id).await.unwrap();
    fixture.pass(LEASE / 2);
    let progress = before.progress;
    fixture.store.renew(&lease, LEASE, progress).await.unwrap();
    let after = fixture.store.operation(&lease.operation_id).await.unwrap();
    assert_eq!(after, before);

    let cancelled = fixture.store.request_cancel(&lease.operation_id).await;
    assert_eq!(cancelled.unwrap().candidate, Some(lease.candidate()));
    assert_eq!(fixture.next().await, None, "its worker has it");
    let renewed = fixture.store.renew(&lease, LEASE, progress).await.unwrap();
    assert!(renewed.cancel_requested);
    // Too late to succeed.
    let refused = fixture
        .store
        .complete_import(&lease, facts("n"), Vec::new())
        .await;
    assert!(matches!(
        refused,
        Err(Error::Refused(Refusal::CancelRequested { .. }))
    ));
    let lease = fixture
        .store
        .start_rollback(&lease, broken())
        .await
        .unwrap();
    let seen = fixture.store.operation(&lease.operation_id).await.unwrap();
    assert_eq!(seen.outcome, None, "no error is seen before the end");
    let ended = fixture.store.rolled_back(&lease, broken()).await.unwrap();
    assert_eq!(
        failed(&ended),
        Reason::Internal,
        "the caller of undone decides"
    );
}

pub(super) async fn what_was_being_rolled_back_is_rolled_back_by_the_next_worker(backend: Backend) {
    let fixture = Fixture::new(backend).await;
    let lease = fixture.upload("f", "n").await;
    fixture
        .store
        .start_rollback(&lease, broken())
        .await
        .unwrap();
    let image = fixture.store.compute_image(&lease.image_id).await;
    assert!(image.is_ok(), "nothing is gone yet");
    fixture.pass(LEASE);
    let next = fixture.claim().await.unwrap();
    assert_eq!(next.phase, Phase::RollingBack);
    assert_eq!(next.failure, Some(broken()));
    assert_eq!(next.blob_id, "");
    let ended = fixture.store.rolled_back(&next, broken()).await.unwrap();
    assert_eq!(failed(&ended), Reason::Internal);
    let image = fixture.store.compute_image(&lease.image_id).await;
    assert!(matches!(
        image,
        Err(Error::Refused(Refusal::ImageNotFound { .. }))
    ));
    assert_eq!(
        fixture.statuses(&ended.id).await,
        [AuditStatus::Started, AuditStatus::Error]
    );
    fixture.upload("f", "n").await;
}

pub(super) async fn attempts_are_rescheduled_for_a_bounded_time_and_the_last_failure_is_kept(
    backend: Backend,
) {
    let fixture = Fixture::new(backend).await;
    fixture
        .accept(
            import("f", "n", Origin::Uri("file:///n".to_owned())),
            Start::Now,
        )
        .await
        .unwrap();
    let (pause, patience) = (Duration::from_secs(60), Duration::from_secs(150));
    let mut attempts = 0;
    loop {
        let lease = fixture.claim().await.unwrap();
        attempts += 1;
        assert_eq!(lease.attempt, attempts);
        let failure = Failure::new(Reason::Internal, format!("failure {attempts}"));
        if attempts > 1 {
            let last = format!("failure {}", attempts - 1);
            assert_eq!(lease.failure.unwrap().message, last);
        }
        let lease = Lease {
            failure: None,
            ..lease
        };
        let again = fixture
            .store
            .retry(&lease, failure.clone(), pause, patience);
        if !again.await.unwrap() {
            break;
        }
        let waiting = fixture.store.operation(&lease.operation_id).await.unwrap();
        assert_eq!(waiting.outcome, None);
        assert_eq!(fixture.next().await, None, "not before the pause is over");
        fixture.pass(pause);
    }
    assert_eq!(attempts, 3, "at 0, 60 and 120 seconds");
}

pub(super) async fn a_worker_that_has_to_stop_gives_back_the_attempt(backend: Backend) {
    let fixture = Fixture::new(backend).await;
    fixture.upload("f", "n").await;
    for _ in 0..30 {
        fixture.pass(LEASE);
        let lease = fixture.claim().await.unwrap();
        assert_eq!(lease.attempt, 2);
        fixture.store.release(&lease).await.unwrap();
    }
    assert!(
        fixture.claim().await.is_some(),
        "nobody has to wait for a lease"
    );
}

pub(super) async fn a_clock_that_goes_back_an_hour_stops_nothing(backend: Backend) {
    let hour = Duration::from_secs(3600);
    let mut fixture = Fixture::new(backend).await;
    let source = fixture.compute_image("f", "source").await;
    let before = fixture
        .accept(copy("f", "before", &source), Start::Now)
        .await;
    let before = before.unwrap();
    let running = fixture.upload("f", "running").await;
    let delay = Duration::from_secs(60);
    let delayed = fixture.accept(copy("f", "delayed", &source), Start::After(delay));
    let delayed = delayed.await.unwrap();
    for restart in [false, true] {
        fixture.clock.set(START.before(hour));
        if restart {
            fixture = fixture.reopened().await;
        }
        // Ids and times still grow.
        let name = format!("after {restart}");
        let after = fixture.accept(copy("f", &name, &source), Start::Now).await;
        let after = after.unwrap();
        assert!(after.id > before.id && after.image_id > before.image_id);
        assert!(after.created_at >= before.created_at);
        assert!(after.modified_at >= after.created_at);
        // Nothing has ended long ago.
        let forgotten = fixture.store.forget_operations(hour, 100).await.unwrap();
        assert_eq!(forgotten, 0);
    }
    // Leases and delays of the old time are no longer than they were.
    let mut claimed: Vec<String> = Vec::new();
    while let Some(lease) = fixture.claim().await {
        claimed.push(lease.operation_id.clone());
        fixture
            .store
            .start_rollback(&lease, broken())
            .await
            .unwrap();
    }
    claimed.sort();
    let mut expected = [running.operation_id, delayed.id];
    expected.sort();
    assert_eq!(claimed, expected);
}

pub(super) async fn a_folder_with_a_thousand_imports_does_not_stand_before_another(
    backend: Backend,
) {
    let fixture = Fixture::new(backend).await;
    let import = |folder: &str, n: usize| {
        let uri = Origin::Uri("file:///n".to_owned());
        fixture.accept(import(folder, &format!("n{n}"), uri), Start::Now)
    };
    let mut waiting = Vec::new();
    for n in 0..1000 {
        waiting.push(import("many", n).await.unwrap().id);
    }
    let mut running: Vec<Lease> = Vec::new();
    let mut folders = Vec::new();
    for n in 0..5 {
        if n == 1 {
            import("one", 0).await.unwrap();
            import("two", 0).await.unwrap();
        }
        let next = fixture.next_beside(&running).await.unwrap();
        let lease = fixture.store.claim(next, LEASE, HORIZON).await.unwrap();
        folders.push(lease.as_ref().unwrap().folder_id.clone());
        running.extend(lease);
    }
    assert_eq!(folders, ["many", "one", "two", "many", "many"]);
    let next = fixture.next_beside(&running).await;
    assert_eq!(next, None, "three of a folder are its limit");
    // What only has to be ended needs no place.
    fixture.store.request_cancel(&waiting[500]).await.unwrap();
    let next = fixture.next_beside(&running).await.unwrap();
    let ending = fixture.store.claim(next, LEASE, HORIZON).await.unwrap();
    assert_eq!(ending.unwrap().operation_id, waiting[500]);
    let freed = running.remove(0);
    fixture.store.release(&freed).await.unwrap();
    assert!(fixture.next_beside(&running).await.is_some());
}
