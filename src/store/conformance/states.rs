//! The store takes exactly the steps that the state function admits.

use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::*;

/// The events that happen to an operation, in an order that nobody planned.
const EVENTS: [Event; 6] = [
    Event::Claimed,
    Event::Completed,
    Event::Rescheduled,
    Event::RollbackStarted,
    Event::RolledBack,
    Event::CancelRequested,
];

/// Changes that are made in two steps, each with whether its image is there once it has failed.
fn changes(source: &str, target: &str) -> [(Change, bool); 4] {
    let id = target.to_owned();
    let changes = DesktopImageChanges {
        name: Some("renamed".to_owned()),
        ..DesktopImageChanges::default()
    };
    let from = Origin::ComputeImage(source.to_owned());
    [
        (copy("f", "copied", source), false),
        (import("f", "imported", from), false),
        (
            Change::UpdateDesktopImage {
                id: id.clone(),
                changes,
            },
            true,
        ),
        (Change::DeleteDesktopImage { id }, true),
    ]
}

async fn follow(backend: Backend, change: usize, events: Vec<Event>) {
    let fixture = Fixture::new(backend).await;
    let store = &fixture.store;
    let source = fixture.compute_image("f", "source").await;
    let target = fixture
        .accept(copy("f", "target", &source), Start::Now)
        .await;
    let target = target.unwrap().image_id;
    for metric in Metric::ALL {
        let scope = QuotaScope::Folder("f".to_owned());
        store.set_limit(scope, metric, Some(1 << 40)).await.unwrap();
    }
    let (change, stays) = changes(&source, &target)[change].clone();
    let accepted = fixture.accept(change, Start::After(Duration::ZERO)).await;
    let id = accepted.unwrap().id;
    let mut expected = State::NEW;
    let mut lease: Option<Lease> = None;
    for event in events {
        let allowed = expected.after(event);
        let taken = match (event, &lease) {
            (Event::CancelRequested, _) => {
                let before = store.operation(&id).await.unwrap();
                let answer = store.request_cancel(&id).await.unwrap().operation;
                assert_eq!(answer, before);
                allowed.is_ok()
            }
            (Event::Claimed, _) => {
                fixture.pass(LEASE);
                let claimed = fixture.claim().await;
                let taken = claimed.is_some();
                lease = claimed.or(lease);
                taken
            }
            // Nobody has it yet.
            (_, None) => continue,
            (Event::Completed, Some(lease)) => store.complete(lease).await.is_ok(),
            (Event::Rescheduled, Some(lease)) => store.release(lease).await.is_ok(),
            (Event::RollbackStarted, Some(held)) => {
                match store.start_rollback(held, broken()).await {
                    Ok(held) => {
                        lease = Some(held);
                        true
                    }
                    Err(_) => false,
                }
            }
            (Event::RolledBack, Some(held)) if held.phase == Phase::RollingBack => {
                store.rolled_back(held, broken()).await.is_ok()
            }
            (Event::RolledBack, Some(_)) => continue,
        };
        // What was given back is nobody's until it is claimed.
        let holds = expected.phase != Phase::Queued;
        let needs_lease = !matches!(event, Event::Claimed | Event::CancelRequested);
        assert_eq!(
            taken,
            allowed.is_ok() && (holds || !needs_lease),
            "{event:?} in {expected:?}"
        );
        if taken && let Ok(next) = allowed {
            expected = next;
            if event == Event::Rescheduled {
                lease = None;
            }
        }
        let seen = store.operation(&id).await.unwrap();
        assert_eq!(seen.is_done(), expected.phase.is_done());
    }

    // However far it came, it ends, and leaves what its end says.
    while !expected.phase.is_done() {
        fixture.pass(LEASE);
        let held = fixture.claim().await.expect("it waits for a worker");
        let failing = held.phase == Phase::RollingBack || held.cancel_requested;
        let ended = if failing {
            let held = match held.phase {
                Phase::RollingBack => held,
                _ => store.start_rollback(&held, broken()).await.unwrap(),
            };
            let failure = held.failure.clone().unwrap();
            store.rolled_back(&held, failure).await
        } else {
            store.complete(&held).await
        };
        expected.phase = match ended.unwrap().outcome {
            Some(Outcome::Succeeded(_)) => Phase::Succeeded,
            _ => Phase::Failed,
        };
    }
    let operation = store.operation(&id).await.unwrap();
    let succeeded = matches!(operation.outcome, Some(Outcome::Succeeded(_)));
    assert_eq!(succeeded, expected.phase == Phase::Succeeded);
    assert_eq!(fixture.statuses(&id).await.len(), 2);
    let desktop = store.desktop_image(&operation.image_id).await;
    let compute = store.compute_image(&operation.image_id).await;
    let there = desktop.is_ok() || compute.is_ok();
    use crate::model::Kind;
    let deleted = operation.kind == Kind::DeleteDesktopImage && succeeded;
    assert_eq!(there, (succeeded || stays) && !deleted);
    if let Ok(image) = desktop {
        assert_eq!(image.status as u8, 2, "ACTIVE");
    }
    for quota in store.quotas().await.unwrap() {
        let counted = store
            .set_limit(quota.scope.clone(), quota.metric, Some(quota.limit))
            .await;
        counted.unwrap();
        assert!(
            store.quotas().await.unwrap().contains(&quota),
            "{quota:?} is not what the images take"
        );
    }
}

pub(super) async fn no_order_of_events_leads_astray(backend: Backend) {
    let strategy = (
        0..4usize,
        prop::collection::vec(prop::sample::select(&EVENTS[..]), 0..12),
    );
    let mut runner = TestRunner::new(ProptestConfig {
        cases: 48,
        ..ProptestConfig::default()
    });
    let ended = tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runner.run(&strategy, |(change, events)| {
            runtime.block_on(follow(backend, change, events));
            Ok(())
        })
    });
    ended.await.unwrap().unwrap();
}
