//! Uploads: compute images whose bytes come with the request.

use std::pin::pin;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use tracing::Instrument;

use super::compute_images::LARGEST_BLOB;
use super::failures::too_large;
use super::follow::Following;
use super::import::Target;
use super::permissions::Watchman;
use super::stated::StatedSha256;
use super::upload_slots::Slot;
use super::{Error, Images, Result};
use crate::blobs::{self, Chunk};
use crate::model::rules::{Accept, Supersede};
use crate::model::{
    Change, Failure, NewComputeImage, Operation, Origin, Reason, Refusal, RequestContext, Role,
    Start,
};
use crate::operations::{Ended, Run};
use crate::store;

/// The silence after which a body has ended: its sender is gone.
const LONGEST_SILENCE: Duration = Duration::from_secs(5 * 60);

/// The longest wait of a caller for a store that has no room for a record.
const LONGEST_RECORDING: Duration = Duration::from_secs(5);

/// The interval at which the store is asked how another upload ended, at the least.
const LONGEST_GLANCE: Duration = Duration::from_secs(1);

/// The longest wait of an upload for the slot of one that it has superseded.
const MAKING_ROOM: Duration = Duration::from_secs(5);

/// The upload that a request finds under its key.
enum First {
    None,
    /// An upload that made room.
    Superseded,
    /// An operation that is what the request asks for; also one that goes on, where the server stops or the
    /// caller waits no longer.
    Ended(Box<Operation>),
}

/// An upload as it was announced.
pub(crate) struct Upload<S> {
    pub new: NewComputeImage,
    /// The SHA-256 that the body must have, where the caller knows it.
    pub sha256: Option<StatedSha256>,
    /// The bytes that the body must have, where the caller announced them.
    pub length: Option<u64>,
    pub body: S,
}

/// A part of an upload, in the order of its coming.
#[derive(Debug)]
pub(crate) enum Piece {
    Data(Bytes),
    /// The SHA-256 that the bytes before it must have, known to the caller only at the end.
    Sha256(StatedSha256),
    /// The bytes before it do not have another digest that the caller stated; in words.
    OtherDigest(String),
}

/// The error of a body that broke off.
pub(crate) type UploadError = Box<dyn std::error::Error + Send + Sync>;

impl Images {
    /// Commits image and operation, then takes the body, and returns the operation when it has
    /// ended. Goes on to a clean end also when the caller is gone. A body that is refused or not
    /// taken to its end is dropped where it is. An upload that fails after it was accepted is no error: the operation
    /// that is returned has the failure.
    ///
    /// # Errors
    /// - [`Error::Busy`] where all slots are taken;
    /// - [`Error::Store`] with `Refusal::FolderDenied`, `NameTaken`, `QuotaExceeded` or `IdempotencyKeyReused`;
    /// - [`Error::Blobs`] with `Full` where there is no room to record the end.
    pub(crate) async fn upload_compute_image<S>(
        &self,
        request: RequestContext,
        upload: Upload<S>,
    ) -> Result<Operation>
    where
        S: Stream<Item = std::result::Result<Piece, UploadError>> + Send + 'static,
    {
        // A caller that hangs up drops this future, at any await; the spawned one goes on.
        request.rights.demand(Role::Editor, &upload.new.folder_id)?;
        let images = self.clone();
        self.engine
            .spawn(async move { images.accept_and_take(request, upload).await })
            .await
            .map_err(|stopped| blobs::Error::Io(stopped.into()))?
    }

    async fn accept_and_take<S>(
        &self,
        request: RequestContext,
        upload: Upload<S>,
    ) -> Result<Operation>
    where
        S: Stream<Item = std::result::Result<Piece, UploadError>> + Send,
    {
        let change = Change::CreateComputeImage {
            new: upload.new.clone(),
            origin: Origin::Upload,
        };
        let start = Start::Here(self.engine.settings().lease);
        let (slot, accepted_at, lease) = loop {
            // A repeat brings no bytes.
            let made_room = match self.first_upload(&request).await? {
                First::Ended(first) => return Ok(*first),
                First::Superseded => true,
                First::None => false,
            };
            // An upload that waits keeps a share of its connection, from which running uploads must read. So it
            // waits no longer than it takes to see whether one of those is too slow to keep its slot.
            let making_room = if made_room {
                MAKING_ROOM
            } else {
                Duration::ZERO
            };
            let slot = self.upload_slots.take(making_room).await;
            let slot = slot.ok_or(Error::Busy)?;
            let accepted_at = Instant::now();
            let accept = Accept {
                request: request.clone(),
                change: change.clone(),
                start,
            };
            let accepted = self.store.execute(accept).await?;
            match accepted.lease {
                Some(lease) => break (slot, accepted_at, *lease),
                // Another request came in between, under the same key.
                None if accepted.repeated => {}
                None => return Ok(accepted.operation),
            }
        };
        let run = self.engine.attend(lease, accepted_at);
        let latency = self.engine.settings().simulated_latency;
        let not_before = accepted_at.checked_add(latency).unwrap_or(accepted_at);
        let span = run.span();
        let done = async {
            let watchman = Watchman::new(&request, Role::Editor, &upload.new.folder_id);
            let ended = self.take(&run, &slot, upload, watchman, not_before).await;
            self.record(run, ended).await
        };
        done.instrument(span).await
    }

