//! The tables of a qcow2 image, read entry by entry. Holes and zeros cost next to nothing: most tables are almost
//! empty, and a sparse file may have more of them than would ever be read.

use std::cell::Cell;

use crate::read_at::{PIECE, is_zero};
use crate::{FormatError, ReadAt, bytes};

/// An image whose tables are read. What was last learnt of its holes is kept.
pub(super) struct Tables<'a, R: ?Sized> {
    pub(super) content: &'a R,
    known: Cell<Known>,
}

/// From `hole` up to `data` all bytes are zero, and from there up to `end` they may be anything.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    hole: u64,
    data: u64,
    end: u64,
}

impl<'a, R: ReadAt + ?Sized> Tables<'a, R> {
    pub(super) fn new(content: &'a R) -> Tables<'a, R> {
        Tables {
            content,
            known: Cell::default(),
        }
    }

    /// The first byte at or after the offset that may be anything but zero, and where such bytes end.
    fn next_data(&self, offset: u64) -> (u64, u64) {
        let mut known = self.known.get();
        if offset < known.hole || offset >= known.end {
            let nothing = u64::MAX..u64::MAX;
            let data = self.content.next_data(offset).unwrap_or(nothing);
            known = Known {
                hole: offset,
                data: data.start,
                end: data.end,
            };
            self.known.set(known);
        }
        (known.data.max(offset), known.end)
    }

    /// Hands the part of an area that is not zero to `visit`, in pieces that begin at a multiple of 512 bytes from its
    /// start and end at another, or at its end: the place in the area, and the bytes.
    ///
    /// The area lies inside the content.
    pub(super) fn for_each_block(
        &self,
        offset: u64,
        size: u64,
        mut visit: impl FnMut(u64, &[u8]) -> Result<(), FormatError>,
    ) -> Result<(), FormatError> {
        let mut buffer = Vec::new();
        let mut at = 0;
        while at < size {
            let (data, data_end) = self.next_data(offset.saturating_add(at));
            at = at.max((data - offset) & !511);
            let end = data_end
                .saturating_sub(offset)
                .checked_next_multiple_of(512)
                .map_or(size, |end| end.min(size));
            if at >= end {
                break;
            }
            let length = usize::try_from(end - at).map_or(PIECE, |left| left.min(PIECE));
            buffer.resize(length, 0);
            self.content
                .read_exact_at(&mut buffer, offset.saturating_add(at))?;
            for (index, block) in buffer.chunks(512).enumerate() {
                if !is_zero(block) {
                    visit(at + index as u64 * 512, block)?;
                }
            }
            at += length as u64;
        }
        Ok(())
    }

    /// Hands the entries of a table that are not zero to `visit`: the index, and the N big-endian numbers of 64 bits.
    ///
    /// The table lies inside the content. Returns whether there was any.
    pub(super) fn for_each_entry<const N: usize>(
        &self,
        offset: u64,
        count: u64,
        mut visit: impl FnMut(u64, [u64; N]) -> Result<(), FormatError>,
    ) -> Result<bool, FormatError> {
        let size = 8 * N;
        let mut any = false;
        self.for_each_block(offset, count.saturating_mul(size as u64), |at, block| {
            any = true;
            let first = at / size as u64;
            for (entry, index) in block.chunks_exact(size).zip(first..) {
                let mut numbers = [0; N];
                for (number, position) in numbers.iter_mut().zip((0..).step_by(8)) {
                    *number = bytes::be_u64(entry, position);
                }
                if numbers != [0; N] {
                    visit(index, numbers)?;
                }
            }
            Ok(())
        })?;
        Ok(any)
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::ops::Range;

    use super::*;

    /// Zeros but for one area, which alone may be read.
    struct Sparse(Range<u64>, u64);

    impl ReadAt for Sparse {
        fn len(&self) -> u64 {
            self.1
        }
        fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
            let end = offset + buffer.len() as u64;
            assert!(offset + 512 > self.0.start && end < self.0.end + 512 && end <= self.1);
            for (byte, at) in buffer.iter_mut().zip(offset..) {
                *byte = u8::from(self.0.contains(&at));
            }
            Ok(())
        }
        fn next_data(&self, offset: u64) -> Option<Range<u64>> {
            (offset < self.0.end).then(|| self.0.start.max(offset)..self.0.end)
        }
    }

    #[test]
    fn entries_are_found_wherever_data_are_and_holes_are_never_read() {
        const SIZE: u64 = 1 << 40;
        for (data, table, count, expected) in [
            (800_000..800_008, 0, SIZE / 8, 100_000..100_001),
            (0..16, 0, SIZE / 8, 0..2),
            (
                SIZE - 8..SIZE,
                512,
                SIZE / 8 - 64,
                SIZE / 8 - 65..SIZE / 8 - 64,
            ),
            (4096..8192, 6144, 64, 0..64),
            (4096..300_000, 2048, 1 << 20, 256..37_244),
            (4096..8192, 8192, 64, 0..0),
            (4096..8192, 1024, 128, 0..0),
        ] {
            let content = Sparse(data.clone(), SIZE);
            let tables = Tables::new(&content);
            for _ in 0..2 {
                let mut found = Vec::new();
                let any = tables
                    .for_each_entry(table, count, |index, [number]| {
                        assert_eq!(number, 0x0101_0101_0101_0101);
                        found.push(index);
                        Ok(())
                    })
                    .unwrap();
                assert_eq!(found, expected.clone().collect::<Vec<_>>(), "{data:?}");
                assert_eq!(any, !expected.is_empty());
            }
        }
        let content = Sparse(800_000..800_008, SIZE);
        let mut found = Vec::new();
        Tables::new(&content)
            .for_each_entry(0, SIZE / 16, |index, pair: [u64; 2]| {
                found.push((index, pair));
                Ok(())
            })
            .unwrap();
        assert_eq!(found, [(50_000, [0x0101_0101_0101_0101, 0])]);
    }
}
