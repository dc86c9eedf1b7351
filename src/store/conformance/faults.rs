//! A PostgreSQL database that goes away, ends connections and refuses to serialise.

use std::collections::BTreeSet;
use std::time::Instant;

use rand::Rng;
use test_support::{Database, Lost, PostgresFaults, PostgresProxy, eventually};

use super::*;

fn upload(name: usize) -> Change {
    import("f", &format!("n{name}"), Origin::Upload)
}

/// A request with a deadline, and with a key of its own where it is to have one.
fn request(key: Option<u8>, patience: Duration) -> RequestContext {
    RequestContext {
        idempotency: key.map(|key| Idempotency {
            key: [key; 16],
            request_hash: [key; 32],
        }),
        deadline: Instant::now().checked_add(patience),
        ..caller()
    }
}

async fn count(url: &str, table: &str) -> i64 {
    let client = postgres_server::connect(url).await.unwrap();
    let sql = format!("SELECT count(*) FROM {table}");
    client.query_one(&sql, &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_is_asked_after() {
    if !postgres_server::is_installed("lost commits") {
        return;
    }
    let clock = Arc::new(ManualClock::new(START));
    let url = postgres_server::database().await;
    let proxy = PostgresProxy::start(&url).await;
    let store = Tested(Arc::new(on_postgres(proxy.url(), &clock).await.unwrap()));
    for (name, lost) in [Lost::BeforeCommit, Lost::AfterCommit]
        .into_iter()
        .enumerate()
    {
        proxy.lose_next(lost);
        let accepted = store.accept(caller(), upload(name), Start::Here(LEASE));
        let accepted = accepted
            .await
            .unwrap_or_else(|error| panic!("{lost:?}: {error}"));
        assert!(!accepted.repeated && accepted.lease.is_some());
        assert_eq!(count(&url, "compute_images").await, name as i64 + 1);
        // Statements on sets of rows are asked after, too.
        proxy.lose_next(lost);
        let scope = QuotaScope::Folder("f".to_owned());
        let used = store.set_limit(scope, Metric::ComputeImagesCount, Some(name as i64));
        assert_eq!(used.await.unwrap(), name as i64 + 1);
        let scope = QuotaScope::Folder("f".to_owned());
        store
            .set_limit(scope, Metric::ComputeImagesCount, None)
            .await
            .unwrap();
    }
    assert_eq!(count(&url, "audit_events").await, 6);
}

#[tokio::test]
async fn where_the_database_stays_away_it_is_told_whether_the_change_may_be_there() {
    if !postgres_server::is_installed("a database that stays away") {
        return;
    }
    let clock = Arc::new(ManualClock::new(START));
    let url = postgres_server::database().await;
    let proxy = PostgresProxy::start(&url).await;
    let store = Tested(Arc::new(on_postgres(proxy.url(), &clock).await.unwrap()));
    let accept = async |name, key| {
        let request = request(key, Duration::from_secs(1));
        store.accept(request, upload(name), Start::Now).await
    };
    for (name, key) in [(0, None), (1, Some(7))] {
        proxy.lose_next(Lost::AfterCommitForLong);
        let begun = Instant::now();
        let error = accept(name, key).await.unwrap_err();
        assert!(
            begun.elapsed() < Duration::from_secs(5),
            "the deadline bounds it"
        );
        match key {
            None => assert!(matches!(error, Error::OutcomeUnknown), "{error}"),
            // A repeat finds the first.
            Some(_) => assert!(matches!(error, Error::Unreachable(_)), "{error}"),
        }
        proxy.mend();
        assert_eq!(count(&url, "compute_images").await, name as i64 + 1);
    }
    assert!(accept(1, Some(7)).await.unwrap().repeated);
    // Before anything was sent.
    proxy.cut();
    let error = accept(2, None).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable(_)), "{error}");
    proxy.mend();
    assert_eq!(count(&url, "compute_images").await, 2);
    accept(2, None).await.unwrap();
}

