//! Writing one blob: the digest and the file are made side by side, each in a thread of its
//! own, so that a stream costs the slower of the two.

use std::fs::File;

use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::checksums::{Checksums, Summing};
use super::{Error, sparse::SparseFile};

/// The most chunks that wait, for the digest and for the file each.
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

/// A blob that is being written. Dropping it leaves a part of the file behind.
pub(crate) struct BlobWriter {
    to_digest: mpsc::Sender<Chunk>,
    to_file: mpsc::Sender<Chunk>,
    digest: JoinHandle<[u8; 32]>,
    file: JoinHandle<Result<(SparseFile, Summing), Error>>,
    folder: File,
}

impl BlobWriter {
    /// Must be called in a tokio runtime.
    pub(super) fn start(mut sparse: SparseFile, folder: File) -> Self {
        let (to_digest, mut for_digest) = mpsc::channel(QUEUE);
        let (to_file, mut for_file) = mpsc::channel(QUEUE);
        let digest = tokio::task::spawn_blocking(move || {
            let mut digest = Sha256::new();
            while let Some(chunk) = for_digest.blocking_recv() {
                update(&mut digest, &chunk);
            }
            digest.finalize().into()
        });
        let file = tokio::task::spawn_blocking(move || {
            // Of the bytes as they came, so that damage on their way to the disk is seen too.
            let mut summing = Summing::default();
            while let Some(chunk) = for_file.blocking_recv() {
                match chunk {
                    Chunk::Data(data) => {
                        summing.data(&data);
                        sparse.write(&data)?;
                    }
                    Chunk::Zeros(count) => {
                        summing.zeros(count);
                        sparse.write_zeros(count)?;
                    }
                }
            }
            Ok((sparse, summing))
        });
        Self {
            to_digest,
            to_file,
            digest,
            file,
            folder,
        }
    }

    /// Adds a chunk. False when the file takes no more: `finish` tells why.
    pub(crate) async fn write(&self, chunk: Chunk) -> bool {
        self.to_digest.send(chunk.clone()).await.is_ok() && self.to_file.send(chunk).await.is_ok()
    }

    /// Like `write`, for a thread that may block.
    pub(crate) fn write_blocking(&self, chunk: Chunk) -> bool {
        self.to_digest.blocking_send(chunk.clone()).is_ok()
            && self.to_file.blocking_send(chunk).is_ok()
    }

    /// Waits until the file and its name in the folder are on the disk.
    ///
    /// # Errors
    /// [`Error::Full`], [`Error::NoDescriptors`] or [`Error::Io`] of the first write or sync that failed.
    pub(crate) async fn finish(self) -> Result<Written, Error> {
        drop((self.to_digest, self.to_file));
        let (sparse, summing) = self.file.await.map_err(std::io::Error::from)??;
        let folder = self.folder;
        let synced = tokio::task::spawn_blocking(move || {
            let (size, stored_size) = sparse.finish()?;
            folder.sync_all()?;
            Ok::<_, Error>((size, stored_size))
        });
        let (size, stored_size) = synced.await.map_err(std::io::Error::from)??;
        Ok(Written {
            size,
            stored_size,
            sha256: self.digest.await.map_err(std::io::Error::from)?,
            checksums: summing.finish(),
        })
    }
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
