//! The engine: claims operations whose turn has come, runs them under a lease, then records the result, reschedules
//! or rolls back. Operations that an earlier process left unfinished are claimed in the same way.

mod claims;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use super::Run;
use super::retry::{self, MOST_ATTEMPTS};
use super::run::Signals;
use super::watchers::Watchers;
use super::worker::{Ended, Settings, Worker};
use crate::model::rules::{Release, RequestCancel, Retry, RolledBack, StartRollback};
use crate::model::{
    Candidate, Failure, Lease, Operation, Phase, Reason, Refusal, RequestContext, Start,
};
use crate::store::{Result, Store};

/// The first pause between two tries of a step that the store fails to do; later ones are longer.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Runs operations, and knows which ones run.
#[derive(Clone)]
pub(crate) struct Engine {
    inner: Arc<Inner>,
}

struct Inner {
    store: Arc<dyn Store>,
    settings: Settings,
    slots: Arc<Semaphore>,
    running: Mutex<HashMap<String, Running>>,
    watchers: Watchers,
    work: Notify,
    tasks: TaskTracker,
    draining: CancellationToken,
    stopping: CancellationToken,
}

/// An operation that runs in this process.
struct Running {
    candidate: Candidate,
    signals: Arc<Signals>,
    has_slot: bool,
}

impl Engine {
    pub(crate) fn new(store: Arc<dyn Store>, settings: Settings) -> Self {
        Self {
            inner: Arc::new(Inner {
                store,
                slots: Arc::new(Semaphore::new(settings.concurrency.max(1))),
                settings,
                running: Mutex::default(),
                watchers: Watchers::default(),
                work: Notify::new(),
                tasks: TaskTracker::new(),
                draining: CancellationToken::new(),
                stopping: CancellationToken::new(),
            }),
        }
    }

    /// Starts the search for operations to run. It ends with the first order to stop: a lease that was taken then is
    /// given to a run, which hands it back.
    pub(crate) fn serve(&self, worker: Arc<dyn Worker>) {
        self.inner.tasks.spawn(self.clone().look_for_work(worker));
    }

    /// The start of a change that is accepted now: at once, or after the simulated latency.
    pub(crate) fn start(&self) -> Start {
        match self.inner.settings.simulated_latency {
            Duration::ZERO => Start::Now,
            latency => Start::After(latency),
        }
    }

    /// Wakes the search for operations to run.
    pub(crate) fn wake(&self) {
        self.inner.work.notify_one();
    }

    /// Runs the heartbeat of a lease that the accepting request already holds. `claimed` is a lower bound of when
    /// the lease was acquired.
    pub(crate) fn attend(&self, lease: Lease, claimed: Instant) -> Run {
        Run::start(self, lease, claimed, false)
    }

    /// A receiver that is woken by every change of an operation in this process from now on.
    pub(crate) fn watch(&self, operation_id: &str) -> watch::Receiver<()> {
        self.inner.watchers.subscribe(operation_id)
    }

    /// Runs something that `stop` waits for, whether or not its caller does.
    pub(crate) fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send + 'static> + Send + 'static,
    {
        // The log lines of the future belong to the request that asked for it.
        self.inner.tasks.spawn(future.in_current_span())
    }

    /// A token that is cancelled once nothing new is begun: requests that only wait should end.
    pub(crate) fn draining(&self) -> CancellationToken {
        self.inner.draining.clone()
    }

    /// A token that is cancelled once all work is to stop.
    pub(crate) fn stopping(&self) -> CancellationToken {
        self.inner.stopping.clone()
    }

    pub(crate) fn drain(&self) {
        self.inner.draining.cancel();
    }

    /// Stops all work that was started, to be resumed at the next start.
    pub(crate) async fn stop(&self) {
        self.inner.draining.cancel();
        self.inner.stopping.cancel();
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
    }

    /// Prunes the watchers of operations that nobody waits for any more.
    pub(crate) fn prune(&self) {
        self.inner.watchers.prune();
    }

