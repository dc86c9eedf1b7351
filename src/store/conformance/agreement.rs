//! Stores agree: random commands, some at a time, have the same replies from each, and leave the same rows.
//! `DESKTOP_IMAGES_SEQUENCES` says how many sequences are tried.

use futures_util::{StreamExt, stream};
use rand::Rng;

use super::*;
use crate::model::rules::random::{AnyCommand, AnyReply, FOLDERS, World, ids};
use crate::store::moving::TargetState;
use crate::store::sqlite::Departing;

const SEQUENCES: u64 = 100;
const BATCHES: usize = 12;
/// How many sequences are tried at once: each waits for its disk most of the time.
const AT_ONCE: usize = 8;
/// One of so many sequences ends with a move of all rows.
const MOVED: u64 = 5;

/// Stores with the same clock and the same ids, each with its name.
struct Compared {
    stores: Vec<(&'static str, Tested)>,
    clock: Arc<ManualClock>,
    folder: TempDir,
}

impl Compared {
    async fn new(seed: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::new(START));
        let path = folder.path().join("metadata.sqlite");
        let made = clock.clone();
        let sqlite = SqliteStore::open_with(&path, clock.clone(), |_| ids(made, seed)).unwrap();
        let memory = MemoryStore::with_ids(clock.clone(), ids(clock.clone(), seed));
        let mut stores = vec![
            ("SQLite", Tested(Arc::new(sqlite))),
            ("memory", Tested(Arc::new(memory))),
        ];
        if postgres_server::is_installed("agreement of stores") {
            let (url, made) = (postgres_server::database().await, clock.clone());
            let settings = PostgresSettings::new(&url);
            let open = PostgresStore::open_with(&settings, clock.clone(), |_| ids(made, seed));
            stores.push(("PostgreSQL", Tested(Arc::new(open.await.unwrap()))));
        }
        Self {
            stores,
            clock,
            folder,
        }
    }

    /// Adds a PostgreSQL store that has taken over the rows of SQLite; false where there is none here.
    async fn add_one_that_took_over(&mut self) -> bool {
        if !postgres_server::is_installed("moves from one store to another") {
            return false;
        }
        let settings = PostgresSettings::new(&postgres_server::database().await);
        let open = PostgresStore::open_with(&settings, self.clock.clone(), |_| {
            ids(self.clock.clone(), 0)
        });
        let store = open.await.unwrap();
        let path = self.folder.path().join("metadata.sqlite");
        let (sender, rows) = tokio::sync::mpsc::channel(1);
        let reading = tokio::task::spawn_blocking(move || {
            let mut departing = Departing::open(&path).unwrap();
            let read = departing.read(|rows| sender.blocking_send(rows).is_ok());
            read.unwrap();
            departing.count().unwrap()
        });
        let mut written = 0;
        let taken = store.take_over("installation", rows, |count| written += count, || true);
        assert_eq!(taken.await.unwrap(), TargetState::Empty);
        assert_eq!(reading.await.unwrap(), written);
        self.stores
            .push(("PostgreSQL that took over", Tested(Arc::new(store))));
        true
    }

    /// Asks each store, and compares its answer with that of the first.
    async fn same<T: std::fmt::Debug, F: Future<Output = T>>(
        &self,
        what: &str,
        ask: impl Fn(Arc<dyn Store>) -> F,
    ) -> T {
        let (first, others) = self.stores.split_first().expect("some stores");
        let expected = ask(first.1.0.clone()).await;
        let shown = format!("{expected:#?}");
        for (name, other) in others {
            let found = format!("{:#?}", ask(other.0.clone()).await);
            assert_eq!(shown, found, "{what}: {} and {name} differ", first.0);
        }
        expected
    }

    async fn close(&self) {
        for (_, store) in &self.stores {
            store.close().await;
        }
    }

    /// Sends the commands together to one store after the other, and compares the replies.
    async fn commands(&self, commands: &[AnyCommand]) -> Vec<AnyReply> {
        let replies = self.same("the replies", |store| async move {
            let calls = commands
                .iter()
                .map(|command| store.execute(command.clone()));
            futures_util::future::join_all(calls).await
        });
        replies.await.into_iter().flatten().collect()
    }

    /// Does something that is no command.
    async fn statement(&self, world: &mut World) {
        let folder = FOLDERS[world.random.random_range(0..2)].to_owned();
        let metric = Metric::ALL[world.random.random_range(0..4)];
        let limit = world.random.random_range(0..6) * 700;
        match world.random.random_range(0..6) {
            0 => {
                let set = SetQuota {
                    request: caller(),
                    scope: match limit % 3 {
                        0 => QuotaScope::Total,
                        _ => QuotaScope::Folder(folder),
                    },
                    metric,
                    limit: (limit > 0).then_some(limit),
                };
                self.same("set_quota", |store| {
                    let set = set.clone();
                    async move { store.set_quota(set).await }
                })
                .await
                .unwrap();
            }
            1 => {
                let known = self.known().await;
                let damaged = vec![known[world.random.random_range(0..known.len().max(1))].clone()];
                self.same("mark_damaged", |store| {
                    let damaged = damaged.clone();
                    async move { store.mark_damaged(damaged).await }
                })
                .await
                .unwrap();
            }
            2 => {
                self.same("remove_unreferenced", |store| async move {
                    store.remove_unreferenced(100).await
                })
                .await
                .unwrap();
            }
            3 => {
                let age = Duration::from_secs(20);
                self.same("forgetting", |store| async move {
                    let operations = store.forget_operations(age, 2).await.unwrap();
                    let events = store.forget_audit_events(age, 2).await.unwrap();
                    store.prune_former_names(age).await.unwrap();
                    (operations, events)
                })
                .await;
            }
            4 => {
                let known = self.known().await;
                self.same("blobs_deleted", |store| {
                    let known = known.clone();
                    async move { store.blobs_deleted(known).await }
                })
                .await
                .unwrap();
            }
            _ => {
                let next = self.same("next_claim", |store| async move {
                    let occupied = Occupied {
                        folder_limit: 2,
                        ..Occupied::default()
                    };
                    store.next_claim(occupied, HORIZON).await
                });
                if let Some(candidate) = next.await.unwrap().candidate {
                    let claim = AnyCommand::Claim(Claim {
                        candidate,
                        lease: LEASE,
                        horizon: HORIZON,
                    });
                    for reply in self.commands(&[claim]).await {
                        world.learn(&reply);
                    }
                }
            }
        }
    }

