//! The conformance suite: promises of every store, tested from outside, on each backend. Time stands still until a
//! test moves it. `DESKTOP_IMAGES_FAULTS` is a seed that decides which statements fail in the tests where some do.

mod accepting;
mod agreement;
mod blobs;
mod faults;
mod identity;
mod leases;
mod lists;
mod replicas;
mod states;
mod uploads;

use std::num::NonZeroUsize;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use test_support::{PostgresFaults, postgres_server};

use super::memory::MemoryStore;
use super::postgres::{PostgresSettings, PostgresStore};
use super::sqlite::SqliteStore;
use super::*;
use crate::model::rules::*;
use crate::model::*;

const LEASE: Duration = Duration::from_secs(10);
const HORIZON: Duration = Duration::from_secs(61);
const START: Timestamp = Timestamp(1_800_000_000_000_000);

/// Runs tests, each on every backend.
macro_rules! conformance {
    ($($module:ident: $($test:ident),+;)+) => {
        mod sqlite {
            $($(#[tokio::test]
            async fn $test() {
                super::$module::$test(super::Backend::Sqlite).await;
            })+)+
        }
        mod postgres {
            $($(#[tokio::test]
            async fn $test() {
                if test_support::postgres_server::is_installed(stringify!($test)) {
                    super::$module::$test(super::Backend::Postgres).await;
                }
            })+)+
        }
        mod postgres_with_faults {
            $($(#[tokio::test]
            async fn $test() {
                let test = concat!(stringify!($test), " while statements fail");
                if test_support::postgres_server::is_installed(test) {
                    super::$module::$test(super::Backend::FailingPostgres).await;
                }
            })+)+
        }
        mod memory {
            $($(#[tokio::test]
            async fn $test() {
                super::$module::$test(super::Backend::Memory).await;
            })+)+
        }
    };
}

conformance! {
    accepting:
        equal_requests_at_once_make_one_image,
        each_of_many_at_once_leaves_its_own_operation_and_events,
        events_have_the_order_in_which_changes_were_accepted,
        a_refused_request_leaves_nothing_behind,
        limits_are_exact_whatever_comes_at_once,
        an_import_is_counted_when_it_is_accepted_and_weighed_when_it_is_whole,
        a_copy_that_meets_the_deletion_of_its_source_is_refused_or_keeps_the_blob,
        a_copy_takes_of_its_source_what_it_is_when_its_turn_comes,
        operations_and_their_keys_are_forgotten_together_in_their_time;
    blobs:
        equal_bytes_take_the_place_of_those_that_were_there_for_all_images,
        a_worker_that_lost_its_lease_takes_no_place,
        what_is_known_as_damaged_is_not_copied_until_it_is_mended,
        a_blob_goes_with_its_last_image_and_not_before,
        a_live_blob_tells_its_sizes_and_its_images,
        an_installation_keeps_its_first_name,
        the_bytes_of_a_tombstone_stay_while_a_hold_stands,
        blobs_are_found_by_the_age_of_their_tombstones,
        equal_bytes_are_live_again_while_the_old_ones_have_a_tombstone;
    identity:
        what_hangs_on_an_account_or_a_token_goes_with_it,
        a_row_hangs_on_one_that_is_there,
        what_has_expired_is_forgotten;
    leases:
        a_worker_that_was_silent_for_too_long_can_commit_nothing,
        a_lease_that_is_renewed_is_kept_and_tells_of_a_cancel,
        what_was_being_rolled_back_is_rolled_back_by_the_next_worker,
        attempts_are_rescheduled_for_a_bounded_time_and_the_last_failure_is_kept,
        a_worker_that_has_to_stop_gives_back_the_attempt,
        a_clock_that_goes_back_an_hour_stops_nothing,
        a_folder_with_a_thousand_imports_does_not_stand_before_another;
    lists:
        pages_of_every_order_show_each_image_once,
        a_page_goes_on_where_the_last_ended_though_its_last_item_is_gone;
    states:
        no_order_of_events_leads_astray;
    uploads:
        a_retry_supersedes_an_upload_until_its_body_is_there,
        what_an_upload_fails_of_decides_whether_its_key_is_free,
        one_that_fails_or_is_cancelled_makes_room_only_where_its_key_will_be_free,
        an_upload_of_a_process_that_is_gone_makes_room;
}

/// A kind of store.
#[derive(Debug, Clone, Copy)]
enum Backend {
    Sqlite,
    Postgres,
    /// A database that serialises transactions unless it is told otherwise, and whose statements fail now and then.
    FailingPostgres,
    Memory,
}

/// A store, with its commands as methods.
struct Tested(Arc<dyn Store>);

impl Deref for Tested {
    type Target = dyn Store;

