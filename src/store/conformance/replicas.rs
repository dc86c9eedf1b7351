//! Two stores on one PostgreSQL database, as two processes have them.

use super::*;
use crate::model::rules::random::ids;

/// Two stores whose ids have the same few random bits, so that they clash.
async fn two(clock: &Arc<ManualClock>) -> (String, [Tested; 2]) {
    let url = postgres_server::database().await;
    let mut stores = Vec::new();
    for _ in 0..2 {
        let made = ids(clock.clone(), 1);
        let store =
            PostgresStore::open_with(&PostgresSettings::new(&url), clock.clone(), |_| made).await;
        stores.push(Tested(Arc::new(store.unwrap())));
    }
    let stores = stores.try_into().unwrap_or_else(|_| unreachable!());
    (url, stores)
}

async fn source(store: &Tested) -> String {
    let change = import("f", "source", Origin::Upload);
    let accepted = store.accept(caller(), change, Start::Here(LEASE)).await;
    let lease = *accepted.unwrap().lease.unwrap();
    let done = store.complete_import(&lease, facts("source"), Vec::new());
    done.await.unwrap().image_id
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn equal_names_keys_and_ids_from_two_processes_have_the_outcomes_of_the_rules() {
    if !postgres_server::is_installed("two processes") {
        return;
    }
    let clock = Arc::new(ManualClock::new(START));
    let (_, stores) = two(&clock).await;
    let source = source(&stores[0]).await;
    let scope = QuotaScope::Folder("f".to_owned());
    let metric = Metric::DesktopImagesCount;
    stores[1].set_limit(scope, metric, Some(40)).await.unwrap();
    // Each name is asked for four times: by each process with the key 0, and with another one.
    let calls = (0..240_usize).map(|n| {
        let (store, name, kind) = (&stores[n % 2], n / 4, (n / 2 % 2) as u8);
        let request = RequestContext {
            idempotency: Some(Idempotency {
                key: [kind * (n % 2 + 1) as u8; 16],
                request_hash: [name as u8; 32],
            }),
            subject: format!("of {name}"),
            ..caller()
        };
        store.accept(request, copy("f", &format!("n{name}"), &source), Start::Now)
    });
    let ended = futures_util::future::join_all(calls).await;
    let (mut made, mut repeated) = (0, 0);
    for ended in ended {
        match ended {
            Ok(accepted) if accepted.repeated => repeated += 1,
            Ok(_) => made += 1,
            Err(Error::Refused(Refusal::NameTaken { .. } | Refusal::QuotaExceeded(_))) => {}
            Err(error) => panic!("{error}: {error:?}"),
        }
    }
    assert_eq!(made, 40, "as many as the limit admits");
    assert!(repeated <= made);
    let quotas = stores[0].quotas().await.unwrap();
    assert_eq!(quotas[0].used, 40);
    for store in &stores {
        store.close().await;
    }
}

#[tokio::test]
async fn an_event_that_is_committed_late_is_not_skipped() {
    if !postgres_server::is_installed("late events") {
        return;
    }
    let clock = Arc::new(ManualClock::new(START));
    let (url, stores) = two(&clock).await;
    source(&stores[0]).await;
    let (late, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls)
        .await
        .unwrap();
    tokio::spawn(connection);
    late.batch_execute(
        "BEGIN; INSERT INTO audit_events (recorded_at, status, kind, subject, request_id,
             folder_key, operation_key, operation_rest, image_key, image_rest, peer)
         VALUES (0, 0, 4, 'late', '', 1, 1, 0, 1, 0, '')",
    )
    .await
    .unwrap();
    let change = import("f", "other", Origin::Upload);
    stores[1]
        .accept(caller(), change, Start::Here(LEASE))
        .await
        .unwrap();
    let after = |after| AuditQuery {
        after,
        folder_id: None,
        limit: NonZeroUsize::MAX,
    };
    let (first, seen) = stores[0].audit_events(after(0)).await.unwrap();
    assert_eq!(first.len(), 3, "those of both stores");
    late.batch_execute("COMMIT").await.unwrap();
    let (rest, _) = stores[1].audit_events(after(seen)).await.unwrap();
    let rest: Vec<_> = rest.iter().map(|event| event.subject.as_str()).collect();
    assert_eq!(rest, ["late"]);
}

