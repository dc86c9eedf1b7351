//! Reading a blob of an object storage. Each read is a request of its own for some blocks at the most, so that no request
//! lasts as long as a download, and none waits for a slow client.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use disk_image::ReadAt;
use object_store::path::Path;
use tokio::runtime::Handle;

use super::super::Error;
use super::super::checksums::BLOCK;
use super::super::reader::{BlobReader, Checks, Judged, by_blocks};
use super::layout::Layout;
use super::storage::Storage;

/// An object that holds a blob. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Object {
    pub storage: Arc<Storage>,
    pub path: Path,
    pub size: u64,
    pub layout: Arc<Layout>,
}

impl Object {
    /// Reads a range of the blob.
    async fn read(&self, range: &Range<u64>) -> Result<Bytes, Error> {
        let Layout::Packed(map) = &*self.layout else {
            return self.fetch(range.clone()).await;
        };
        let stored = map.locate(range);
        if stored.is_empty() {
            return Ok(vec![0; (range.end - range.start) as usize].into());
        }
        let is_all = stored.end - stored.start == range.end - range.start;
        let stored = self.fetch(stored).await?;
        Ok(match is_all {
            true => stored,
            false => map.unpack(range, &stored).into(),
        })
    }

    /// Reads a range of the object.
    async fn fetch(&self, range: Range<u64>) -> Result<Bytes, Error> {
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let length = range.end - range.start;
        let read = self.storage.range(&self.path, &range).await?;
        match read.len() as u64 {
            found if found == length => Ok(read),
            found => Err(Error::WrongSize {
                found,
                size: length,
            }),
        }
    }
}

/// A blob that is open for checked reads.
pub(super) struct ObjectReader {
    pub object: Object,
    pub checks: Checks,
}

/// The blocks of one request, 16 MiB. A request takes work of the storage beside its bytes: with 4 MiB each, a download of
/// 4 GiB from a SeaweedFS 4.48 on the same two cores ran at 440 MiB/s and not at 800 (`scripts/bench-object-storage
/// throughput`, 2026-11-29).
const AT_ONCE: u64 = 4;

#[async_trait]
impl BlobReader for ObjectReader {
    fn blocks_at_once(&self) -> u64 {
        AT_ONCE
    }

    async fn read(&self, range: Range<u64>) -> Result<Bytes, Error> {
        let blocks = self.checks.blocks(&range);
        if blocks.end - blocks.start > BLOCK {
            let data = self.object.read(&blocks).await?;
            self.checks.check_blocks(blocks.start, &data)?;
            let wanted = range.start - blocks.start..range.end - blocks.start;
            return Ok(data.slice(wanted.start as usize..wanted.end as usize));
        }
        let mut look = self.checks.look(&range);
        loop {
            let data = self.object.read(&look.bytes).await?;
            match self.checks.judge(&range, look, data)? {
                Judged::Sound(bytes) => return Ok(bytes),
                Judged::LookAgain(next) => look = next,
            }
        }
    }
}

/// The bytes that are fetched for a read that goes on where no other ended.
const FIRST_WINDOW: u64 = 256 << 10;
/// The windows that are kept.
const WINDOWS: usize = 4;

/// A blob that is open for reads that block. It keeps what it fetched last: readers of formats read in small pieces.
pub(super) struct ObjectBytes {
    object: Object,
    runtime: Handle,
    windows: Mutex<VecDeque<(u64, Bytes)>>,
}

impl ObjectBytes {
    /// Must be called in a tokio runtime.
    pub(super) fn new(object: Object) -> Self {
        Self {
            object,
            runtime: Handle::current(),
            windows: Mutex::default(),
        }
    }

    /// Fetched bytes from an offset on, up to the end of their window.
    fn window(&self, offset: u64) -> io::Result<Bytes> {
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        let holds =
            |(start, data): &(u64, Bytes)| (*start..start + data.len() as u64).contains(&offset);
        if let Some((start, data)) = windows.iter().find(|window| holds(window)) {
            return Ok(data.slice((offset - start) as usize..));
        }
        let goes_on = offset == 0
            || windows
                .iter()
                .any(|(start, data)| start + data.len() as u64 == offset);
        let length = if goes_on { BLOCK } else { FIRST_WINDOW };
        let start = if goes_on {
            offset
        } else {
            offset / FIRST_WINDOW * FIRST_WINDOW
        };
        let end = self.object.size.min(start + length);
        let range = by_blocks(start..end).next().unwrap_or(start..end);
        let read = self.runtime.block_on(self.object.read(&range));
        let data = read.map_err(io::Error::other)?;
        if windows.len() == WINDOWS {
            windows.pop_front();
        }
        windows.push_back((start, data.clone()));
        Ok(data.slice((offset - start) as usize..))
    }
}

impl ReadAt for ObjectBytes {
    fn len(&self) -> u64 {
        self.object.size
    }

    fn read_exact_at(&self, mut buffer: &mut [u8], mut offset: u64) -> io::Result<()> {
        while !buffer.is_empty() {
            if offset >= self.object.size {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let window = self.window(offset)?;
            let count = window.len().min(buffer.len());
            let (now, later) = buffer.split_at_mut(count);
            now.copy_from_slice(&window[..count]);
            offset += count as u64;
            buffer = later;
        }
        Ok(())
    }

    fn next_data(&self, offset: u64) -> Option<Range<u64>> {
        match &*self.object.layout {
            Layout::Whole => (offset < self.object.size).then_some(offset..self.object.size),
            Layout::Packed(map) => map.next_data(offset),
        }
    }
}
