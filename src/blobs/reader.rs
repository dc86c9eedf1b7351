//! Reading a blob, each byte checked before it is given away.
//!
//! A read of most of a block reads the block and compares its checksum. A read of a smaller part does the
//! same, and keeps a checksum of each 64 KiB of the sound block: later reads of small parts, as QEMU makes
//! them, compare those and do not read the whole block again.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;

use super::Error;
use super::checksums::{BLOCK, Checksums};

/// The size in bytes of the parts of a sound block whose checksums are kept.
pub(super) const PART: u64 = 64 << 10;
/// Blocks whose parts are remembered: 16 GiB of blobs, in some 2 MiB of memory.
const REMEMBERED: usize = 4096;

/// A blob that is open for reading.
#[async_trait]
pub(crate) trait BlobReader: Send + Sync {
    /// The blocks that are best read by one call.
    fn blocks_at_once(&self) -> u64 {
        1
    }

    /// Reads a range, which is in that many blocks.
    ///
    /// # Errors
    /// [`Error::BadBlock`] where the bytes are not those that were written, [`Error::WrongSize`] where the blob is cut,
    /// [`Error::Missing`], [`Error::Unreadable`], [`Error::Unreachable`] and [`Error::Refused`].
    async fn read(&self, range: Range<u64>) -> Result<Bytes, Error>;
}

/// The parts of a range by the blocks that they are in.
pub(crate) fn by_blocks(range: Range<u64>) -> impl Iterator<Item = Range<u64>> {
    by_many_blocks(range, 1)
}

/// The parts of a range by the groups of so many blocks that they are in.
pub(crate) fn by_many_blocks(range: Range<u64>, blocks: u64) -> impl Iterator<Item = Range<u64>> {
    let length = blocks * BLOCK;
    let groups = range.start / length..range.end.div_ceil(length);
    groups
        .map(move |group| (group * length).max(range.start)..((group + 1) * length).min(range.end))
        .filter(|part| !part.is_empty())
}

/// The checks of one blob. Reads no bytes: it says which bytes to read ([`Look`]), and judges them.
#[derive(Debug)]
pub(super) struct Checks {
    id: Arc<str>,
    pub size: u64,
    /// The checksums of the blob; none for blobs that were written before there were checksums.
    checksums: Option<Checksums>,
    sound: SoundBlocks,
}

/// Bytes to read for a range that is wanted.
pub(super) struct Look {
    pub bytes: Range<u64>,
    against: Against,
}

enum Against {
    Nothing,
    /// Checksums of the parts of a block that was sound, from the first byte to read on.
    Parts(Vec<u32>),
    /// The checksum of the whole block.
    Block,
}

/// The outcome of a look.
pub(super) enum Judged {
    /// The bytes that are wanted.
    Sound(Bytes),
    /// More has to be read to decide.
    LookAgain(Look),
}

impl Checks {
    pub(super) fn new(
        id: &str,
        size: u64,
        checksums: Option<Checksums>,
        sound: SoundBlocks,
    ) -> Self {
        Self {
            id: id.into(),
            size,
            checksums,
            sound,
        }
    }

    /// The first look for a range, which is in one block.
    pub(super) fn look(&self, wanted: &Range<u64>) -> Look {
        if self.checksums.is_none() {
            return Look {
                bytes: wanted.clone(),
                against: Against::Nothing,
            };
        }
        let block = self.block(wanted);
        if wanted.end - wanted.start <= BLOCK / 2
            && let Some(parts) = self.sound.parts(&self.id, block.start)
        {
            let first = wanted.start / PART * PART;
            let last = wanted.end.next_multiple_of(PART).min(self.size);
            let number = ((first - block.start) / PART) as usize;
            let count = (last - first).div_ceil(PART) as usize;
            return Look {
                bytes: first..last,
                against: Against::Parts(parts.iter().skip(number).take(count).copied().collect()),
            };
        }
        Look {
            bytes: block,
            against: Against::Block,
        }
    }