/// Both stores have looked up the key before either of them gets the row that the test keeps locked.
#[tokio::test]
async fn a_repeat_that_waited_for_the_first_gets_its_operation() {
    if !postgres_server::is_installed("repeats at two stores") {
        return;
    }
    let clock = Arc::new(ManualClock::new(START));
    let (url, stores) = two(&clock).await;
    let image = source(&stores[0]).await;
    let client = postgres_server::connect(&url).await.unwrap();
    let lock = "BEGIN; SELECT FROM compute_images FOR UPDATE";
    client.batch_execute(lock).await.unwrap();
    let delete = |store| {
        let request = RequestContext {
            idempotency: Some(Idempotency {
                key: [1; 16],
                request_hash: [1; 32],
            }),
            ..caller()
        };
        let change = Change::DeleteComputeImage { id: image.clone() };
        Tested::accept(store, request, change, Start::Now)
    };
    let release = async {
        test_support::eventually("both wait, one for the other", || async {
            let waiting = "WITH first AS (SELECT pid FROM pg_stat_activity
                               WHERE pg_backend_pid() = ANY (pg_blocking_pids(pid)))
                 SELECT count(*) FROM pg_stat_activity AS other WHERE EXISTS (
                     SELECT FROM first WHERE first.pid = ANY (pg_blocking_pids(other.pid)))";
            let row = client.query_one(waiting, &[]).await.unwrap();
            (row.get::<_, i64>(0) > 0).then_some(())
        })
        .await;
        client.batch_execute("COMMIT").await.unwrap();
    };
    let (one, other, ()) = tokio::join!(delete(&stores[0]), delete(&stores[1]), release);
    let (one, other) = (one.unwrap(), other.unwrap());
    assert_eq!(one.operation.id, other.operation.id);
    assert_eq!(
        [one.repeated, other.repeated]
            .into_iter()
            .filter(|it| *it)
            .count(),
        1
    );
}

#[tokio::test]
async fn a_database_of_another_program_or_of_a_later_version_is_refused() {
    if !postgres_server::is_installed("foreign databases") {
        return;
    }
    let clock = Arc::new(ManualClock::new(START));
    for (sql, expected) in [
        (
            "CREATE TABLE theirs (a int)",
            "is not a database of this program",
        ),
        (
            "CREATE TABLE schema_version (version int)",
            "is not a database of this program",
        ),
        ("", ""),
    ] {
        let url = postgres_server::database().await;
        let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls)
            .await
            .unwrap();
        tokio::spawn(connection);
        client.batch_execute(sql).await.unwrap();
        let opened = on_postgres(&url, &clock).await;
        if !expected.is_empty() {
            let error = opened.err().unwrap().to_string();
            assert!(error.contains(expected), "{error}");
            continue;
        }
        // A later version that this one may still work with, and one that it may not.
        for (readable_from, is_served) in [(1, true), (1_000, false)] {
            let sql = format!(
                "UPDATE schema_version SET version = 1000, readable_from = {readable_from}"
            );
            client.batch_execute(&sql).await.unwrap();
            let opened = on_postgres(&url, &clock).await;
            assert_eq!(opened.is_ok(), is_served, "{readable_from}");
        }
    }
}

#[tokio::test]
async fn work_that_one_process_leaves_wakes_another() {
    if !postgres_server::is_installed("waking another process") {
        return;
    }
    let clock = Arc::new(ManualClock::new(START));
    let (_, stores) = two(&clock).await;
    let woken = || tokio::time::timeout(Duration::from_secs(30), stores[1].work());
    // That it has begun to listen.
    woken().await.unwrap();
    let uri = Origin::Uri("file:///n".to_owned());
    let change = import("f", "n", uri);
    stores[0]
        .accept(caller(), change, Start::Now)
        .await
        .unwrap();
    woken().await.unwrap();
}

