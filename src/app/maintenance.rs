//! Maintenance while a server runs: garbage collection, retention, room on the disk, and a fresh look at permissions.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Retention;
use crate::auth::{FRESHNESS, Identity};
use crate::ballast::Ballast;
use crate::images::Images;
use crate::operations::Engine;
use crate::store::{self, Store};

/// The interval between garbage collections, beside those that follow a tombstone at once.
const GARBAGE_COLLECTION_INTERVAL: Duration = Duration::from_secs(60);

/// The time for which a server that is silent keeps others from maintenance.
const MAINTENANCE_LEASE: Duration = GARBAGE_COLLECTION_INTERVAL.saturating_mul(2);

/// The interval between looks for room on the disk while it is short, and how many times as long it is otherwise.
const ROOM_INTERVAL: Duration = Duration::from_secs(1);
const LOOKS: u64 = 60;

/// The time for which a page token lives on after its last item was deleted or renamed.
const FORMER_NAMES: Duration = Duration::from_secs(24 * 60 * 60);

/// Expired rows that are pruned by one transaction, and the pause before the next ones.
const BATCH: usize = 200;
const BATCH_PAUSE: Duration = Duration::from_millis(20);

/// Reads anew what other processes may have changed of permissions and keys.
pub(super) async fn keep_fresh(identity: Identity, stop: CancellationToken) {
    let issuers = identity.clone();
    let issuers = tokio::spawn(async move { issuers.keep_issuers_fresh().await });
    loop {
        tokio::select! {
            () = tokio::time::sleep(FRESHNESS / 2) => {}
            () = stop.cancelled() => return issuers.abort(),
        }
        if let Err(error) = identity.refresh().await {
            tracing::warn!(%error, "permissions were not read anew; those read before stay");
        }
    }
}

/// Takes back the room that was given away on a full disk, once there is enough.
pub(super) async fn keep_room(ballast: Ballast, stop: CancellationToken) {
    let mut looks = 0;
    loop {
        tokio::select! {
            () = tokio::time::sleep(ROOM_INTERVAL) => looks += 1,
            () = stop.cancelled() => return,
        }
        // It may never have been made, for want of room.
        if ballast.is_given() || looks % LOOKS == 0 {
            let ballast = ballast.clone();
            if let Err(error) = tokio::task::spawn_blocking(move || ballast.take_back()).await {
                tracing::error!(%error, "room was not taken back");
            }
        }
    }
}

/// Removes, while the server runs, what nobody needs any more: one of all servers on a database does it at a time.
pub(super) async fn maintain(
    images: Images,
    engine: Engine,
    store: Arc<dyn Store>,
    retention: Retention,
    stop: CancellationToken,
) {
    let holder = uuid::Uuid::new_v4().to_string();
    let mut interval = tokio::time::interval(GARBAGE_COLLECTION_INTERVAL);
    loop {
        tokio::select! {
            _ = interval.tick() => {}
            () = stop.cancelled() => return,
        }
        engine.prune();
        match store.take_maintenance(&holder, MAINTENANCE_LEASE).await {
            Ok(true) => {}
            Ok(false) => continue,
            Err(error) => {
                tracing::warn!(%error, "nothing was pruned");
                continue;
            }
        }
        if let Err(error) = images.collect_garbage().await {
            tracing::warn!(%error, "blobs were not removed; the next garbage collection tries again");
        }
        if let Err(error) = store.prune_former_names(FORMER_NAMES).await {
            tracing::warn!(%error, "former names were not pruned");
        }
        tokio::select! {
            pruned = prune_expired(&*store, &retention) => if let Err(error) = pruned {
                tracing::warn!(%error, "expired operations and audit events were not pruned");
            },
            () = stop.cancelled() => return,
        }
    }
}

/// Prunes expired operations and audit events in small batches, between which others write.
async fn prune_expired(store: &dyn Store, retention: &Retention) -> store::Result<()> {
    while store.forget_operations(retention.operations, BATCH).await? > 0 {
        tokio::time::sleep(BATCH_PAUSE).await;
    }
    while store
        .forget_expired_identities(Duration::ZERO, BATCH)
        .await?
        > 0
    {
        tokio::time::sleep(BATCH_PAUSE).await;
    }
    while store
        .forget_audit_events(retention.audit_events, BATCH)
        .await?
        > 0
    {
        tokio::time::sleep(BATCH_PAUSE).await;
    }
    Ok(())
}
