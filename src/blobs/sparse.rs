//! A file written from start to end, in which all-zero blocks become holes.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Zeros are looked for in blocks of this many bytes.
pub const BLOCK: usize = 64 * 1024;

pub struct SparseFile {
    file: File,
    /// Where the next byte goes, the unfinished block not counted.
    position: u64,
    /// The start of a block whose rest has not come yet.
    unfinished: Vec<u8>,
    stored: u64,
}

impl SparseFile {
    pub fn new(file: File) -> Self {
        Self {
            file,
            position: 0,
            unfinished: Vec::with_capacity(BLOCK),
            stored: 0,
        }
    }

    pub fn write(&mut self, mut data: &[u8]) -> io::Result<()> {
        if !self.unfinished.is_empty() {
            let missing = BLOCK - self.unfinished.len();
            let (head, rest) = data.split_at(missing.min(data.len()));
            self.unfinished.extend_from_slice(head);
            data = rest;
            if self.unfinished.len() == BLOCK {
                self.write_unfinished()?;
            }
        }
        let (blocks, rest) = data.split_at(data.len() / BLOCK * BLOCK);
        self.write_blocks(blocks)?;
        self.unfinished.extend_from_slice(rest);
        Ok(())
    }

    pub fn write_zeros(&mut self, mut count: u64) -> io::Result<()> {
        static ZEROS: [u8; BLOCK] = [0; BLOCK];
        while count > 0 {
            if self.unfinished.is_empty() && count >= BLOCK as u64 {
                let blocks = count / BLOCK as u64 * BLOCK as u64;
                self.position += blocks;
                count -= blocks;
            } else {
                let part = count.min((BLOCK - self.unfinished.len()) as u64);
                self.write(&ZEROS[..part as usize])?;
                count -= part;
            }
        }
        Ok(())
    }

    /// Writes what is left and waits until the disk has all of it. Returns the size
    /// and the bytes stored, all-zero blocks not counted.
    pub fn finish(mut self) -> io::Result<(u64, u64)> {
        self.write_unfinished()?;
        self.file.set_len(self.position)?;
        self.file.sync_all()?;
        Ok((self.position, self.stored))
    }

    fn write_unfinished(&mut self) -> io::Result<()> {
        let block = std::mem::take(&mut self.unfinished);
        self.write_blocks(&block)?;
        self.unfinished = block;
        self.unfinished.clear();
        Ok(())
    }

    /// Writes runs of blocks that are not all zeros, and passes over the others.
    fn write_blocks(&mut self, data: &[u8]) -> io::Result<()> {
        let mut run_start = 0;
        let mut offset = 0;
        for block in data.chunks(BLOCK) {
            let end = offset + block.len();
            if is_zero(block) {
                self.write_run(&data[run_start..offset], run_start)?;
                run_start = end;
            }
            offset = end;
        }
        self.write_run(&data[run_start..], run_start)?;
        self.position += data.len() as u64;
        Ok(())
    }

    fn write_run(&mut self, run: &[u8], offset: usize) -> io::Result<()> {
        if !run.is_empty() {
            self.file.write_all_at(run, self.position + offset as u64)?;
            self.stored += run.len() as u64;
        }
        Ok(())
    }
}

/// Looks at 64 bytes at a time, which the compiler turns into vector instructions.
fn is_zero(block: &[u8]) -> bool {
    let (groups, rest) = block.as_chunks::<64>();
    groups
        .iter()
        .all(|group| group.iter().fold(0, |bits, byte| bits | byte) == 0)
        && rest.iter().all(|byte| *byte == 0)
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::fs::MetadataExt;

    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Piece {
        Zeros(usize),
        Same(u8, usize),
        HoleInSource(usize),
    }

    fn piece() -> impl Strategy<Value = Piece> {
        let length = 1..3 * BLOCK;
        prop_oneof![
            length.clone().prop_map(Piece::Zeros),
            (1..=255u8, length.clone()).prop_map(|(byte, length)| Piece::Same(byte, length)),
            length.prop_map(Piece::HoleInSource),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn what_is_read_is_what_was_written_and_zero_blocks_are_not_stored(
            pieces in prop::collection::vec(piece(), 0..6)
        ) {
            let mut path = tempfile::NamedTempFile::new().unwrap();
            let mut sparse = SparseFile::new(path.reopen().unwrap());
            let mut expected = Vec::new();
            for piece in pieces {
                match piece {
                    Piece::Zeros(length) => {
                        sparse.write(&vec![0; length]).unwrap();
                        expected.resize(expected.len() + length, 0);
                    }
                    Piece::Same(byte, length) => {
                        sparse.write(&vec![byte; length]).unwrap();
                        expected.resize(expected.len() + length, byte);
                    }
                    Piece::HoleInSource(length) => {
                        sparse.write_zeros(length as u64).unwrap();
                        expected.resize(expected.len() + length, 0);
                    }
                }
            }
            let (size, stored) = sparse.finish().unwrap();
            let mut read = Vec::new();
            path.read_to_end(&mut read).unwrap();
            prop_assert_eq!(size, expected.len() as u64);
            prop_assert!(read == expected);
            let nonzero: usize = expected
                .chunks(BLOCK)
                .filter(|block| block.iter().any(|byte| *byte != 0))
                .map(<[u8]>::len)
                .sum();
            prop_assert_eq!(stored, nonzero as u64);
            if nonzero == 0 {
                prop_assert_eq!(path.as_file().metadata().unwrap().blocks(), 0);
            }
        }
    }
}