    fn deref(&self) -> &Self::Target {
        &*self.0
    }
}

impl Tested {
    async fn accept(
        &self,
        request: RequestContext,
        change: Change,
        start: Start,
    ) -> Result<Accepted> {
        self.execute(Accept {
            request,
            change,
            start,
        })
        .await
    }

    async fn claim(
        &self,
        candidate: Candidate,
        lease: Duration,
        horizon: Duration,
    ) -> Result<Option<Lease>> {
        let claim = Claim {
            candidate,
            lease,
            horizon,
        };
        Ok(match self.execute(claim).await? {
            Claimed::Lease(lease) => Some(*lease),
            Claimed::Gone | Claimed::Ended(_) => None,
        })
    }

    async fn renew(&self, lease: &Lease, length: Duration, progress: Progress) -> Result<Renewed> {
        self.execute(Renew::new(lease, length, progress)).await
    }

    async fn release(&self, lease: &Lease) -> Result<()> {
        self.execute(Release(lease.clone())).await
    }

    async fn retry(
        &self,
        lease: &Lease,
        failure: Failure,
        pause: Duration,
        patience: Duration,
    ) -> Result<bool> {
        self.execute(Retry {
            lease: lease.clone(),
            failure,
            pause,
            patience,
        })
        .await
    }

    async fn complete(&self, lease: &Lease) -> Result<Operation> {
        self.execute(Complete(lease.clone())).await
    }

    async fn complete_import(
        &self,
        lease: &Lease,
        facts: BlobFacts,
        checksums: Vec<u8>,
    ) -> Result<Operation> {
        self.execute(CompleteImport {
            lease: lease.clone(),
            facts,
            checksums,
        })
        .await
    }

    async fn start_rollback(&self, lease: &Lease, failure: Failure) -> Result<Lease> {
        let lease = lease.clone();
        self.execute(StartRollback { lease, failure }).await
    }

    async fn rolled_back(&self, lease: &Lease, failure: Failure) -> Result<Operation> {
        let lease = lease.clone();
        self.execute(RolledBack { lease, failure }).await
    }

    async fn request_cancel(&self, operation_id: &str) -> Result<CancelRequested> {
        let command = RequestCancel {
            request: RequestContext::internal("somebody"),
            operation_id: operation_id.to_owned(),
        };
        self.execute(command).await
    }

    async fn tie_key(&self, lease: &Lease) -> Result<()> {
        self.execute(TieKey(lease.clone())).await
    }

    async fn supersede(&self, request: &RequestContext) -> Result<Option<String>> {
        self.execute(Supersede(request.clone())).await
    }

    async fn set_limit(
        &self,
        scope: QuotaScope,
        metric: Metric,
        limit: Option<i64>,
    ) -> Result<i64> {
        self.set_quota(SetQuota {
            request: caller(),
            scope,
            metric,
            limit,
        })
        .await
    }
}

/// A store on PostgreSQL with the time of a test.
async fn on_postgres(url: &str, clock: &Arc<ManualClock>) -> Result<PostgresStore> {
    let settings = PostgresSettings::new(url);
    let ids = |last_key| IdGenerator::new(clock.clone(), last_key);
    PostgresStore::open_with(&settings, clock.clone(), ids).await
}

/// The URL parameter that has transactions be serialised which do not ask for anything else; it goes to the end of one
/// that the server of the tests has given.
const SERIALIZABLE: &str = "%20-c%20default_transaction_isolation%3Dserializable";

/// An empty database that serialises transactions unless it is told otherwise, and whose statements fail now and then.
async fn faults() -> PostgresFaults {
    let url = postgres_server::database().await + SERIALIZABLE;
    PostgresFaults::start(&url, seed()).await
}

/// Decides which statements fail.
fn seed() -> u64 {
    let seed = std::env::var("DESKTOP_IMAGES_FAULTS");
    let seed = seed.map_or_else(|_| rand::random(), |seed| seed.parse().expect("a number"));
    println!("statements fail by DESKTOP_IMAGES_FAULTS={seed}");
    seed
}

struct Fixture {
    store: Tested,
    clock: Arc<ManualClock>,
    backend: Backend,
    folder: TempDir,
    /// Of a database on a server.
    url: String,
}

