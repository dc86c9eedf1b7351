//! An attempt at an operation: its lease, kept by a heartbeat, and whether it has to stop.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use tracing::{Instrument, Span};

use super::Engine;
use crate::model::rules::Renew;
use crate::model::{Lease, Progress, Refusal};
use crate::store::Error;

/// The interval at which progress is written at the most, and cancels by other processes are looked for.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// A run of an operation in this process. The lease is renewed as long as the run lives.
pub(crate) struct Run {
    pub lease: Lease,
    signals: Arc<Signals>,
    engine: Engine,
    /// The token that ends the heartbeat.
    ended: CancellationToken,
    span: Span,
}

/// The signals between an attempt and its heartbeat.
#[derive(Default)]
pub(super) struct Signals {
    stop: CancellationToken,
    lost: AtomicBool,
    progress: ProgressCounter,
}

impl Signals {
    pub(super) fn cancel(&self) {
        self.stop.cancel();
    }

    pub(super) fn lose(&self) {
        self.lost.store(true, Ordering::SeqCst);
        self.stop.cancel();
    }
}

/// The progress of an attempt; cheap to set.
#[derive(Debug, Clone, Default)]
pub(crate) struct ProgressCounter(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    done: AtomicU64,
    total: Mutex<Option<u64>>,
}

impl ProgressCounter {
    /// Sets the number of all bytes.
    pub(crate) fn set_total(&self, bytes: u64) {
        *self.0.total.lock().unwrap_or_else(PoisonError::into_inner) = Some(bytes);
    }

    /// Sets the number of bytes that are done.
    pub(crate) fn set_done(&self, bytes: u64) {
        self.0.done.store(bytes, Ordering::Relaxed);
    }

    fn read(&self) -> Progress {
        Progress {
            done: self.0.done.load(Ordering::Relaxed),
            total: *self.0.total.lock().unwrap_or_else(PoisonError::into_inner),
        }
    }
}

impl Run {
    /// Runs the heartbeat of a lease. `claimed` is a lower bound of when the lease was acquired.
    pub(super) fn start(engine: &Engine, lease: Lease, claimed: Instant, has_slot: bool) -> Self {
        let signals = Arc::new(Signals::default());
        if lease.cancel_requested {
            signals.cancel();
        }
        engine.enter(&lease, signals.clone(), has_slot);
        let ended = CancellationToken::new();
        // The span has the highest level, so that every line has its ids. It has no parent: a request that cancels
        // the operation is not the one that asked for it.
        let span = tracing::error_span!(
            parent: None,
            "operation",
            operation_id = lease.operation_id,
            image_id = lease.image_id,
            folder_id = lease.folder_id,
            request_id = lease.request_id,
            attempt = lease.attempt,
        );
        let heartbeat = heartbeat(engine.clone(), lease.clone(), signals.clone(), claimed);
        let heartbeat = ended.clone().run_until_cancelled_owned(heartbeat);
        tokio::spawn(heartbeat.instrument(span.clone()));
        Self {
            lease,
            signals,
            engine: engine.clone(),
            ended,
            span,
        }
    }

    /// A token that is cancelled once the attempt is to stop: the caller cancelled it, or the lease is lost.
    pub(crate) fn stop(&self) -> CancellationToken {
        self.signals.stop.clone()
    }

    pub(crate) fn progress(&self) -> ProgressCounter {
        self.signals.progress.clone()
    }

    /// The span for the log lines of the attempt.
    pub(crate) fn span(&self) -> Span {
        self.span.clone()
    }

    /// Whether another worker may have the operation by now.
    pub(super) fn is_lost(&self) -> bool {
        self.signals.lost.load(Ordering::SeqCst)
    }
}

impl Run {
    /// Ends the heartbeat: another worker may claim the operation once the lease is released or has run out.
    pub(super) fn end_heartbeat(&self) {
        self.ended.cancel();
        self.engine.leave(&self.lease, &self.signals);
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.end_heartbeat();
    }
}

/// Renews the lease until it is lost: to another worker, or because it could not be renewed in
/// time by this machine's own clock.
async fn heartbeat(engine: Engine, lease: Lease, signals: Arc<Signals>, claimed: Instant) {
    let length = engine.settings().lease;
    let (mut renewed, mut told_at, mut told) = (claimed, claimed, Progress::default());
    loop {
        tokio::time::sleep(HEARTBEAT.min(length / 3)).await;
        let mut progress = signals.progress.read();
        if told_at.elapsed() < HEARTBEAT {
            progress = told;
        }
        if progress != told || renewed.elapsed() >= (length / 3).min(HEARTBEAT) {
            let sent = Instant::now();
            let left = length.saturating_sub(renewed.elapsed());
            let renewal = engine.store().execute(Renew::new(&lease, length, progress));
            match tokio::time::timeout(left, renewal).await {
                Ok(Ok(now)) => {
                    renewed = sent;
                    if progress != told {
                        (told, told_at) = (progress, sent);
                        engine.announce(&lease.operation_id);
                    }
                    if now.cancel_requested {
                        signals.cancel();
                    }
                }
                Ok(Err(Error::Refused(Refusal::LeaseLost { .. }))) => {
                    tracing::warn!("the lease is lost");
                    return signals.lose();
                }
                Ok(Err(error)) => tracing::warn!(%error, "a lease was not renewed"),
                Err(_) => {}
            }
        }
        if renewed.elapsed() >= length {
            tracing::warn!("the lease was not renewed in time");
            return signals.lose();
        }
    }
}
