//! Accepting: all or nothing, once for each key, within the limits.

use super::*;

pub(super) async fn equal_requests_at_once_make_one_image(backend: Backend) {
    let fixture = Fixture::new(backend).await;
    let source = fixture.compute_image("f", "source").await;
    let accept = RequestContext {
        idempotency: Some(Idempotency {
            key: [7; 16],
            request_hash: [1; 32],
        }),
        ..caller()
    };
    let mut other_hash = accept.clone();
    other_hash.idempotency.as_mut().unwrap().request_hash = [2; 32];
    // The key is the subject's own.
    let other_subject = RequestContext {
        subject: "somebody else".to_owned(),
        ..accept.clone()
    };
    let equal = (0..100).map(|_| {
        let change = copy("f", "copied", &source);
        fixture.store.accept(accept.clone(), change, Start::Now)
    });
    let others = [other_hash, other_subject].map(|other| {
        let change = copy("f", "another", &source);
        fixture.store.accept(other, change, Start::Now)
    });
    let (accepted, others) = tokio::join!(
        futures_util::future::join_all(equal),
        futures_util::future::join_all(others),
    );
    let accepted: Vec<Accepted> = accepted.into_iter().map(Result::unwrap).collect();
    assert_eq!(accepted.iter().filter(|it| !it.repeated).count(), 1);
    assert!(
        accepted
            .iter()
            .all(|it| it.operation == accepted[0].operation)
    );
    assert!(matches!(
        others[0],
        Err(Error::Refused(Refusal::IdempotencyKeyReused))
    ));
    assert!(!others[1].as_ref().unwrap().repeated);
}

pub(super) async fn each_of_many_at_once_leaves_its_own_operation_and_events(backend: Backend) {
    let fixture = Fixture::new(backend).await;
    let source = fixture.compute_image("f", "source").await;
    // Enough without keys, too, that one statement writes many.
    let calls = (0..60_u8).map(|n| {
        let accept = RequestContext {
            subject: format!("subject {n}"),
            request_id: format!("request {n}"),
            idempotency: (n < 16 && n % 2 == 0).then_some(Idempotency {
                key: [n; 16],
                request_hash: [n; 32],
            }),
            ..RequestContext::internal("")
        };
        let change = copy(&format!("f{}", n % 3), &format!("n{n}"), &source);
        fixture.store.accept(accept, change, Start::Now)
    });
    let accepted = futures_util::future::join_all(calls).await;
    let events = fixture.events().await;
    for (n, accepted) in accepted.into_iter().enumerate() {
        let operation = accepted.unwrap().operation;
        assert_eq!(operation.created_by, format!("subject {n}"));
        let stored = fixture.store.operation(&operation.id).await.unwrap();
        assert_eq!(stored, operation);
        let own = events.iter().filter(|it| it.operation_id == operation.id);
        let own: Vec<_> = own.collect();
        let statuses: Vec<_> = own.iter().map(|event| event.status).collect();
        assert_eq!(statuses, [AuditStatus::Started, AuditStatus::Done]);
        for event in own {
            assert_eq!(event.image_id, operation.image_id);
            assert_eq!(event.folder_id, operation.folder_id);
            assert_eq!(event.subject, format!("subject {n}"));
            assert_eq!(event.request_id, format!("request {n}"));
        }
    }
}

pub(super) async fn events_have_the_order_in_which_changes_were_accepted(backend: Backend) {
    let fixture = Fixture::new(backend).await;
    let source = fixture.compute_image("f", "source").await;
    let calls = (0..60).map(|n| {
        let start = [Start::Now, Start::After(LEASE)][n % 2];
        fixture.accept(copy("f", &format!("n{n}"), &source), start)
    });
    futures_util::future::join_all(calls).await;
    let events = fixture.events().await;
    let started = events
        .iter()
        .filter(|it| it.status == AuditStatus::Started)
        .map(|event| &event.operation_id);
    // Ids grow.
    assert!(started.is_sorted());
}

pub(super) async fn a_refused_request_leaves_nothing_behind(backend: Backend) {
    let fixture = Fixture::new(backend).await;
    let source = fixture.compute_image("f", "source").await;
    fixture
        .accept(copy("f", "taken", &source), Start::Now)
        .await
        .unwrap();
    let scope = QuotaScope::Folder("full".to_owned());
    let metric = Metric::DesktopImagesCount;
    fixture
        .store
        .set_limit(scope, metric, Some(0))
        .await
        .unwrap();
    let accept = RequestContext {
        idempotency: Some(Idempotency {
            key: [7; 16],
            request_hash: [1; 32],
        }),
        ..caller()
    };
    let query = AuditQuery {
        after: 0,
        folder_id: None,
        limit: NonZeroUsize::MAX,
    };
    let before = fixture.store.audit_events(query.clone()).await.unwrap();
    for start in [Start::Now, Start::After(LEASE)] {
        for change in [
            copy("f", "taken", &source),
            copy("full", "n", &source),
            copy("f", "n", "fd800000000000000000"),
        ] {
            let refused = fixture.store.accept(accept.clone(), change, start).await;
            assert!(refused.is_err());
            assert!(
                fixture
                    .store
                    .repeated_operation(&accept)
                    .await
                    .unwrap()
                    .is_none()
            );
        }
    }
    assert_eq!(fixture.store.audit_events(query).await.unwrap(), before);
}

