//! The search of the engine for operations whose turn has come, and their claims.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::retry;
use super::super::worker::Worker;
use super::Engine;
use crate::model::rules::Claim;
use crate::model::{Candidate, Claimed, Lease, NextClaim, Occupied};
use crate::store::Result;

/// The longest sleep when nothing wakes the search.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);
/// The time for which an operation that cannot be claimed is not tried again.
const AVOIDED: Duration = Duration::from_secs(60);

impl Engine {
    pub(super) async fn look_for_work(self, worker: Arc<dyn Worker>) {
        let mut avoided = Vec::new();
        let draining = self.draining();
        while !draining.is_cancelled() {
            // Operations that only have to be ended need no slot.
            let slot = self.inner.slots.clone().try_acquire_owned().ok();
            match self.claim_next(slot.is_some(), &mut avoided).await {
                Ok(Ok((lease, claimed))) => self.drive(lease, claimed, worker.clone(), slot),
                Ok(Err(sleep)) => {
                    drop(slot);
                    tokio::select! {
                        () = self.inner.work.notified() => {}
                        () = self.inner.store.work() => {}
                        () = tokio::time::sleep(sleep) => {}
                        () = draining.cancelled() => {}
                    }
                }
                Err(error) => {
                    drop(slot);
                    tracing::warn!(%error, "the store was not asked for work; trying again");
                    let pause = tokio::time::sleep(LONGEST_SLEEP);
                    draining.run_until_cancelled(pause).await;
                }
            }
        }
    }

    /// The lease of the next operation, or the time to wait for one. An operation that cannot be claimed because
    /// its row is damaged is passed over for a while, so that it does not hold up all others.
    async fn claim_next(
        &self,
        has_slot: bool,
        avoided: &mut Vec<(Candidate, Instant)>,
    ) -> Result<std::result::Result<(Lease, Instant), Duration>> {
        avoided.retain(|(_, since)| since.elapsed() < AVOIDED);
        let occupied = self.occupied(has_slot, avoided);
        let store = &self.inner.store;
        let NextClaim { candidate, next_at } = store.next_claim(occupied, self.horizon()).await?;
        let Some(candidate) = candidate else {
            let until = next_at.map_or(i64::MAX, |at| at.0 - self.inner.store.now().0);
            let until = Duration::from_micros(u64::try_from(until).unwrap_or(0));
            // Never at once: what is due may not be claimable yet.
            let sleep = until.clamp(Duration::from_millis(1), LONGEST_SLEEP);
            return Ok(Err(sleep));
        };
        let claimed = Instant::now();
        let lease = self
            .claim(&candidate)
            .await
            .inspect_err(|_| avoided.push((candidate.clone(), claimed)))?;
        Ok(lease
            .map(|lease| (lease, claimed))
            .ok_or(Duration::from_millis(1)))
    }

    /// The operations that run here already.
    fn occupied(&self, has_slot: bool, avoided: &[(Candidate, Instant)]) -> Occupied {
        let running = self.running();
        let avoided = avoided.iter().map(|(candidate, _)| candidate.clone());
        let in_slots = running.values().filter(|it| it.has_slot);
        Occupied {
            held: running
                .values()
                .map(|it| it.candidate.clone())
                .chain(avoided)
                .collect(),
            in_slots: in_slots.map(|it| it.candidate.clone()).collect(),
            folder_limit: match has_slot {
                // One slot is always left for another folder.
                true => self.inner.settings.concurrency.saturating_sub(1).max(1),
                false => 0,
            },
        }
    }

    pub(super) async fn claim(&self, candidate: &Candidate) -> Result<Option<Lease>> {
        let claim = Claim {
            candidate: candidate.clone(),
            lease: self.inner.settings.lease,
            horizon: self.horizon(),
        };
        Ok(match self.inner.store.execute(claim).await? {
            Claimed::Lease(lease) => Some(*lease),
            Claimed::Gone => None,
            Claimed::Ended(operation) => {
                tracing::error!(
                    operation_id = operation.id,
                    image_id = operation.image_id,
                    folder_id = operation.folder_id,
                    "what the operation has to do is not known"
                );
                self.announce(&operation.id);
                None
            }
        })
    }

    /// The furthest that a time in the queue can lie ahead.
    fn horizon(&self) -> Duration {
        let settings = &self.inner.settings;
        settings
            .lease
            .max(settings.simulated_latency)
            .max(retry::LONGEST_PAUSE)
            .saturating_add(LONGEST_SLEEP)
    }
}
