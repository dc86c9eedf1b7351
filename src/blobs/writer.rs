//! Writing one blob: the digest is made in a thread of its own, beside the sink that stores the bytes, so that a stream
//! costs the slower of the two.

use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::Error;
use super::checksums::Checksums;

/// The most chunks that wait, for the digest and for the sink each.
const QUEUE: usize = 8;

/// The next bytes of a blob.
#[derive(Debug, Clone)]
pub(crate) enum Chunk {
    Data(Bytes),
    /// This many zeros.
    Zeros(u64),
}

/// Facts of a blob that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Written {
    /// Bytes.
    pub size: u64,
    /// Bytes, all-zero blocks not counted.
    pub stored_size: u64,
    pub sha256: [u8; 32],
    pub checksums: Checksums,
}

/// A part of what a sink is given.
pub(super) enum Step {
    Chunk(Chunk),
    /// Comes last, and only if the blob is whole.
    Finish,
}

/// Facts of bytes that a sink has stored.
pub(super) struct Stored {
    pub size: u64,
    pub stored_size: u64,
    pub checksums: Checksums,
}

/// A blob that is being written. Dropping it, also while it is finished, leaves at most a part of the blob behind.
pub(crate) struct BlobWriter {
    to_digest: mpsc::Sender<Chunk>,
    to_sink: mpsc::Sender<Step>,
    digest: JoinHandle<[u8; 32]>,
    sink: JoinHandle<Result<Stored, Error>>,
    abandon: DropGuard,
}

impl BlobWriter {
    /// `start_sink` starts the task that stores the bytes. It ends early where it takes no more of them. Where its
    /// steps end without [`Step::Finish`], its result is for nobody. The token tells at once that the writer was dropped.
    /// Must be called in a tokio runtime.
    pub(super) fn start(
        start_sink: impl FnOnce(
            mpsc::Receiver<Step>,
            CancellationToken,
        ) -> JoinHandle<Result<Stored, Error>>,
    ) -> Self {
        let abandoned = CancellationToken::new();
        let abandon = abandoned.clone().drop_guard();
        let (to_digest, mut for_digest) = mpsc::channel(QUEUE);
        let (to_sink, for_sink) = mpsc::channel(QUEUE);
        let digest = tokio::task::spawn_blocking(move || {
            let mut digest = Sha256::new();
            while let Some(chunk) = for_digest.blocking_recv() {
                update(&mut digest, &chunk);
            }
            digest.finalize().into()
        });
        Self {
            to_digest,
            to_sink,
            digest,
            sink: start_sink(for_sink, abandoned),
            abandon,
        }
    }

    /// Adds a chunk. False when the store takes no more: `finish` tells why.
    pub(crate) async fn write(&self, chunk: Chunk) -> bool {
        self.to_digest.send(chunk.clone()).await.is_ok()
            && self.to_sink.send(Step::Chunk(chunk)).await.is_ok()
    }

    /// Like `write`, for a thread that may block.
    pub(crate) fn write_blocking(&self, chunk: Chunk) -> bool {
        self.to_digest.blocking_send(chunk.clone()).is_ok()
            && self.to_sink.blocking_send(Step::Chunk(chunk)).is_ok()
    }

    /// Waits until the blob is stored for good.
    ///
    /// # Errors
    /// The error of the first write that failed, or of what makes the blob last: [`Error::Full`],
    /// [`Error::NoDescriptors`], [`Error::Unreachable`], [`Error::Refused`] or [`Error::Io`].
    pub(crate) async fn finish(self) -> Result<Written, Error> {
        drop(self.to_digest);
        // A sink that has ended early has an error to tell.
        let _ = self.to_sink.send(Step::Finish).await;
        let stored = self.sink.await.map_err(std::io::Error::from)??;
        self.abandon.disarm();
        Ok(Written {
            size: stored.size,
            stored_size: stored.stored_size,
            sha256: self.digest.await.map_err(std::io::Error::from)?,
            checksums: stored.checksums,
        })
    }
}

/// The error of a sink whose writer was dropped. Nobody reads it.
pub(super) fn abandoned() -> Error {
    Error::Io(std::io::ErrorKind::UnexpectedEof.into())
}

fn update(digest: &mut Sha256, chunk: &Chunk) {
    static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];
    match chunk {
        Chunk::Data(data) => digest.update(data),
        Chunk::Zeros(count) => {
            let mut left = *count;
            while left > 0 {
                let part = left.min(ZEROS.len() as u64);
                digest.update(&ZEROS[..part as usize]);
                left -= part;
            }
        }
    }
}