pub(super) async fn limits_are_exact_whatever_comes_at_once(backend: Backend) {
    let fixture = Fixture::new(backend).await;
    let source = fixture.compute_image("f", "source").await;
    let folder = |id: &str| QuotaScope::Folder(id.to_owned());
    let limits = [
        (folder("a"), Metric::DesktopImagesCount, 5),
        (folder("b"), Metric::DesktopImagesSize, 3500),
        (QuotaScope::Total, Metric::DesktopImagesCount, 7),
    ];
    for (scope, metric, limit) in limits.clone() {
        fixture
            .store
            .set_limit(scope, metric, Some(limit))
            .await
            .unwrap();
    }
    let calls = (0..60).map(|n| {
        let folder = ["a", "b"][n % 2];
        fixture.accept(copy(folder, &format!("n{n}"), &source), Start::Now)
    });
    let made: Vec<Operation> = futures_util::future::join_all(calls)
        .await
        .into_iter()
        .filter_map(|made| match made {
            Ok(operation) => Some(operation),
            Err(Error::Refused(Refusal::QuotaExceeded(_))) => None,
            Err(other) => panic!("{other}"),
        })
        .collect();
    assert_eq!(made.len(), 7);
    let in_b = made.iter().filter(|made| made.folder_id == "b").count();
    assert_eq!(in_b, 3, "of 1000 bytes each");
    let used = |quotas: Vec<Quota>| quotas.into_iter().map(|q| q.used).collect::<Vec<_>>();
    assert_eq!(used(fixture.store.quotas().await.unwrap()), [7, 4, 3000]);

    // What is deleted gives its room back.
    let id = made[0].image_id.clone();
    let gone = Change::DeleteDesktopImage { id };
    fixture.accept(gone, Start::Now).await.unwrap();
    fixture
        .accept(copy("a", "again", &source), Start::Now)
        .await
        .unwrap();
    let refused = fixture.accept(copy("a", "more", &source), Start::Now).await;
    assert!(matches!(
        refused,
        Err(Error::Refused(Refusal::QuotaExceeded(_)))
    ));
    // Without a limit nothing is counted; a new one counts what is there.
    for (scope, metric, _) in limits.clone() {
        fixture.store.set_limit(scope, metric, None).await.unwrap();
    }
    assert_eq!(fixture.store.quotas().await.unwrap(), []);
    fixture
        .accept(copy("a", "more", &source), Start::Now)
        .await
        .unwrap();
    for (scope, metric, limit) in limits {
        fixture
            .store
            .set_limit(scope, metric, Some(limit))
            .await
            .unwrap();
    }
    let quotas = fixture.store.quotas().await.unwrap();
    assert_eq!(quotas[0].scope, QuotaScope::Total);
    assert_eq!(quotas[0].used, 8);
}

pub(super) async fn an_import_is_counted_when_it_is_accepted_and_weighed_when_it_is_whole(
    backend: Backend,
) {
    let fixture = Fixture::new(backend).await;
    let scope = QuotaScope::Folder("f".to_owned());
    let store = &fixture.store;
    store
        .set_limit(scope.clone(), Metric::ComputeImagesCount, Some(2))
        .await
        .unwrap();
    store
        .set_limit(scope.clone(), Metric::ComputeImagesSize, Some(1500))
        .await
        .unwrap();
    let first = fixture.upload("f", "first").await;
    let second = fixture.upload("f", "second").await;
    let third = fixture
        .accept(import("f", "third", Origin::Upload), Start::Now)
        .await;
    assert!(matches!(
        third,
        Err(Error::Refused(Refusal::QuotaExceeded(_)))
    ));
    store
        .complete_import(&first, facts("first"), Vec::new())
        .await
        .unwrap();
    let refused = store
        .complete_import(&second, facts("second"), Vec::new())
        .await;
    assert!(matches!(
        refused,
        Err(Error::Refused(Refusal::QuotaExceeded(ref exceeded))) if exceeded.metric == Metric::ComputeImagesSize
    ));
    let second = store.start_rollback(&second, broken()).await.unwrap();
    store.rolled_back(&second, broken()).await.unwrap();
    let used = |quotas: Vec<Quota>| quotas.into_iter().map(|q| q.used).collect::<Vec<_>>();
    assert_eq!(used(store.quotas().await.unwrap()), [1, 1000]);
    // Where no byte is left, nothing is begun.
    store
        .set_limit(scope, Metric::ComputeImagesSize, Some(1000))
        .await
        .unwrap();
    let refused = fixture
        .accept(import("f", "third", Origin::Upload), Start::Now)
        .await;
    assert!(matches!(
        refused,
        Err(Error::Refused(Refusal::QuotaExceeded(_)))
    ));
}

