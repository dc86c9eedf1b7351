//! The watch of an operation, for callers that would else ask again and again.

use std::time::Duration;

use futures_util::Stream;
use futures_util::stream::try_unfold;

use super::permissions::{self, Watchman};
use super::{Images, Result};
use crate::model::{Operation, RequestContext, Role};
use crate::store::Error;

/// The interval at which the store is asked at the least: another process may have changed the operation.
const LONGEST_SILENCE: Duration = Duration::from_secs(1);

impl Images {
    /// The operation as it now stands, then each time it has changed, to its end.
    ///
    /// # Errors
    /// `Error::Store` with `Refusal::OperationNotFound`. The stream ends with `Error::Store` of `Closed` when the
    /// server is about to stop.
    pub(crate) async fn watch_operation(
        &self,
        request: &RequestContext,
        id: &str,
    ) -> Result<impl Stream<Item = Result<Operation>> + Send + 'static> {
        // The watch begins before the operation is read, so that no change is missed.
        let changes = self.engine.watch(id);
        let first = self.store.operation(id).await?;
        permissions::of_operation(request, &first)?;
        let images = self.clone();
        let state = Watch {
            images,
            watchman: Watchman::new(request, Role::Viewer, &first.folder_id),
            changes,
            last: None,
            next: Some(first),
        };
        Ok(try_unfold(state, |mut watch| async move {
            let next = watch.next().await?;
            Ok(next.map(|operation| (operation, watch)))
        }))
    }
}

struct Watch {
    images: Images,
    watchman: Watchman,
    changes: tokio::sync::watch::Receiver<()>,
    last: Option<Operation>,
    next: Option<Operation>,
}

impl Watch {
    async fn next(&mut self) -> Result<Option<Operation>> {
        if let Some(first) = self.next.take() {
            self.last = Some(first.clone());
            return Ok(Some(first));
        }
        let Some(last) = self.last.clone().filter(|last| !last.is_done()) else {
            return Ok(None);
        };
        let draining = self.images.engine.draining();
        loop {
            tokio::select! {
                _ = tokio::time::timeout(LONGEST_SILENCE, self.changes.changed()) => {}
                () = draining.cancelled() => return Err(Error::Closed.into()),
            }
            self.watchman.look().await?;
            let now = self.images.store.operation(&last.id).await?;
            if now != last {
                self.last = Some(now.clone());
                return Ok(Some(now));
            }
        }
    }
}