    /// Works on a claimed operation in the background.
    fn drive(
        &self,
        lease: Lease,
        claimed: Instant,
        worker: Arc<dyn Worker>,
        slot: Option<OwnedSemaphorePermit>,
    ) {
        let run = Run::start(self, lease, claimed, slot.is_some());
        self.announce(&run.lease.operation_id);
        let (engine, span) = (self.clone(), run.span());
        let driven = async move {
            let stopping = engine.inner.stopping.clone();
            let ended = tokio::select! {
                ended = attempt(&run, &*worker) => ended,
                () = stopping.cancelled() => return engine.release(run).await,
            };
            if let Err(error) = engine.conclude(run, &*worker, ended).await {
                tracing::error!(%error, "how the operation ended was not recorded");
            }
            // The slot is released before the search goes on, which may need it.
            drop(slot);
            engine.wake();
        };
        self.inner.tasks.spawn(driven.instrument(span));
    }

    /// Brings a run to its end: recorded where it succeeded, else rescheduled (None) or rolled back and recorded.
    pub(crate) async fn conclude(
        &self,
        run: Run,
        worker: &dyn Worker,
        ended: Ended,
    ) -> Result<Option<Operation>> {
        let id = run.lease.operation_id.clone();
        let concluded = self.settle(&run, worker, ended).await;
        drop(run);
        self.announce(&id);
        concluded
    }

    async fn settle(
        &self,
        run: &Run,
        worker: &dyn Worker,
        ended: Ended,
    ) -> Result<Option<Operation>> {
        let lease = &run.lease;
        let failure = match ended {
            Ok(operation) => {
                tracing::info!("the operation succeeded");
                return Ok(Some(operation));
            }
            Err(_) if run.is_lost() => {
                let id = lease.operation_id.clone();
                return Err(Refusal::LeaseLost { id }.into());
            }
            Err(failure) => failure,
        };
        if lease.phase == Phase::Running && failure.transient && lease.attempt < MOST_ATTEMPTS {
            let pause = retry::pause(lease.attempt, rand::random());
            let store = &self.inner.store;
            let retry = Retry {
                lease: lease.clone(),
                failure: failure.clone(),
                pause,
                patience: retry::PATIENCE,
            };
            let again = self.insist(|| store.execute(retry.clone())).await?;
            if again {
                tracing::warn!(
                    ?pause,
                    error = failure.message,
                    "an attempt failed; there will be another"
                );
                run.end_heartbeat();
                worker.roll_back(lease).await;
                return Ok(None);
            }
        }
        self.roll_back(lease, worker, failure).await.map(Some)
    }

    async fn roll_back(
        &self,
        lease: &Lease,
        worker: &dyn Worker,
        failure: Failure,
    ) -> Result<Operation> {
        let store = &self.inner.store;
        let start = StartRollback {
            lease: lease.clone(),
            failure: failure.clone(),
        };
        let lease = match lease.phase {
            Phase::RollingBack => lease.clone(),
            _ => match store.execute(start).await {
                Ok(lease) => lease,
                // There may be room for the record once the bytes are gone.
                Err(error) if error.is_failure() => {
                    tracing::warn!(%error, "a failure was not noted before the rollback");
                    lease.clone()
                }
                Err(error) => return Err(error),
            },
        };
        worker.roll_back(&lease).await;
        let failure = lease.failure.clone().unwrap_or(failure);
        let rolled_back = RolledBack {
            lease,
            failure: failure.clone(),
        };
        let operation = self.insist(|| store.execute(rolled_back.clone())).await?;
        tracing::warn!(
            reason = failure.reason.as_str(),
            error = failure.message,
            "the operation failed"
        );
        Ok(operation)
    }

    /// Releases an operation because the process ends.
    async fn release(&self, run: Run) {
        if let Err(error) = self.inner.store.execute(Release(run.lease.clone())).await {
            tracing::warn!(%error, "an operation was not released");
        }
    }