#[tokio::test]
async fn a_commit_that_the_standby_does_not_have_is_not_taken_for_done() {
    if !postgres_server::is_installed("fail-over") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let database = Database::start("fail-over", &log).await;
    let mut database = database.unwrap();
    database.add_standby().await;
    let clock = Arc::new(ManualClock::new(START));
    let url = Database::url_of_any(&database.addresses());
    let store = Arc::new(Tested(Arc::new(on_postgres(&url, &clock).await.unwrap())));
    let accept = |name, patience| {
        let store = store.clone();
        tokio::spawn(async move {
            let request = request(None, Duration::from_secs(patience));
            store.accept(request, upload(name), Start::Now).await
        })
    };
    database.stop_standby().await;
    let accepted = accept(0, 5);
    waits_for_standby(&database).await;
    // PostgreSQL then shows the commit that it still waits with.
    database.terminate_connections().await;
    let error = accepted.await.unwrap().unwrap_err();
    assert!(matches!(error, Error::OutcomeUnknown), "{error}");
    database.run_standby().await;
    let url = Database::url(database.address());
    assert_eq!(count(&url, "compute_images").await, 1);

    database.stop_standby().await;
    let accepted = accept(1, 30);
    waits_for_standby(&database).await;
    database.stop_at_once().await;
    database.run_standby().await;
    database.promote().await;
    // Others have the number now that the transaction had.
    let client = database.client().await;
    for _ in 0..50 {
        let sql = "SELECT pg_current_xact_id()";
        client.batch_execute(sql).await.unwrap();
    }
    let accepted = accepted.await.unwrap().unwrap();
    assert!(!accepted.repeated);
    let url = Database::url(database.address());
    assert_eq!(count(&url, "compute_images").await, 2);
}

async fn waits_for_standby(database: &Database) {
    let client = database.client().await;
    eventually("a commit waits for the standby", || async {
        let sql = "SELECT FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
        let waiting = client.query(sql, &[]).await.unwrap();
        (!waiting.is_empty()).then_some(())
    })
    .await;
}

/// Ends about half of the connections of the stores.
const TERMINATE: &str = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE application_name = 'to-be-ended' AND random() < 0.5";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_and_limits_stay_exact_while_connections_end_and_transactions_fail() {
    const COPIES: usize = 240;
    if !postgres_server::is_installed("connections that end under load") {
        return;
    }
    let clock = Arc::new(ManualClock::new(START));
    let url = postgres_server::database().await;
    let faults = PostgresFaults::start(&format!("{url}{SERIALIZABLE}"), seed()).await;
    let theirs = format!("{}&application_name=to-be-ended", faults.url());
    let mut stores = Vec::new();
    for _ in 0..2 {
        let store = on_postgres(&theirs, &clock).await.unwrap();
        stores.push(Tested(Arc::new(store)));
    }
    let change = import("f", "source", Origin::Upload);
    let accepted = stores[0].accept(caller(), change, Start::Here(LEASE)).await;
    let lease = *accepted.unwrap().lease.unwrap();
    let done = stores[0].complete_import(&lease, facts("source"), Vec::new());
    let source = done.await.unwrap().image_id;
    let scope = || QuotaScope::Folder("f".to_owned());
    let metric = Metric::DesktopImagesCount;
    let limits = async {
        for round in 0..12_usize {
            let limit = rand::rng().random_range(150..400);
            while let Err(error) = stores[round % 2]
                .set_limit(scope(), metric, Some(limit))
                .await
            {
                assert!(error.is_failure(), "{error}");
            }
            postgres_server::run(&url, TERMINATE).await;
        }
    };
    let copies = (0..COPIES).map(|number| {
        let (stores, source) = (&stores, &source);
        async move {
            let request = RequestContext {
                idempotency: Some(Idempotency {
                    key: (number as u128).to_be_bytes(),
                    request_hash: [0; 32],
                }),
                ..caller()
            };
            for attempt in 0.. {
                let change = copy("f", &format!("c{number}"), source);
                let store = &stores[(number + attempt) % 2];
                match store.accept(request.clone(), change, Start::Now).await {
                    Ok(accepted) => return Some(accepted.operation.image_id),
                    Err(Error::Refused(Refusal::QuotaExceeded(_))) => return None,
                    Err(error @ (Error::Unreachable(_) | Error::Full)) if attempt < 50 => {
                        drop(error)
                    }
                    Err(error) => panic!("{number}: {error}: {error:?}"),
                }
            }
            None
        }
    });
    let (made, ()) =
        futures_util::future::join(futures_util::future::join_all(copies), limits).await;
    let made: Vec<String> = made.into_iter().flatten().collect();
    let distinct: BTreeSet<&String> = made.iter().collect();
    assert_eq!(distinct.len(), made.len());
    assert_eq!(count(&url, "desktop_images").await, made.len() as i64);
    let used = stores[0].quotas().await.unwrap()[0].used;
    assert_eq!(used, made.len() as i64);
    assert!(faults.injected() > 0);
}
