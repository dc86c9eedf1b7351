//! The hold that a backup has on the blobs of a store.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::store::{Result, Store};

/// The lease of a hold: a backup that is killed keeps deleted blobs for no longer.
const LEASE: Duration = Duration::from_secs(60);
const RENEWALS: Duration = Duration::from_secs(15);

/// A hold that is renewed until it is ended.
pub(super) struct Hold {
    store: Arc<dyn Store>,
    id: String,
    lost: Arc<AtomicBool>,
    renewing: JoinHandle<()>,
}

impl Hold {
    pub(super) async fn place(store: Arc<dyn Store>) -> Result<Self> {
        let id = Uuid::new_v4().to_string();
        store.place_hold(&id, LEASE).await?;
        let lost = Arc::<AtomicBool>::default();
        let renewing = tokio::spawn(renew(store.clone(), id.clone(), lost.clone()));
        Ok(Self {
            store,
            id,
            lost,
            renewing,
        })
    }

    /// Tells whether the hold had run out once before it was renewed.
    pub(super) fn is_lost(&self) -> impl Fn() -> bool + Send + use<> {
        let lost = self.lost.clone();
        move || lost.load(Ordering::Acquire)
    }

    /// Ends the hold. Where that fails it runs out.
    pub(super) async fn end(self) {
        self.renewing.abort();
        if let Err(error) = self.store.end_hold(&self.id).await {
            tracing::warn!(%error, "the hold on deleted blobs was not ended, and will run out");
        }
    }
}

async fn renew(store: Arc<dyn Store>, id: String, lost: Arc<AtomicBool>) {
    loop {
        tokio::time::sleep(RENEWALS).await;
        match store.renew_hold(&id, LEASE).await {
            Ok(true) => {}
            Ok(false) => return lost.store(true, Ordering::Release),
            // The next renewal tells whether it came in time.
            Err(error) => tracing::warn!(%error, "the hold on deleted blobs was not renewed"),
        }
    }
}