    /// The operation under the key of an upload. Where the key is tied to it, its end is waited for;
    /// an upload whose body still arrives is superseded, for its sender is likely to be gone.
    async fn first_upload(&self, request: &RequestContext) -> Result<First> {
        let draining = self.engine.draining();
        let mut found = First::None;
        while let Some(first) = self.store.repeated_operation(request).await? {
            if first.is_done() {
                return Ok(First::Ended(Box::new(first)));
            }
            // The watch begins before the operation is read again, so that no change is missed.
            let mut changes = self.engine.watch(&first.id);
            if let Some(id) = self.store.execute(Supersede(request.clone())).await? {
                tracing::info!(operation_id = id, "an upload is superseded by a retry");
                self.engine.lose(&id);
                self.collect_garbage_soon();
                found = First::Superseded;
                continue;
            }
            let now = self.store.operation(&first.id).await?;
            if now.is_done() {
                continue;
            }
            tokio::select! {
                _ = tokio::time::timeout(LONGEST_GLANCE, changes.changed()) => {}
                () = draining.cancelled() => return Ok(First::Ended(Box::new(now))),
                () = passed(request.deadline) => return Ok(First::Ended(Box::new(now))),
            }
        }
        Ok(found)
    }

    /// Records the end of an upload. Where the store has no room even for that, the engine goes on trying,
    /// but the caller gets the error.
    async fn record(&self, run: Run, ended: Ended) -> Result<Operation> {
        let images = self.clone();
        let id = run.lease.operation_id.clone();
        let no_room = matches!(&ended, Err(failure) if failure.reason == Reason::Exhausted);
        let recording = self
            .engine
            .spawn(async move { images.engine.conclude(run, &images, ended).await });
        match tokio::time::timeout(LONGEST_RECORDING, recording).await {
            Ok(Ok(Ok(Some(operation)))) => Ok(operation),
            // Another worker may have ended it.
            Ok(Ok(Ok(None) | Err(store::Error::Refused(Refusal::LeaseLost { .. })))) => {
                Ok(self.store.operation(&id).await?)
            }
            Ok(Ok(Err(error))) => Err(error.into()),
            Ok(Err(stopped)) => Err(blobs::Error::Io(stopped.into()).into()),
            Err(_) if no_room => Err(blobs::Error::Full.into()),
            Err(_) => Ok(self.store.operation(&id).await?),
        }
    }

    async fn take<S>(
        &self,
        run: &Run,
        slot: &Slot,
        upload: Upload<S>,
        watchman: Watchman,
        not_before: Instant,
    ) -> Ended
    where
        S: Stream<Item = std::result::Result<Piece, UploadError>> + Send,
    {
        // The body cannot be read again.
        let last = |failure: Failure| Failure {
            transient: false,
            ..failure
        };
        let writer = self
            .create_blob(&run.lease, upload.length)
            .await
            .map_err(last)?;
        let target = Target {
            following: Following::start(&run.stop()),
            writer,
        };
        let sha256 = self.read_body(&target, run, slot, upload, watchman).await?;
        let (stop, stopping) = (run.stop(), self.engine.stopping());
        tokio::select! {
            () = tokio::time::sleep_until(not_before.into()) => {}
            // The bytes are written, and would be lost.
            () = stopping.cancelled() => {}
            () = stop.cancelled() => return Err(Failure::cancelled()),
        }
        self.finish(&run.lease, target, sha256).await.map_err(last)
    }

