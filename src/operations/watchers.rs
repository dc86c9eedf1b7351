//! Watchers of operations, woken when an operation changes in this process.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

/// The watchers, by the id of their operation.
#[derive(Default)]
pub(super) struct Watchers(Mutex<HashMap<String, watch::Sender<()>>>);

impl Watchers {
    /// A receiver that is woken by every change of an operation from now on.
    pub(super) fn subscribe(&self, operation_id: &str) -> watch::Receiver<()> {
        self.lock()
            .entry(operation_id.to_owned())
            .or_default()
            .subscribe()
    }

    /// Wakes the watchers of an operation that has changed.
    pub(super) fn announce(&self, operation_id: &str) {
        let mut watchers = self.lock();
        if let Some(sender) = watchers.get(operation_id)
            && sender.send(()).is_err()
        {
            watchers.remove(operation_id);
        }
    }

    /// Prunes operations that nobody waits for any more.
    pub(super) fn prune(&self) {
        self.lock().retain(|_, sender| sender.receiver_count() > 0);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, watch::Sender<()>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
