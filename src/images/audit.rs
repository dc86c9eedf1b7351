//! Use cases of audit events: reading them, and following them.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::time::Duration;

use futures_util::Stream;
use futures_util::stream::try_unfold;

use super::permissions::Watchman;
use super::{Images, Result};
use crate::model::{AuditEvent, AuditQuery, RequestContext, Role};
use crate::store::Error;

/// The most events that a reader holds.
const PAGE: NonZeroUsize = NonZeroUsize::new(100).unwrap();
/// The interval at which readers that follow look for new events.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

impl Images {
    /// The events after the one of this sequence number, the oldest first, of one folder or of
    /// all. With `follow` the stream goes on as events happen.
    ///
    /// # Errors
    /// `Error::Store` with `Refusal::FolderDenied` or `Denied`. The stream ends with `Error::Store` of `Closed` when it follows and the server is about to stop.
    pub(crate) fn audit_events(
        &self,
        request: &RequestContext,
        folder_id: Option<String>,
        after: i64,
        follow: bool,
    ) -> Result<impl Stream<Item = Result<AuditEvent>> + Send + 'static> {
        let folder = folder_id.as_deref().unwrap_or_default();
        request.rights.demand_in(Role::Admin, folder)?;
        let reader = Reader {
            images: self.clone(),
            watchman: Watchman::new(request, Role::Admin, folder),
            query: AuditQuery {
                after,
                folder_id,
                limit: PAGE,
            },
            follow,
            page: VecDeque::new(),
        };
        Ok(try_unfold(reader, |mut reader| async move {
            let next = reader.next().await?;
            Ok(next.map(|event| (event, reader)))
        }))
    }
}

struct Reader {
    images: Images,
    watchman: Watchman,
    query: AuditQuery,
    follow: bool,
    page: VecDeque<AuditEvent>,
}

impl Reader {
    async fn next(&mut self) -> Result<Option<AuditEvent>> {
        let draining = self.images.engine.draining();
        loop {
            if let Some(event) = self.page.pop_front() {
                self.query.after = event.sequence;
                return Ok(Some(event));
            }
            // A stream that follows has no end of its own.
            if self.follow && draining.is_cancelled() {
                return Err(Error::Closed.into());
            }
            self.watchman.look().await?;
            let query = self.query.clone();
            let (page, seen) = self.images.store.audit_events(query).await?;
            self.page = page.into();
            if self.page.is_empty() {
                self.query.after = seen;
                if !self.follow {
                    return Ok(None);
                }
                tokio::select! {
                    () = tokio::time::sleep(LOOK_AGAIN) => {}
                    () = draining.cancelled() => {}
                }
            }
        }
    }
}
