//! Reading a blob, each byte checked before it is given away.
//!
//! A read of most of a block reads the block and compares its checksum. A read of a smaller part does the
//! same, and keeps a checksum of each 64 KiB of the sound block: later reads of small parts, as QEMU makes
//! them, compare those and do not read the whole block again.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use super::Error;
use super::checksums::{BLOCK, Checksums};

/// The size in bytes of the parts of a sound block whose checksums are kept.
const PART: u64 = 64 << 10;
/// Blocks whose parts are remembered: 16 GiB of blobs, in some 2 MiB of memory.
const REMEMBERED: usize = 4096;

/// A blob that is open for reading. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct BlobReader {
    file: Arc<File>,
    id: Arc<str>,
    size: u64,
    /// The checksums of the blob; none for blobs that were written before there were checksums.
    checksums: Option<Arc<Checksums>>,
    sound: SoundBlocks,
}

impl BlobReader {
    pub(super) fn new(
        file: File,
        id: &str,
        size: u64,
        checksums: Option<Checksums>,
        sound: SoundBlocks,
    ) -> Self {
        Self {
            file: Arc::new(file),
            id: id.into(),
            size,
            checksums: checksums.map(Arc::new),
            sound,
        }
    }

    /// The parts of a range by the blocks that they are in.
    pub(crate) fn by_blocks(range: Range<u64>) -> impl Iterator<Item = Range<u64>> {
        let blocks = range.start / BLOCK..range.end.div_ceil(BLOCK);
        blocks
            .map(move |block| {
                (block * BLOCK).max(range.start)..((block + 1) * BLOCK).min(range.end)
            })
            .filter(|part| !part.is_empty())
    }

    /// Reads a range, which is in one block. Blocks.
    ///
    /// # Errors
    /// [`Error::BadBlock`] where the bytes are not those that were written, [`Error::WrongSize`] where the file is cut,
    /// and [`Error::Unreadable`].
    pub(crate) fn read(&self, range: Range<u64>) -> Result<Bytes, Error> {
        let Some(checksums) = &self.checksums else {
            return Ok(self.read_unchecked(range)?.into());
        };
        let start = range.start / BLOCK * BLOCK;
        let block = start..self.size.min(start + BLOCK);
        let wanted = |from: u64| (range.start - from) as usize..(range.end - from) as usize;
        let read_block = || {
            let data = self.read_unchecked(block)?;
            let checked = checksums.check(start, &data);
            // A block that was sound is not any more.
            checked.inspect_err(|_| self.sound.remove(&self.id, start))?;
            Ok::<_, Error>(data)
        };
        if range.end - range.start > BLOCK / 2 {
            let data = read_block()?;
            return Ok(Bytes::from(data).slice(wanted(start)));
        }
        if let Some(parts) = self.sound.parts(&self.id, start) {
            let first = range.start / PART * PART;
            let last = range.end.next_multiple_of(PART).min(self.size);
            let data = self.read_unchecked(first..last)?;
            let number = ((first - start) / PART) as usize;
            let found = data.chunks(PART as usize).map(crc32c::crc32c);
            if found.eq(parts
                .iter()
                .skip(number)
                .take(data.len().div_ceil(PART as usize))
                .copied())
            {
                return Ok(Bytes::from(data).slice(wanted(first)));
            }
            // A part that differs says only that the block has changed: its own checksum decides.
        }
        let data = read_block()?;
        let parts = data.chunks(PART as usize).map(crc32c::crc32c).collect();
        self.sound.remember(&self.id, start, parts);
        // A copy, so that a small part does not keep a whole block in memory.
        Ok(Bytes::copy_from_slice(&data[wanted(start)]))
    }

    fn read_unchecked(&self, range: Range<u64>) -> Result<Vec<u8>, Error> {
        let mut data = vec![0; (range.end - range.start) as usize];
        match self.file.read_exact_at(&mut data, range.start) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(Error::WrongSize {
                found: self.file.metadata()?.len(),
                size: self.size,
            }),
            Err(error) => Err(Error::Unreadable {
                offset: range.start,
                error,
            }),
            Ok(()) => Ok(data),
        }
    }
}

/// Checksums of the parts of blocks that were found sound, of as many blocks as are worth it.
#[derive(Debug, Clone, Default)]
pub(crate) struct SoundBlocks {
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use proptest::prelude::*;

    use super::super::checksums::Summing;
    use super::*;

    /// A blob of two and a half blocks, with its bytes and its file.
    fn blob() -> (BlobReader, Vec<u8>, File) {
        let bytes: Vec<u8> = (0..BLOCK as usize * 5 / 2)
            .map(|at| (at / 7) as u8)
            .collect();
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&bytes, 0).unwrap();
        let mut summing = Summing::default();
        summing.data(&bytes);
        let reader = BlobReader::new(
            file.try_clone().unwrap(),
            "blob",
            bytes.len() as u64,
            Some(summing.finish()),
            SoundBlocks::default(),
        );
        (reader, bytes, file)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]

        #[test]
        fn every_range_is_read_as_it_was_written(
            ranges in prop::collection::vec((0..BLOCK * 5 / 2, 1..=BLOCK), 1..6)
        ) {
            let (reader, bytes, _) = blob();
            for (start, length) in ranges {
                let range = start..(start + length).min(bytes.len() as u64);
                let mut read = Vec::new();
                for part in BlobReader::by_blocks(range.clone()) {
                    read.extend(reader.read(part).unwrap());
                }
                prop_assert!(read == bytes[range.start as usize..range.end as usize]);
            }
        }
    }

    #[test]
    fn bytes_that_changed_are_not_given_away_whatever_was_read_before() {
        let small = |at: u64| at..at + 10;
        for warm in [false, true] {
            let (reader, bytes, file) = blob();
            let bad = BLOCK + 3 * PART + 5;
            if warm {
                reader.read(small(BLOCK)).unwrap();
                reader.read(small(bad)).unwrap();
            }
            file.write_all_at(&[bytes[bad as usize] ^ 1], bad).unwrap();
            for range in [
                small(bad - 5),
                small(bad),
                bad..bad + 1,
                BLOCK..2 * BLOCK,
                small(BLOCK),
            ] {
                let refused = reader.read(range.clone()).unwrap_err();
                assert!(refused.is_damage(), "{range:?}: {refused}");
            }
            // The other blocks are as sound as they were.
            reader.read(0..BLOCK).unwrap();
            reader.read(small(2 * BLOCK)).unwrap();
        }
    }

    #[test]
    fn a_file_that_is_cut_while_it_is_read_is_damage() {
        let (reader, bytes, file) = blob();
        file.set_len(bytes.len() as u64 - 1).unwrap();
        let last = bytes.len() as u64;
        for range in [last - 1..last, 2 * BLOCK..2 * BLOCK + 1, 2 * BLOCK..last] {
            assert!(reader.read(range).unwrap_err().is_damage());
        }
        reader.read(0..BLOCK).unwrap();
    }
}
