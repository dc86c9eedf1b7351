//! Reading a blob of the local folder.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use super::Error;
use super::reader::{BlobReader, Checks, Judged};

/// An open file of a blob. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct LocalReader {
    file: Arc<File>,
    checks: Arc<Checks>,
}

#[async_trait]
impl BlobReader for LocalReader {
    async fn read(&self, range: Range<u64>) -> Result<Bytes, Error> {
        let reader = self.clone();
        tokio::task::spawn_blocking(move || reader.read_blocking(range))
            .await
            .map_err(io::Error::from)?
    }
}

impl LocalReader {
    pub(super) fn new(file: File, checks: Checks) -> Self {
        Self {
            file: Arc::new(file),
            checks: Arc::new(checks),
        }
    }

    fn read_blocking(&self, range: Range<u64>) -> Result<Bytes, Error> {
        let mut look = self.checks.look(&range);
        loop {
            let data = self.read_unchecked(&look.bytes)?;
            match self.checks.judge(&range, look, data.into())? {
                Judged::Sound(bytes) => return Ok(bytes),
                Judged::LookAgain(next) => look = next,
            }
        }
    }

    fn read_unchecked(&self, range: &Range<u64>) -> Result<Vec<u8>, Error> {
        let mut data = vec![0; (range.end - range.start) as usize];
        match self.file.read_exact_at(&mut data, range.start) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(Error::WrongSize {
                found: self.file.metadata()?.len(),
                size: self.checks.size,
            }),
            Err(error) => Err(Error::Unreadable {
                offset: range.start,
                error,
            }),
            Ok(()) => Ok(data),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use proptest::prelude::*;

    use super::super::checksums::{BLOCK, Summing};
    use super::super::reader::{PART, SoundBlocks, by_blocks};
    use super::*;

    /// A blob of two and a half blocks, with its bytes and its file.
    fn blob() -> (LocalReader, Vec<u8>, File) {
        let bytes: Vec<u8> = (0..BLOCK as usize * 5 / 2)
            .map(|at| (at / 7) as u8)
            .collect();
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&bytes, 0).unwrap();
        let mut summing = Summing::default();
        summing.data(&bytes);
        let reader = LocalReader::new(
            file.try_clone().unwrap(),
            Checks::new(
                "blob",
                bytes.len() as u64,
                Some(summing.finish()),
                SoundBlocks::default(),
            ),
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
                for part in by_blocks(range.clone()) {
                    read.extend(reader.read_blocking(part).unwrap());
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
                reader.read_blocking(small(BLOCK)).unwrap();
                reader.read_blocking(small(bad)).unwrap();
            }
            file.write_all_at(&[bytes[bad as usize] ^ 1], bad).unwrap();
            for range in [
                small(bad - 5),
                small(bad),
                bad..bad + 1,
                BLOCK..2 * BLOCK,
                small(BLOCK),
            ] {
                let refused = reader.read_blocking(range.clone()).unwrap_err();
                assert!(refused.is_damage(), "{range:?}: {refused}");
            }
            // The other blocks are as sound as they were.
            reader.read_blocking(0..BLOCK).unwrap();
            reader.read_blocking(small(2 * BLOCK)).unwrap();
        }
    }

    #[test]
    fn a_file_that_is_cut_while_it_is_read_is_damage() {
        let (reader, bytes, file) = blob();
        file.set_len(bytes.len() as u64 - 1).unwrap();
        let last = bytes.len() as u64;
        for range in [last - 1..last, 2 * BLOCK..2 * BLOCK + 1, 2 * BLOCK..last] {
            assert!(reader.read_blocking(range).unwrap_err().is_damage());
        }
        reader.read_blocking(0..BLOCK).unwrap();
    }
}
