//! What every store promises, asked from outside of it. Time stands still until a test moves it.

mod accepting;
mod contents;
mod leases;
mod states;
mod uploads;

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;

use super::*;
use crate::model::*;

const LEASE: Duration = Duration::from_secs(10);
const HORIZON: Duration = Duration::from_secs(61);
const START: Timestamp = Timestamp(1_800_000_000_000_000);

struct Fixture {
    store: Store,
    clock: Arc<ManualClock>,
    folder: TempDir,
}

impl Fixture {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::new(START));
        let store = Store::open(&folder.path().join("metadata.sqlite"), clock.clone()).unwrap();
        Self {
            store,
            clock,
            folder,
        }
    }

    /// Another process on the same file, after the first has ended.
    async fn reopened(self) -> Self {
        self.store.close().await;
        let path = self.folder.path().join("metadata.sqlite");
        let store = Store::open(&path, self.clock.clone()).unwrap();
        Self { store, ..self }
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
        accepted.unwrap().lease.unwrap()
    }

    async fn next(&self) -> Option<Candidate> {
        self.next_beside(&[]).await
    }

    /// The operation whose turn it is where those of `placed` have a place.
    async fn next_beside(&self, placed: &[Lease]) -> Option<Candidate> {
        let occupied = Occupied {
            placed: placed.iter().map(Lease::candidate).collect(),
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
        let of_it = events.iter().filter(|e| e.operation_id == operation_id);
        of_it.map(|event| event.status).collect()
    }
}

fn caller() -> Accept {
    Accept {
        subject: "somebody".to_owned(),
        request_id: "a request".to_owned(),
        idempotency: None,
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
fn facts(seed: &str) -> ContentFacts {
    use sha2::Digest;
    ContentFacts {
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