#[tokio::test]
async fn each_of_many_folders_has_its_turn_and_leases_of_all_processes_count() {
    if !postgres_server::is_installed("the search in many folders") {
        return;
    }
    let clock = Arc::new(ManualClock::new(START));
    let (_, stores) = two(&clock).await;
    let next = async |store: &Tested| {
        let occupied = Occupied {
            folder_limit: 3,
            ..Occupied::default()
        };
        store.next_claim(occupied, HORIZON).await.unwrap().candidate
    };
    let uri = || Origin::Uri("file:///n".to_owned());
    let accepted = (0..600).map(|n| {
        let change = import(&format!("f{n}"), "n", uri());
        stores[0].accept(caller(), change, Start::Now)
    });
    for accepted in futures_util::future::join_all(accepted).await {
        accepted.unwrap();
    }
    let mut folders = std::collections::BTreeSet::new();
    while let Some(candidate) = next(&stores[folders.len() % 2]).await {
        let store = &stores[folders.len() / 2 % 2];
        let lease = store.claim(candidate, LEASE, HORIZON).await.unwrap();
        assert!(folders.insert(lease.unwrap().folder_id));
    }
    assert_eq!(folders.len(), 600);
    // The lease in f0 may be the other process's.
    for (folder, name) in [("f0", "second"), ("new", "first")] {
        let change = import(folder, name, uri());
        stores[0]
            .accept(caller(), change, Start::Now)
            .await
            .unwrap();
    }
    let first = next(&stores[1]).await.unwrap();
    assert_eq!(first.folder_id, "new");
}

#[tokio::test]
async fn one_process_has_maintenance_until_it_is_silent() {
    if !postgres_server::is_installed("maintenance of two processes") {
        return;
    }
    let clock = Arc::new(ManualClock::new(START));
    let (_, stores) = two(&clock).await;
    let takes = async |number: usize| {
        let holder = number.to_string();
        let taken = stores[number].take_maintenance(&holder, LEASE).await;
        taken.unwrap()
    };
    assert!(takes(0).await);
    assert!(!takes(1).await);
    assert!(takes(0).await);
    clock.set(START.after(LEASE));
    assert!(takes(1).await);
    assert!(!takes(0).await);
}

#[tokio::test]
async fn a_process_that_woke_up_after_its_lease_commits_nothing() {
    if !postgres_server::is_installed("late commits of another process") {
        return;
    }
    let clock = Arc::new(ManualClock::new(START));
    let (_, stores) = two(&clock).await;
    let change = import("f", "n", Origin::Upload);
    let accepted = stores[0].accept(caller(), change, Start::Here(LEASE)).await;
    let late = *accepted.unwrap().lease.unwrap();
    clock.set(START.after(LEASE));
    let claimed = stores[1].claim(late.candidate(), LEASE, HORIZON).await;
    let lease = claimed.unwrap().unwrap();
    let refused = stores[0].complete_import(&late, facts("late"), Vec::new());
    let refused = refused.await.unwrap_err();
    assert!(
        matches!(refused, Error::Refused(Refusal::LeaseLost { .. })),
        "{refused}"
    );
    let done = stores[1].complete_import(&lease, facts("n"), Vec::new());
    assert!(done.await.unwrap().is_done());
}

#[tokio::test]
async fn time_is_that_of_the_database_server() {
    if !postgres_server::is_installed("the clock of the server") {
        return;
    }
    let url = postgres_server::database().await;
    let wrong = Arc::new(ManualClock::new(START));
    let store = PostgresStore::open(&PostgresSettings::new(&url), wrong).await;
    let ahead = store.unwrap().now().0 - SystemClock.now().0;
    assert!(ahead.abs() < 60_000_000, "{ahead} microseconds");
}