    /// The ids of all blobs, with one that is none.
    async fn known(&self) -> Vec<String> {
        let known = self.same("known_blobs", |store| async move {
            let known = store.known_blobs().await.unwrap();
            known.into_iter().collect::<std::collections::BTreeSet<_>>()
        });
        let none = "none".to_owned();
        known.await.into_iter().chain([none]).collect()
    }

    /// Compares all that can be read.
    async fn compare(&self, world: &World) {
        for folder_id in FOLDERS {
            for order in [
                vec![],
                vec![(Column::Name, Direction::Descending)],
                vec![(Column::Status, Direction::Ascending)],
            ] {
                let query = ListQuery {
                    folder_id: folder_id.to_owned(),
                    conditions: Vec::new(),
                    order,
                    page_size: 1000,
                    after: None,
                };
                self.same("the lists", |store| {
                    let query = query.clone();
                    async move {
                        let desktop = store.desktop_images(query.clone()).await.unwrap();
                        (desktop, store.compute_images(query).await.unwrap())
                    }
                })
                .await;
            }
            self.same("the family", |store| async move {
                store
                    .latest_compute_image_of_family(folder_id, "family")
                    .await
            })
            .await
            .unwrap();
        }
        for id in &world.desktop_images {
            self.same("the blob", |store| async move {
                store
                    .desktop_image_blob(id)
                    .await
                    .map_err(|error| error.to_string())
            })
            .await
            .ok();
        }
        for id in &world.compute_images {
            self.same("operations of an image", |store| async move {
                let found = store.operations_of_compute_image(id, None, 5).await;
                found.map_err(|error| error.to_string())
            })
            .await
            .ok();
        }
        for id in &world.operations {
            self.same("the operation", |store| async move {
                store.operation(id).await.map_err(|error| error.to_string())
            })
            .await
            .ok();
        }
        self.same("the rest", |store| async move {
            let query = AuditQuery {
                after: 0,
                folder_id: None,
                limit: NonZeroUsize::MAX,
            };
            let offolder = AuditQuery {
                after: 3,
                folder_id: Some("f".to_owned()),
                limit: NonZeroUsize::new(3).unwrap(),
            };
            let live = store.live_blobs().await.unwrap();
            (
                store.quotas().await.unwrap(),
                store.audit_events(query).await.unwrap(),
                store.audit_events(offolder).await.unwrap(),
                store
                    .blobs_to_delete(Duration::ZERO, None, 1000)
                    .await
                    .unwrap(),
                store.identities(IdentityKind::Token).await.unwrap(),
                store
                    .identities(IdentityKind::ServiceAccountKey)
                    .await
                    .unwrap(),
                store.identities(IdentityKind::Grant).await.unwrap(),
                live.into_iter().collect::<std::collections::BTreeSet<_>>(),
            )
        })
        .await;
        self.known().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_commands_have_the_same_replies_and_leave_the_same_rows() {
    let sequences = std::env::var("DESKTOP_IMAGES_SEQUENCES");
    let sequences = sequences.map_or(SEQUENCES, |count| count.parse().expect("a number"));
    let first: u64 = rand::random();
    let seeds = (0..sequences).map(|n| first.wrapping_add(n));
    stream::iter(seeds)
        .map(|seed| tokio::spawn(sequence(seed)))
        .buffer_unordered(AT_ONCE)
        .for_each(|ended| async { ended.unwrap() })
        .await;
}

async fn sequence(seed: u64) {
    println!("sequence with the seed {seed}");
    let (mut stores, mut world) = (Compared::new(seed).await, World::new(seed));
    for _ in 0..BATCHES {
        let count = world.random.random_range(1..8);
        let commands: Vec<_> = (0..count).map(|_| world.command()).collect();
        for reply in stores.commands(&commands).await {
            world.learn(&reply);
        }
        if world.random.random_bool(0.5) {
            stores.statement(&mut world).await;
        }
        let passed = Duration::from_millis(world.random.random_range(0..8000));
        stores.clock.set(stores.clock.now().after(passed));
    }
    stores.compare(&world).await;
    if seed.is_multiple_of(MOVED) && stores.add_one_that_took_over().await {
        stores.compare(&world).await;
    }
    stores.close().await;
}