    /// Judges the bytes of a look.
    ///
    /// # Errors
    /// [`Error::BadBlock`] where they are not those that were written.
    pub(super) fn judge(
        &self,
        wanted: &Range<u64>,
        look: Look,
        data: Bytes,
    ) -> Result<Judged, Error> {
        let start = look.bytes.start;
        let inside = (wanted.start - start) as usize..(wanted.end - start) as usize;
        match look.against {
            Against::Nothing => return Ok(Judged::Sound(data)),
            Against::Parts(parts) => {
                let found = data.chunks(PART as usize).map(crc32c::crc32c);
                // A part that differs says only that the block has changed: its own checksum decides.
                return Ok(if found.eq(parts) {
                    Judged::Sound(data.slice(inside))
                } else {
                    Judged::LookAgain(Look {
                        bytes: self.block(wanted),
                        against: Against::Block,
                    })
                });
            }
            Against::Block => self.check_blocks(start, &data)?,
        }
        if wanted.end - wanted.start > BLOCK / 2 {
            return Ok(Judged::Sound(data.slice(inside)));
        }
        let parts = data.chunks(PART as usize).map(crc32c::crc32c).collect();
        self.sound.remember(&self.id, start, parts);
        // A copy, so that a small part does not keep a whole block in memory.
        Ok(Judged::Sound(Bytes::copy_from_slice(&data[inside])))
    }

    /// Compares whole blocks, of which the first begins at `start`, with their checksums, if there are any.
    ///
    /// # Errors
    /// [`Error::BadBlock`] for the first that has other bytes than were written.
    pub(super) fn check_blocks(&self, start: u64, data: &[u8]) -> Result<(), Error> {
        let Some(checksums) = &self.checksums else {
            return Ok(());
        };
        for (start, block) in (start..)
            .step_by(BLOCK as usize)
            .zip(data.chunks(BLOCK as usize))
        {
            let checked = checksums.check(start, block);
            // A block that was sound may not be so any more.
            checked.inspect_err(|_| self.sound.remove(&self.id, start))?;
        }
        Ok(())
    }

    /// The block that a range begins in.
    fn block(&self, wanted: &Range<u64>) -> Range<u64> {
        let start = wanted.start / BLOCK * BLOCK;
        start..self.size.min(start + BLOCK)
    }

    /// The bytes to read for a range of several blocks: these blocks, or the range alone where there are no checksums.
    pub(super) fn blocks(&self, wanted: &Range<u64>) -> Range<u64> {
        if self.checksums.is_none() {
            return wanted.clone();
        }
        self.block(wanted).start..self.size.min(wanted.end.next_multiple_of(BLOCK))
    }
}

/// Checksums of the parts of blocks that were found sound, of as many blocks as are worth it.
#[derive(Debug, Clone, Default)]
pub(super) struct SoundBlocks {
    generations: Arc<Mutex<Generations>>,
}

/// Entries that are asked for move to the younger half; when that is full, the older one is dropped.
#[derive(Debug, Default)]
struct Generations {
    younger: HashMap<Key, Arc<[u32]>>,
    older: HashMap<Key, Arc<[u32]>>,
}

type Key = (Arc<str>, u64);

impl SoundBlocks {
    fn parts(&self, id: &Arc<str>, start: u64) -> Option<Arc<[u32]>> {
        let mut generations = self.lock();
        let key = (id.clone(), start);
        if let Some(parts) = generations.younger.get(&key) {
            return Some(parts.clone());
        }
        let parts = generations.older.remove(&key)?;
        generations.insert(key, parts.clone());
        Some(parts)
    }

    fn remember(&self, id: &Arc<str>, start: u64, parts: Arc<[u32]>) {
        self.lock().insert((id.clone(), start), parts);
    }

    fn remove(&self, id: &Arc<str>, start: u64) {
        let mut generations = self.lock();
        let key = (id.clone(), start);
        generations.younger.remove(&key);
        generations.older.remove(&key);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Generations> {
        self.generations
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Generations {
    fn insert(&mut self, key: Key, parts: Arc<[u32]>) {
        if self.younger.len() >= REMEMBERED / 2 {
            self.older = std::mem::take(&mut self.younger);
        }
        self.younger.insert(key, parts);
    }
}
