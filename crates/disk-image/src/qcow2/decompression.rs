//! Compressed clusters are decompressed: several at a time, on two threads at most.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use super::codec::Codec;
use super::header::Header;
use crate::{FormatError, ReadAt, Stop};

/// Clusters are handed to a thread in groups of about this many bytes of the guest's disk.
const GROUP: u64 = 256 * 1024;

/// The data of one compressed cluster. In the order of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Data {
    pub(super) offset: u64,
    pub(super) length: u64,
    pub(super) guest_cluster: u64,
}

impl Data {
    /// Whether both are the same bytes, for whichever guest clusters.
    pub(super) fn is_same(&self, other: &Data) -> bool {
        (self.offset, self.length) == (other.offset, other.length)
    }
}

/// The source of the bytes of compressed clusters.
pub(super) trait Source: Sync {
    /// The bytes of those data, in the buffer or elsewhere.
    fn bytes<'a>(&'a self, data: &Data, buffer: &'a mut Vec<u8>) -> Result<&'a [u8], FormatError>;
}

/// Data that are in the content.
pub(super) struct Stored<'a, R: ?Sized>(pub(super) &'a R);

impl<R: ReadAt + Sync + ?Sized> Source for Stored<'_, R> {
    fn bytes<'a>(&'a self, data: &Data, buffer: &'a mut Vec<u8>) -> Result<&'a [u8], FormatError> {
        buffer.resize(usize::try_from(data.length).unwrap_or(usize::MAX), 0);
        self.0.read_exact_at(buffer, data.offset)?;
        Ok(buffer)
    }
}

/// Two threads' means to decompress, kept from one call to the next.
pub(super) struct Decompression {
    stop: Stop,
    cluster_size: u64,
    codecs: [Codec; 2],
    buffers: [Vec<u8>; 2],
    /// How many clusters have been decompressed.
    clusters: u64,
}

impl Decompression {
    pub(super) fn new(header: &Header, stop: Stop) -> Decompression {
        Decompression {
            stop,
            cluster_size: header.cluster_size(),
            codecs: [Codec::new(header), Codec::new(header)],
            buffers: Default::default(),
            clusters: 0,
        }
    }

    pub(super) fn clusters(&self) -> u64 {
        self.clusters
    }

    /// Decompresses all those data, on this thread and another.
    ///
    /// Errors: the damage of the first data that are damaged; [`FormatError::Stopped`].
    pub(super) fn run(&mut self, all: &[Data], source: &dyn Source) -> Result<(), FormatError> {
        let group = usize::try_from(GROUP / self.cluster_size)
            .unwrap_or_default()
            .max(1);
        let work = Work {
            all,
            source,
            stop: &self.stop,
            group,
            next: AtomicUsize::new(0),
            failed: AtomicUsize::new(usize::MAX),
            failure: Mutex::new(None),
        };
        let ([own, other], [own_buffer, other_buffer]) = (&mut self.codecs, &mut self.buffers);
        thread::scope(|scope| {
            if all.len() > group {
                let name = thread::Builder::new().name("decompression".to_owned());
                // Where there are no more threads, this one does it alone.
                let _ = name.spawn_scoped(scope, || work.take_part(other, other_buffer));
            }
            work.take_part(own, own_buffer);
        });
        self.clusters += all.len() as u64;
        let failure = work
            .failure
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        failure.map_or(Ok(()), |(_, error)| Err(error))
    }
}

/// State that the two threads share.
struct Work<'a> {
    all: &'a [Data],
    source: &'a dyn Source,
    stop: &'a Stop,
    group: usize,
    next: AtomicUsize,
    /// The lowest index of a failure: what comes after it is left.
    failed: AtomicUsize,
    failure: Mutex<Option<(usize, FormatError)>>,
}

impl Work<'_> {
    fn take_part(&self, codec: &mut Codec, buffer: &mut Vec<u8>) {
        loop {
            let start = self.next.fetch_add(self.group, Ordering::Relaxed);
            let end = start.saturating_add(self.group).min(self.all.len());
            let Some(group) = self.all.get(start..end).filter(|group| !group.is_empty()) else {
                return;
            };
            for (index, data) in (start..).zip(group) {
                if self.failed.load(Ordering::Relaxed) <= index {
                    return;
                }
                if self.stop.is_asked() {
                    return self.fail(0, FormatError::Stopped);
                }
                let checked = self.source.bytes(data, buffer).and_then(|bytes| {
                    let ended = codec.decompress(bytes);
                    ended.map_err(|fault| codec.damage(data.guest_cluster, bytes, fault))
                });
                if let Err(error) = checked {
                    return self.fail(index, error);
                }
            }
        }
    }

    fn fail(&self, index: usize, error: FormatError) {
        self.failed.fetch_min(index, Ordering::Relaxed);
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        if failure.as_ref().is_none_or(|(first, _)| index < *first) {
            *failure = Some((index, error));
        }
    }
}
