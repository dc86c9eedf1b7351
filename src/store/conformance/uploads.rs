//! Idempotency keys of uploads, which are tied to one only once its body is there.

use super::*;

fn keyed(request_hash: u8) -> RequestContext {
    RequestContext {
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
        *accepted.lease.expect("the first under its key")
    }

    /// The operation that a request under the key finds.
    async fn found(&self) -> Option<String> {
        let found = self.store.repeated_operation(&keyed(1)).await.unwrap();
        found.map(|operation| operation.id)
    }

    async fn superseded(&self) -> Option<String> {
        self.store.supersede(&keyed(1)).await.unwrap()
    }
}

pub(super) async fn a_retry_supersedes_an_upload_until_its_body_is_there(backend: Backend) {
    let fixture = Fixture::new(backend).await;
    let store = &fixture.store;
    // One image at a time.
    let (scope, metric) = (QuotaScope::Total, Metric::ComputeImagesCount);
    store.set_limit(scope, metric, Some(1)).await.unwrap();
    assert_eq!(fixture.superseded().await, None);
    let first = fixture.keyed_upload().await;
    assert!(first.key_is_free);
    let other = store.supersede(&keyed(2)).await;
    assert!(matches!(
        other,
        Err(Error::Refused(Refusal::IdempotencyKeyReused))
    ));
    assert_eq!(fixture.superseded().await, Some(first.operation_id.clone()));
    let ended = store.operation(&first.operation_id).await.unwrap();
    assert_eq!(failed(&ended), Reason::Superseded);
    let statuses = fixture.statuses(&first.operation_id).await;
    assert_eq!(statuses, [AuditStatus::Started, AuditStatus::Error]);
    assert_eq!(fixture.found().await, None);

    // Name and place are free for the second.
    let second = fixture.keyed_upload().await;
    let late = store.tie_key(&first).await;
    assert!(matches!(
        late,
        Err(Error::Refused(Refusal::LeaseLost { .. }))
    ));
    let late = store
        .complete_import(&first, facts("late"), Vec::new())
        .await;
    assert!(matches!(
        late,
        Err(Error::Refused(Refusal::LeaseLost { .. }))
    ));
    let late = store.renew(&first, LEASE, Default::default()).await;
    assert!(matches!(
        late,
        Err(Error::Refused(Refusal::LeaseLost { .. }))
    ));

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

pub(super) async fn what_an_upload_fails_of_decides_whether_its_key_is_free(backend: Backend) {
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
            let fixture = Fixture::new(backend).await;
            let lease = fixture.keyed_upload().await;
            if tied {
                fixture.store.tie_key(&lease).await.unwrap();
            }
            let failure = Failure::new(reason, "why");
            let lease = fixture
                .store
                .start_rollback(&lease, failure.clone())
                .await
                .unwrap();
            let ended = fixture.store.rolled_back(&lease, failure).await.unwrap();
            let found = fixture.found().await;
            assert_eq!(found.is_none(), free, "{reason:?} {tied}");
            // It can be read all the same.
            let read = fixture.store.operation(&ended.id).await.unwrap();
            assert_eq!(failed(&read), reason);
        }
    }
}

pub(super) async fn one_that_fails_or_is_cancelled_makes_room_only_where_its_key_will_be_free(
    backend: Backend,
) {
    let fixture = Fixture::new(backend).await;
    let store = &fixture.store;
    let lease = fixture.keyed_upload().await;
    let failure = Failure::new(Reason::Aborted, "cut short");
    let lease = store.start_rollback(&lease, failure.clone()).await.unwrap();
    assert!(fixture.superseded().await.is_some());
    let ended = store.operation(&lease.operation_id).await.unwrap();
    assert_eq!(ended.outcome, Some(Outcome::Failed(failure.clone())));
    let late = store.rolled_back(&lease, failure).await;
    assert!(matches!(
        late,
        Err(Error::Refused(Refusal::LeaseLost { .. }))
    ));

    let lease = fixture.keyed_upload().await;
    store.request_cancel(&lease.operation_id).await.unwrap();
    assert_eq!(fixture.superseded().await, None);
    let cancelled = Failure::cancelled();
    let lease = store
        .start_rollback(&lease, cancelled.clone())
        .await
        .unwrap();
    assert_eq!(fixture.superseded().await, None);
    store.rolled_back(&lease, cancelled).await.unwrap();
    assert_eq!(fixture.found().await, Some(lease.operation_id));
}

pub(super) async fn an_upload_of_a_process_that_is_gone_makes_room(backend: Backend) {
    for tied in [false, true] {
        let fixture = Fixture::new(backend).await;
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
                .start_rollback(&lease, failure.clone())
                .await
                .unwrap();
            fixture.store.rolled_back(&lease, failure).await.unwrap();
        }
        assert_eq!(fixture.found().await, None);
        fixture.keyed_upload().await;
    }
}
