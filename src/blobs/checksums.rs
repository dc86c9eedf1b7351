//! Checksums of the blocks of a blob: CRC-32C, against damage and not against attack.
//!
//! Checksums are kept as bytes: a version, the size of a block as a power of two, the size of the blob
//! (64 bits), the checksums of its blocks (32 bits each), and a checksum of all of that. Numbers are
//! little-endian.
//!
//! The bytes are stored in the database beside the row of the blob, not in a file, so no second file can be lost. Equal
//! blobs have equal checksums, so the checksums stay true when an equal file takes the place of a damaged one.

use std::sync::LazyLock;

use super::Error;

/// The size of a block in bytes; the last block of a blob may be shorter.
pub(crate) const BLOCK: u64 = 1 << BLOCK_BITS;
const BLOCK_BITS: u8 = 22;
const VERSION: u8 = 1;
const HEADER: usize = 10;
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// The checksums of a whole blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Checksums {
    size: u64,
    blocks: Vec<u32>,
}

impl Checksums {
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER + 4 * (self.blocks.len() + 1));
        bytes.extend([VERSION, BLOCK_BITS]);
        bytes.extend(self.size.to_le_bytes());
        bytes.extend(self.blocks.iter().flat_map(|block| block.to_le_bytes()));
        bytes.extend(crc32c::crc32c(&bytes).to_le_bytes());
        bytes
    }

    /// The checksums of a blob of so many bytes; none where the bytes are damaged, or are of a
    /// version that is not known here.
    pub(crate) fn from_bytes(bytes: &[u8], size: u64) -> Option<Self> {
        let (rest, own) = bytes.split_last_chunk::<4>()?;
        let (header, blocks) = rest.split_first_chunk::<HEADER>()?;
        let [VERSION, BLOCK_BITS, length @ ..] = *header else {
            return None;
        };
        let (blocks, []) = blocks.as_chunks::<4>() else {
            return None;
        };
        let sound = crc32c::crc32c(rest) == u32::from_le_bytes(*own)
            && u64::from_le_bytes(length) == size
            && blocks.len() as u64 == size.div_ceil(BLOCK);
        sound.then(|| Self {
            size,
            blocks: blocks
                .iter()
                .map(|bytes| u32::from_le_bytes(*bytes))
                .collect(),
        })
    }

    /// Compares the bytes of the block that begins at `offset` with its checksum.
    ///
    /// # Errors
    /// [`Error::BadBlock`] where they differ.
    pub(crate) fn check(&self, offset: u64, block: &[u8]) -> Result<(), Error> {
        let number = usize::try_from(offset / BLOCK).unwrap_or(usize::MAX);
        if self.blocks.get(number) == Some(&crc32c::crc32c(block)) {
            Ok(())
        } else {
            Err(Error::BadBlock {
                offset,
                length: block.len() as u64,
            })
        }
    }

    /// The offsets of blocks that have other checksums than in `other`.
    pub(crate) fn differences(&self, other: &Self) -> Vec<u64> {
        let blocks = self.blocks.iter().zip(&other.blocks).enumerate();
        blocks
            .filter(|(_, (ours, theirs))| ours != theirs)
            .map(|(number, _)| number as u64 * BLOCK)
            .collect()
    }
}

/// Takes the checksums of bytes that come one after the other.
#[derive(Default)]
pub(crate) struct Summing {
    size: u64,
    /// The checksum so far of the incomplete block.
    current: u32,
    blocks: Vec<u32>,
}

impl Summing {
    pub(crate) fn data(&mut self, mut data: &[u8]) {
        while !data.is_empty() {
            let (part, rest) = data.split_at(data.len().min(self.left() as usize));
            self.current = crc32c::crc32c_append(self.current, part);
            self.advance(part.len() as u64);
            data = rest;
        }
    }

    pub(crate) fn zeros(&mut self, mut count: u64) {
        static BLOCK_OF_ZEROS: LazyLock<u32> = LazyLock::new(|| {
            let parts = BLOCK / ZEROS.len() as u64;
            (0..parts).fold(0, |sum, _| crc32c::crc32c_append(sum, &ZEROS))
        });
        while count > 0 {
            let part = if count >= BLOCK && self.size.is_multiple_of(BLOCK) {
                self.current = *BLOCK_OF_ZEROS;
                BLOCK
            } else {
                let part = count.min(self.left()).min(ZEROS.len() as u64);
                self.current = crc32c::crc32c_append(self.current, &ZEROS[..part as usize]);
                part
            };
            self.advance(part);
            count -= part;
        }
    }

    pub(crate) fn finish(mut self) -> Checksums {
        if !self.size.is_multiple_of(BLOCK) {
            self.blocks.push(self.current);
        }
        Checksums {
            size: self.size,
            blocks: self.blocks,
        }
    }

    /// The number of bytes that the incomplete block lacks.
    fn left(&self) -> u64 {
        BLOCK - self.size % BLOCK
    }

    fn advance(&mut self, count: u64) {
        self.size += count;
        if self.size.is_multiple_of(BLOCK) {
            self.blocks.push(self.current);
            self.current = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sums(bytes: &[u8]) -> Checksums {
        let mut summing = Summing::default();
        summing.data(bytes);
        summing.finish()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn pieces_and_zeros_give_the_checksums_of_the_whole(
            pieces in prop::collection::vec((any::<bool>(), 0..2 * BLOCK as usize + 9), 0..4)
        ) {
            let (mut whole, mut summing) = (Vec::new(), Summing::default());
            for (zeros, length) in pieces {
                if zeros {
                    summing.zeros(length as u64);
                    whole.resize(whole.len() + length, 0);
                } else {
                    let piece: Vec<u8> = (0..length).map(|at| at as u8 | 1).collect();
                    summing.data(&piece);
                    whole.extend(piece);
                }
            }
            let summed = summing.finish();
            prop_assert_eq!(&summed, &sums(&whole));
            for (number, block) in whole.chunks(BLOCK as usize).enumerate() {
                summed.check(number as u64 * BLOCK, block).unwrap();
            }
            let read = Checksums::from_bytes(&summed.to_bytes(), whole.len() as u64);
            prop_assert_eq!(read, Some(summed));
        }
    }

    #[test]
    fn a_flipped_bit_a_cut_and_a_block_beyond_the_end_are_seen() {
        let mut bytes = vec![7; BLOCK as usize + 5];
        let sums = sums(&bytes);
        bytes[BLOCK as usize] ^= 1;
        sums.check(0, &bytes[..BLOCK as usize]).unwrap();
        for (offset, block) in [
            (BLOCK, &bytes[BLOCK as usize..]),
            (0, &bytes[..BLOCK as usize - 1]),
            (2 * BLOCK, &[]),
        ] {
            let seen = sums.check(offset, block).unwrap_err();
            assert!(seen.is_damage(), "{seen}");
        }
    }

    #[test]
    fn damaged_checksums_are_none_rather_than_wrong() {
        let bytes = sums(&[7; 9]).to_bytes();
        assert!(Checksums::from_bytes(&bytes, 9).is_some());
        assert!(Checksums::from_bytes(&bytes, 10).is_none());
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 16;
            assert!(Checksums::from_bytes(&flipped, 9).is_none(), "{at}");
            assert!(Checksums::from_bytes(&bytes[..at], 9).is_none(), "{at}");
        }
    }
}
