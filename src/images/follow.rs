//! The inspection of a blob while its bytes arrive, in a thread of its own.

use std::sync::Arc;

use disk_image::{Follower, FormatError, Inspection, Options, Stop};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::compute_images::LARGEST_DISK;
use super::failures::{blob_failure, internal};
use crate::blobs::{self, BlobStore, Chunk};
use crate::model::{Failure, Reason};

/// The most KiB that wait to be inspected: bytes that come while two threads decompress are taken in meanwhile.
const WAITING: u32 = 8 * 1024;
const INSTALLER_ADVICE: &str = "A server that was started with --allow-installer-images takes them";

/// A follower of the bytes that are written to a blob. Dropping it stops what it does.
pub(super) struct Following {
    chunks: mpsc::UnboundedSender<(Chunk, OwnedSemaphorePermit)>,
    room: Arc<Semaphore>,
    follower: JoinHandle<Follower>,
    stop: CancellationToken,
    _stop_when_dropped: DropGuard,
}

impl Following {
    /// Must be called in a tokio runtime.
    pub(super) fn start(stop: &CancellationToken) -> Self {
        let (chunks, mut arriving) = mpsc::unbounded_channel::<(Chunk, OwnedSemaphorePermit)>();
        let stop = stop.child_token();
        let asked = stop.clone();
        let follower = tokio::task::spawn_blocking(move || {
            let mut follower =
                Follower::new(Stop::when(move || asked.is_cancelled()), LARGEST_DISK);
            while !follower.is_idle()
                && let Some((chunk, room)) = arriving.blocking_recv()
            {
                match chunk {
                    Chunk::Data(data) => follower.data(&data),
                    Chunk::Zeros(count) => follower.zeros(count),
                }
                drop(room);
            }
            follower
        });
        Self {
            chunks,
            room: Arc::new(Semaphore::new(WAITING as usize)),
            follower,
            _stop_when_dropped: stop.clone().drop_guard(),
            stop,
        }
    }

    /// Takes the next bytes, and waits while too many are still to be looked at.
    pub(super) async fn write(&self, chunk: &Chunk) {
        if self.chunks.is_closed() {
            return;
        }
        let kibibytes = match chunk {
            Chunk::Data(data) => data.len().div_ceil(1024),
            Chunk::Zeros(_) => 1,
        };
        let needed = u32::try_from(kibibytes).map_or(WAITING, |needed| needed.min(WAITING));
        let room = self.room.clone().acquire_many_owned(needed);
        // Nobody closes the semaphore. A follower that wants no more has dropped its end of the channel, and what
        // waited in there with it.
        if let Ok(room) = room.await {
            let _ = self.chunks.send((chunk.clone(), room));
        }
    }

    /// Like `write`, for a thread that may block.
    pub(super) fn write_blocking(&self, chunk: &Chunk) {
        Handle::current().block_on(self.write(chunk));
    }

    /// Inspects the blob, once all of its bytes are written and were passed to the follower.
    pub(super) async fn inspect(
        self,
        blobs: &dyn BlobStore,
        id: &str,
        size: u64,
        accepted: Options,
    ) -> Result<Inspection, Failure> {
        drop(self.chunks);
        let follower = self.follower.await.map_err(|stopped| internal(&stopped))?;
        let blob = blobs.open_unchecked(id, size).await;
        let blob = blob.map_err(|error| blob_failure(&error))?;
        let inspected = tokio::task::spawn_blocking(move || follower.inspect(&*blob, accepted));
        match inspected.await.map_err(|stopped| internal(&stopped))? {
            Err(FormatError::Stopped) if self.stop.is_cancelled() => Err(Failure::cancelled()),
            Err(FormatError::Io(error)) => match error.downcast::<blobs::Error>() {
                Ok(told) => Err(blob_failure(&told)),
                Err(error) => Err(internal(&error).transient()),
            },
            Err(bad @ FormatError::InstallerImage { .. }) => {
                let message = format!("{bad}. {INSTALLER_ADVICE}");
                Err(Failure::new(Reason::Invalid, message))
            }
            Err(bad) => Err(Failure::new(Reason::Invalid, bad.to_string())),
            Ok(inspection) => Ok(inspection),
        }
    }
}