    /// Repeats a step, with pauses, as long as the store fails: an accepted operation must end. A stop of the engine
    /// leaves the step to the next start.
    async fn insist<T, F>(&self, step: impl Fn() -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let mut pause = FIRST_PAUSE;
        loop {
            let error = match step().await {
                Err(error) if error.is_failure() => error,
                ended => return ended,
            };
            tracing::warn!(%error, "the store failed; trying again");
            tokio::select! {
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(LONGEST_PAUSE),
                () = self.inner.stopping.cancelled() => return Err(error),
            }
        }
    }

    /// Asks an operation to stop, and returns it as it now stands. An operation that runs here notices at
    /// once, one that runs elsewhere at its next heartbeat; one that runs nowhere is ended here.
    pub(crate) async fn cancel(
        &self,
        request: RequestContext,
        operation_id: &str,
        worker: Arc<dyn Worker>,
    ) -> Result<Operation> {
        let command = RequestCancel {
            request,
            operation_id: operation_id.to_owned(),
        };
        let requested = self.inner.store.execute(command).await?;
        let runs_here = match self.running().get(operation_id) {
            Some(running) => {
                running.signals.cancel();
                true
            }
            None => false,
        };
        if let Some(candidate) = requested.candidate.filter(|_| !runs_here) {
            // Ending an operation takes no slot. If it is not claimed here, since another worker has it or had it
            // until its end, the search for work claims it.
            let claimed = Instant::now();
            match self.claim(&candidate).await {
                Ok(Some(lease)) => self.drive(lease, claimed, worker, None),
                Ok(None) => {}
                Err(error) => tracing::warn!(
                    operation_id,
                    image_id = requested.operation.image_id,
                    folder_id = requested.operation.folder_id,
                    %error,
                    "a cancelled operation was not claimed"
                ),
            }
            self.wake();
        }
        Ok(requested.operation)
    }

    /// Stops the run of an operation that another request has ended, and wakes its watchers.
    pub(crate) fn lose(&self, operation_id: &str) {
        if let Some(running) = self.running().get(operation_id) {
            running.signals.lose();
        }
        self.announce(operation_id);
    }

    pub(super) fn announce(&self, operation_id: &str) {
        self.inner.watchers.announce(operation_id);
    }

    pub(super) fn enter(&self, lease: &Lease, signals: Arc<Signals>, has_slot: bool) {
        let running = Running {
            candidate: lease.candidate(),
            signals,
            has_slot,
        };
        self.running().insert(lease.operation_id.clone(), running);
    }

    /// Removes a run from those that run here. Another run of the same operation, entered since, stays.
    pub(super) fn leave(&self, lease: &Lease, signals: &Arc<Signals>) {
        let mut running = self.running();
        let entered = running.get(&lease.operation_id);
        if entered.is_some_and(|entered| Arc::ptr_eq(&entered.signals, signals)) {
            running.remove(&lease.operation_id);
        }
    }

    pub(super) fn store(&self) -> &dyn Store {
        &*self.inner.store
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.inner.settings
    }

    fn running(&self) -> MutexGuard<'_, HashMap<String, Running>> {
        self.inner
            .running
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// One attempt at what the phase of the operation asks for.
async fn attempt(run: &Run, worker: &dyn Worker) -> Ended {
    let lease = &run.lease;
    let last_failure = || lease.failure.clone();
    if lease.phase == Phase::RollingBack {
        return Err(last_failure().unwrap_or_else(Failure::cancelled));
    }
    if lease.cancel_requested {
        return Err(Failure::cancelled());
    }
    if lease.attempt > MOST_ATTEMPTS {
        return Err(last_failure().unwrap_or_else(|| {
            Failure::new(
                Reason::Aborted,
                format!("Given up after {MOST_ATTEMPTS} attempts that were cut short"),
            )
        }));
    }
    worker.run(run).await
}
