//! Runs operations in this process: each in a task of its own, some at a time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Failure, Operation, Reason};
use crate::metadata::{Error, Lease, Result, Store};

/// How many operations run at the same time.
const CONCURRENCY: usize = 4;
/// How often an operation is taken up before it counts as one that ends the process.
const MOST_ATTEMPTS: i64 = 10;
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// What an operation does once it is claimed.
#[async_trait]
pub trait Worker: Send + Sync + 'static {
    /// Does the task of the lease, and ends the operation in the store where it succeeds. A
    /// failure leaves nothing behind but what the store knows of. Stops early, with any failure,
    /// when `cancelled`. Dropping the future must stop the work too.
    async fn run(&self, lease: &Lease, cancelled: CancellationToken) -> Ended;
}

/// How a run ended.
pub type Ended = std::result::Result<Operation, Failure>;

/// Runs operations, and knows which ones run.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    permits: Semaphore,
    running: Mutex<HashMap<String, CancellationToken>>,
    tasks: TaskTracker,
    stopping: CancellationToken,
}

/// An operation that can be cancelled as long as this lives.
pub struct Tracked {
    engine: Engine,
    operation_id: String,
    pub cancelled: CancellationToken,
}

impl Drop for Tracked {
    fn drop(&mut self) {
        self.engine.running().remove(&self.operation_id);
    }
}

impl Engine {
    pub fn new(store: Store) -> Self {
        Self {
            inner: Arc::new(Inner {
                store,
                permits: Semaphore::new(CONCURRENCY),
                running: Mutex::default(),
                tasks: TaskTracker::new(),
                stopping: CancellationToken::new(),
            }),
        }
    }

    /// Makes an operation known as running here, so that `cancel` reaches it.
    pub fn track(&self, operation_id: &str) -> Tracked {
        let cancelled = CancellationToken::new();
        self.running()
            .insert(operation_id.to_owned(), cancelled.clone());
        Tracked {
            engine: self.clone(),
            operation_id: operation_id.to_owned(),
            cancelled,
        }
    }

    /// Runs something that `stop` waits for, whether or not its caller does.
    pub fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send + 'static> + Send + 'static,
    {
        self.inner.tasks.spawn(future)
    }

    /// Cancelled when all work is to stop.
    pub fn stopping(&self) -> CancellationToken {
        self.inner.stopping.clone()
    }

    /// Runs an accepted operation in the background, when its turn comes.
    pub fn start(&self, operation_id: &str, worker: Arc<dyn Worker>) {
        let tracked = self.track(operation_id);
        let engine = self.clone();
        self.inner.tasks.spawn(async move {
            let stopping = engine.inner.stopping.clone();
            tokio::select! {
                () = engine.run(tracked, worker) => {}
                // What is left undone is taken up again at the next start.
                () = stopping.cancelled() => {}
            }
        });
    }

    async fn run(&self, tracked: Tracked, worker: Arc<dyn Worker>) {
        let id = tracked.operation_id.clone();
        let _permit = tokio::select! {
            permit = self.inner.permits.acquire() => permit.ok(),
            // Ending it takes no turn.
            () = tracked.cancelled.cancelled() => None,
        };
        let lease = match self.claim(&id).await {
            Ok(lease) => lease,
            Err(error) => {
                tracing::error!(operation_id = id, %error, "the operation was not claimed");
                return;
            }
        };
        let ended = if lease.attempt > MOST_ATTEMPTS {
            Err(Failure::new(
                Reason::Aborted,
                format!("Given up after {MOST_ATTEMPTS} attempts, each ended by the server's end"),
            ))
        } else if lease.cancel_requested || tracked.cancelled.is_cancelled() {
            Err(cancelled())
        } else {
            worker.run(&lease, tracked.cancelled.clone()).await
        };
        match ended {
            Ok(_) => tracing::info!(operation_id = id, "the operation succeeded"),
            Err(failure) => {
                let failure = match tracked.cancelled.is_cancelled() {
                    true => cancelled(),
                    false => failure,
                };
                if let Err(error) = self.fail(&lease, failure).await {
                    tracing::error!(operation_id = id, %error, "the failure was not recorded");
                }
            }
        }
    }

    /// Claims an accepted operation.
    pub async fn claim(&self, operation_id: &str) -> Result<Lease> {
        self.insist(|| self.inner.store.claim(operation_id)).await
    }

    /// Ends a claimed operation in failure.
    pub async fn fail(&self, lease: &Lease, failure: Failure) -> Result<Operation> {
        tracing::warn!(
            operation_id = lease.operation_id,
            reason = failure.reason.as_str(),
            message = failure.message,
            "the operation failed"
        );
        self.insist(|| self.inner.store.fail(lease, failure.clone()))
            .await
    }

    /// Does a step again, with pauses, as long as the store cannot: what was accepted must end.
    /// At a stop it is left to the next start.
    async fn insist<T, F>(&self, step: impl Fn() -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let mut pause = FIRST_PAUSE;
        loop {
            let error = match step().await {
                Err(error @ (Error::Full | Error::Sqlite(_))) => error,
                ended => return ended,
            };
            tracing::warn!(%error, "the store failed; trying again");
            tokio::select! {
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(LONGEST_PAUSE),
                () = self.inner.stopping.cancelled() => return Err(error),
            }
        }
    }

    /// Asks the operation to stop, if it runs; it goes on until it notices.
    pub fn cancel(&self, operation_id: &str) {
        if let Some(token) = self.running().get(operation_id) {
            token.cancel();
        }
    }

    /// Stops all work that was started, to be taken up again at the next start.
    pub async fn stop(&self) {
        self.inner.stopping.cancel();
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
    }

    fn running(&self) -> MutexGuard<'_, HashMap<String, CancellationToken>> {
        self.inner
            .running
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// The failure of an operation that its caller cancelled.
pub fn cancelled() -> Failure {
    Failure::new(Reason::Cancelled, "The operation was cancelled")
}