pub(super) async fn a_copy_that_meets_the_deletion_of_its_source_is_refused_or_keeps_the_blob(
    backend: Backend,
) {
    let fixture = Fixture::new(backend).await;
    for _ in 0..20 {
        let source = fixture.compute_image("f", "source").await;
        let deletion = Change::DeleteComputeImage { id: source.clone() };
        let (copied, deleted, removed) = tokio::join!(
            fixture.accept(copy("f", "copied", &source), Start::Now),
            fixture.accept(deletion, Start::Now),
            fixture.store.remove_unreferenced(9),
        );
        deleted.unwrap();
        removed.unwrap();
        match copied {
            Ok(copied) => {
                let content = fixture.store.desktop_image_blob(&copied.image_id).await;
                assert!(content.is_ok());
                let id = copied.image_id;
                fixture
                    .accept(Change::DeleteDesktopImage { id }, Start::Now)
                    .await
                    .unwrap();
            }
            Err(Error::Refused(Refusal::ImageNotFound { id })) => assert_eq!(id, source),
            Err(other) => panic!("{other}"),
        }
        fixture.store.remove_unreferenced(9).await.unwrap();
        assert_eq!(fixture.store.known_blobs().await.unwrap().len(), 1);
        let gone = fixture
            .store
            .blobs_to_delete(Duration::ZERO, None, 9)
            .await
            .unwrap();
        assert_eq!(gone.len(), 1);
        let gone = gone.into_iter().map(|content| content.id).collect();
        fixture.store.blobs_deleted(gone).await.unwrap();
    }
}

pub(super) async fn a_copy_takes_of_its_source_what_it_is_when_its_turn_comes(backend: Backend) {
    const LARGER: i64 = 1 << 40;
    let fixture = Fixture::new(backend).await;
    let updated = fixture.compute_image("f", "updated").await;
    let deleted = fixture.compute_image("f", "deleted").await;
    let update = Change::UpdateComputeImage {
        id: updated.clone(),
        changes: ComputeImageChanges {
            min_disk_size: Some(LARGER),
            ..Default::default()
        },
    };
    let delete = Change::DeleteComputeImage {
        id: deleted.clone(),
    };
    for (source, change) in [(&updated, update), (&deleted, delete)] {
        // So many that the change shares a transaction with copies before and behind it.
        let copies = |when: &str| {
            let name = |n| format!("{when} {n} of {source}");
            let calls = (0..30).map(|n| fixture.accept(copy("f", &name(n), source), Start::Now));
            futures_util::future::join_all(calls.collect::<Vec<_>>())
        };
        let (before, changed, after) = tokio::join!(
            copies("before"),
            fixture.accept(change, Start::Now),
            copies("after"),
        );
        changed.unwrap();
        for copied in before {
            let image = fixture.store.desktop_image(&copied.unwrap().image_id).await;
            assert!(image.unwrap().min_disk_size < LARGER);
        }
        for copied in after {
            match copied {
                Ok(operation) => {
                    let image = fixture.store.desktop_image(&operation.image_id).await;
                    assert_eq!((source, image.unwrap().min_disk_size), (&updated, LARGER));
                }
                Err(Error::Refused(Refusal::ImageNotFound { .. })) => assert_eq!(source, &deleted),
                Err(error) => panic!("{error}"),
            }
        }
    }
}

pub(super) async fn operations_and_their_keys_are_forgotten_together_in_their_time(
    backend: Backend,
) {
    let fixture = Fixture::new(backend).await;
    let source = fixture.compute_image("f", "source").await;
    let accept = RequestContext {
        idempotency: Some(Idempotency {
            key: [7; 16],
            request_hash: [1; 32],
        }),
        ..caller()
    };
    let change = || copy("f", "copied", &source);
    let first = fixture
        .store
        .accept(accept.clone(), change(), Start::Now)
        .await
        .unwrap();
    let day = Duration::from_secs(24 * 60 * 60);
    let running = fixture.upload("f", "running").await;
    fixture.pass(day);
    fixture
        .accept(copy("f", "later", &source), Start::Now)
        .await
        .unwrap();
    assert_eq!(fixture.store.forget_operations(day, 100).await.unwrap(), 0);
    fixture.pass(Duration::from_millis(2));
    assert_eq!(fixture.store.forget_operations(day, 1).await.unwrap(), 1);
    assert_eq!(fixture.store.forget_operations(day, 100).await.unwrap(), 1);
    assert_eq!(fixture.store.forget_operations(day, 100).await.unwrap(), 0);
    let gone = fixture.store.operation(&first.operation.id).await;
    assert!(matches!(
        gone,
        Err(Error::Refused(Refusal::OperationNotFound { .. }))
    ));
    assert!(fixture.store.operation(&running.operation_id).await.is_ok());
    // The key is free again, and its request is looked at anew.
    let again = fixture.store.accept(accept, change(), Start::Now).await;
    assert!(matches!(
        again,
        Err(Error::Refused(Refusal::NameTaken { .. }))
    ));

    let count = fixture.store.forget_audit_events(day, 100).await.unwrap();
    assert_eq!(
        count, 4,
        "rows: two of the source, one of the copy, one of the upload"
    );
}