    /// Writes the body, and returns the SHA-256 that it must have, if the caller named one.
    async fn read_body<S>(
        &self,
        target: &Target,
        run: &Run,
        slot: &Slot,
        upload: Upload<S>,
        mut watchman: Watchman,
    ) -> std::result::Result<Option<StatedSha256>, Failure>
    where
        S: Stream<Item = std::result::Result<Piece, UploadError>> + Send,
    {
        if upload.length.is_some_and(|length| length > LARGEST_BLOB) {
            return Err(too_large());
        }
        let (stop, stopping, progress) = (run.stop(), self.engine.stopping(), run.progress());
        if let Some(length) = upload.length {
            progress.set_total(length);
        }
        let mut body = pin!(upload.body);
        let mut sha256 = upload.sha256;
        let mut received = 0;
        let early = |received: u64| {
            let message = format!("The upload ended early, after {received} bytes");
            Failure::new(Reason::Aborted, message)
        };
        let mut evicted = pin!(slot.evicted());
        loop {
            slot.waits();
            let next = tokio::select! {
                next = tokio::time::timeout(LONGEST_SILENCE, body.next()) => next,
                () = &mut evicted => return Err(too_slow(received)),
                () = stop.cancelled() => return Err(Failure::cancelled()),
                () = stopping.cancelled() => return Err(early(received)),
            };
            if let Err(error) = watchman.look().await {
                return Err(no_longer_allowed(&error, received));
            }
            slot.received(match &next {
                Ok(Some(Ok(Piece::Data(data)))) => data.len(),
                _ => 0,
            });
            match next {
                Ok(Some(Ok(Piece::Data(data)))) => {
                    received += data.len() as u64;
                    progress.set_done(received);
                    if received > LARGEST_BLOB {
                        return Err(too_large());
                    }
                    let taken = tokio::select! {
                        taken = target.write(Chunk::Data(data)) => taken,
                        () = stop.cancelled() => return Err(Failure::cancelled()),
                    };
                    if !taken {
                        // The blob takes no more: finishing it tells why.
                        return Ok(None);
                    }
                }
                Ok(Some(Ok(Piece::Sha256(stated)))) => match sha256 {
                    Some(before) if before.value != stated.value => {
                        let message = format!(
                            "{}: states another sha-256 than {}",
                            stated.field, before.field
                        );
                        return Err(Failure::new(Reason::OtherDigest, message));
                    }
                    _ => sha256 = Some(stated),
                },
                Ok(Some(Ok(Piece::OtherDigest(message)))) => {
                    return Err(Failure::new(Reason::OtherDigest, message));
                }
                Ok(Some(Err(error))) => {
                    tracing::info!(%error, received, "an upload broke off");
                    return Err(early(received));
                }
                Ok(None) => break,
                Err(_) => {
                    tracing::info!(received, "an upload fell silent");
                    return Err(early(received));
                }
            }
        }
        match upload.length {
            Some(length) if length != received => Err(Failure::new(
                Reason::Aborted,
                format!("The body has {received} bytes, {length} were announced"),
            )),
            _ => Ok(sha256),
        }
    }
}

/// Returns once a deadline has passed, if there is one.
async fn passed(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

/// The failure of an upload whose sender was found to have lost the right to it.
fn no_longer_allowed(why: &Error, received: u64) -> Failure {
    let message = format!("The upload was stopped after {received} bytes: {why}");
    let reason = match why {
        Error::Unauthenticated => Reason::Unauthenticated,
        Error::Store(store::Error::Refused(_)) => Reason::PermissionDenied,
        _ => Reason::Aborted,
    };
    Failure::new(reason, message)
}

/// The failure of an upload whose slot another got.
fn too_slow(received: u64) -> Failure {
    let message = format!(
        "The upload was stopped after {received} bytes: it came too slowly while others waited; send it again"
    );
    Failure::new(Reason::Aborted, message)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use futures_util::stream;

    use super::super::UploadSettings;
    use super::*;
    use crate::blobs::LocalBlobs;
    use crate::model::{Outcome, Permissions, Rights, Standing, SystemClock};
    use crate::operations::{Engine, Settings};
    use crate::store::memory::MemoryStore;

    /// A viewer, who is no editor any more.
    fn without_roles() -> Rights {
        Rights::Granted {
            holders: ["token:a".to_owned()].into(),
            permissions: Arc::new(Permissions::new([])),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_upload_whose_right_is_lost_says_how() {
        for (lost, reason, words) in [
            (
                None,
                Reason::Unauthenticated,
                "Token is invalid or has expired.",
            ),
            (
                Some(without_roles()),
                Reason::PermissionDenied,
                "Permission denied to folder f",
            ),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let blobs = LocalBlobs::open(&folder.path().join("contents")).unwrap();
            let store = Arc::new(MemoryStore::new(Arc::new(SystemClock)));
            let engine = Engine::new(store.clone(), Settings::default());
            let images = Images::new(store, Arc::new(blobs), engine, None)
                .with_upload_settings(UploadSettings::default());
            let now = Arc::new(Mutex::new(Some(Rights::All)));
            let told = now.clone();
            let request = RequestContext {
                standing: Standing::new(move || {
                    Box::pin(std::future::ready(told.lock().unwrap().clone()))
                }),
                ..RequestContext::internal("token:a")
            };
            // Half a minute passes before each piece; the right is lost before the second one.
            let body = stream::iter(0..3).then(move |piece| {
                let (now, lost) = (now.clone(), lost.clone());
                async move {
                    tokio::time::advance(Duration::from_secs(31)).await;
                    if piece == 1 {
                        *now.lock().unwrap() = lost;
                    }
                    Ok(Piece::Data(Bytes::from_static(&[1; 512])))
                }
            });
            let upload = Upload {
                new: super::super::tests::new(),
                sha256: None,
                length: None,
                body,
            };
            let operation = images.upload_compute_image(request, upload).await.unwrap();
            let Some(Outcome::Failed(failure)) = operation.outcome else {
                panic!("{operation:?}");
            };
            assert_eq!(failure.reason, reason);
            let expected = format!("The upload was stopped after 512 bytes: {words}");
            assert_eq!(failure.message, expected);
        }
    }
}