impl Fixture {
    async fn new(backend: Backend) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::new(START));
        let url = match backend {
            Backend::Postgres => postgres_server::database().await,
            Backend::FailingPostgres => faults().await.url().to_owned(),
            Backend::Sqlite | Backend::Memory => String::new(),
        };
        let store: Arc<dyn Store> = match backend {
            Backend::Postgres | Backend::FailingPostgres => {
                Arc::new(on_postgres(&url, &clock).await.unwrap())
            }
            Backend::Sqlite => {
                let path = folder.path().join("metadata.sqlite");
                Arc::new(SqliteStore::open(&path, clock.clone()).unwrap())
            }
            Backend::Memory => Arc::new(MemoryStore::new(clock.clone())),
        };
        Self {
            store: Tested(store),
            clock,
            backend,
            folder,
            url,
        }
    }

    /// Another process on the same data, after the first has ended.
    async fn reopened(self) -> Self {
        match self.backend {
            Backend::Sqlite => {
                self.store.close().await;
                let path = self.folder.path().join("metadata.sqlite");
                let store = SqliteStore::open(&path, self.clock.clone()).unwrap();
                Self {
                    store: Tested(Arc::new(store)),
                    ..self
                }
            }
            Backend::Postgres | Backend::FailingPostgres => {
                self.store.close().await;
                let store = on_postgres(&self.url, &self.clock).await;
                Self {
                    store: Tested(Arc::new(store.unwrap())),
                    ..self
                }
            }
            // It has no data but its own.
            Backend::Memory => self,
        }
    }

    fn pass(&self, time: Duration) {
        self.clock.set(self.clock.now().after(time));
    }

    async fn accept(&self, change: Change, start: Start) -> Result<Operation> {
        let accepted = self.store.accept(caller(), change, start).await?;
        Ok(accepted.operation)
    }

    /// A READY compute image with bytes of its own.
    async fn compute_image(&self, folder_id: &str, name: &str) -> String {
        let lease = self.upload(folder_id, name).await;
        let operation = self
            .store
            .complete_import(&lease, facts(name), Vec::new())
            .await;
        operation.unwrap().image_id
    }

    async fn upload(&self, folder_id: &str, name: &str) -> Lease {
        let change = import(folder_id, name, Origin::Upload);
        let accepted = self
            .store
            .accept(caller(), change, Start::Here(LEASE))
            .await;
        *accepted.unwrap().lease.unwrap()
    }

    async fn next(&self) -> Option<Candidate> {
        self.next_beside(&[]).await
    }

    /// The operation whose turn it is where those of `in_slots` have a slot.
    async fn next_beside(&self, in_slots: &[Lease]) -> Option<Candidate> {
        let occupied = Occupied {
            in_slots: in_slots.iter().map(Lease::candidate).collect(),
            folder_limit: 3,
            ..Occupied::default()
        };
        let next = self.store.next_claim(occupied, HORIZON).await;
        next.unwrap().candidate
    }

    /// Claims the operation whose turn it is.
    async fn claim(&self) -> Option<Lease> {
        let candidate = self.next().await?;
        let claimed = self.store.claim(candidate, LEASE, HORIZON).await;
        Some(claimed.unwrap().expect("nobody else claims"))
    }

    /// All audit events, in their order.
    async fn events(&self) -> Vec<AuditEvent> {
        let query = AuditQuery {
            after: 0,
            folder_id: None,
            limit: NonZeroUsize::MAX,
        };
        self.store.audit_events(query).await.unwrap().0
    }

    async fn statuses(&self, operation_id: &str) -> Vec<AuditStatus> {
        let events = self.events().await;
        // A cancel has an event of its own.
        let of_it = events.iter().filter(|event| {
            event.operation_id == operation_id && matches!(event.kind, AuditKind::Operation(_))
        });
        of_it.map(|event| event.status).collect()
    }
}

fn caller() -> RequestContext {
    RequestContext {
        subject: "somebody".to_owned(),
        request_id: "a request".to_owned(),
        idempotency: None,
        ..RequestContext::internal("")
    }
}

fn copy(folder_id: &str, name: &str, compute_image_id: &str) -> Change {
    Change::CopyDesktopImage(NewDesktopImage {
        folder_id: folder_id.to_owned(),
        name: name.to_owned(),
        description: String::new(),
        labels: Default::default(),
        compute_image_id: compute_image_id.to_owned(),
    })
}

fn import(folder_id: &str, name: &str, origin: Origin) -> Change {
    let new = NewComputeImage {
        folder_id: folder_id.to_owned(),
        name: name.to_owned(),
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

/// Facts of bytes that are told apart by `seed`.
fn facts(seed: &str) -> BlobFacts {
    use sha2::Digest;
    BlobFacts {
        format: "raw".to_owned(),
        size: 4096,
        stored_size: 1000,
        virtual_size: 4096,
        sha256: sha2::Sha256::digest(seed).into(),
    }
}

fn failed(operation: &Operation) -> Reason {
    match &operation.outcome {
        Some(Outcome::Failed(failure)) => failure.reason,
        other => panic!("{other:?}"),
    }
}

fn broken() -> Failure {
    Failure::new(Reason::Internal, "broken")
}
