//! The layout of a blob in its object.
//!
//! An object that is as long as its blob is the blob, byte by byte: it is whole. Any other object is packed. It holds the
//! units of the blob, of 64 KiB each, that are not all zeros, one after the other, and then a map of where they belong.
//! So one object is all that there is of a blob, and no second one can be lost.
//!
//! The map has, for each block of 4 MiB, 64 bits that tell which of its units are stored, the lowest bit for the first
//! one. After these come 8 bytes of zeros where the object would have the length of the blob without them, the size of
//! the blob and of its stored bytes (64 bits each), a CRC-32C of all of the map before it, and a version. Numbers are
//! little-endian. 1 TiB has a map of 2 MiB.

use std::ops::Range;

use super::super::checksums::BLOCK;

/// The size in bytes of what is stored or left out as a whole; the last one of a blob may be shorter.
pub(crate) const UNIT: usize = 64 << 10;
const UNITS_OF_BLOCK: u64 = BLOCK / UNIT as u64;
const PADDING: usize = 8;
const VERSION: [u8; 4] = *b"DIM1";
/// Two sizes, the checksum and the version.
const FOOTER: usize = 24;

/// The layout of the objects that are written. Those of both are read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum BlobLayout {
    /// Without the units that are all zeros. A blob that has none is whole.
    #[default]
    Packed,
    /// Byte by byte, with all zeros.
    Whole,
}

/// The layout of one object.
#[derive(Debug, Clone)]
pub(super) enum Layout {
    /// The object is the blob.
    Whole,
    Packed(Map),
}

/// The units that are stored of a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Map {
    size: u64,
    object: u64,
    /// By block, which units are stored.
    blocks: Vec<u64>,
    /// By block, the offset in the object of its first stored unit.
    starts: Vec<u64>,
}

/// A map in the making.
#[derive(Debug, Default)]
pub(super) struct MapBuilder {
    blocks: Vec<u64>,
    units: u64,
    has_holes: bool,
}

impl MapBuilder {
    /// The length of the object of a blob of so many bytes at the most.
    pub(super) fn most(size: u64) -> u64 {
        size + 8 * size.div_ceil(BLOCK) + (PADDING + FOOTER) as u64
    }

    /// Notes whether the next unit is stored.
    pub(super) fn push(&mut self, is_stored: bool) {
        let (block, unit) = (self.units / UNITS_OF_BLOCK, self.units % UNITS_OF_BLOCK);
        if block == self.blocks.len() as u64 {
            self.blocks.push(0);
        }
        if let Some(bits) = self.blocks.last_mut() {
            *bits |= u64::from(is_stored) << unit;
        }
        self.has_holes |= !is_stored;
        self.units += 1;
    }

    /// The map, to be put behind the stored bytes; nothing where all units are stored.
    pub(super) fn finish(&self, size: u64, stored: u64) -> Vec<u8> {
        if !self.has_holes {
            return Vec::new();
        }
        let mut bytes = Vec::with_capacity(8 * self.blocks.len() + PADDING + FOOTER);
        bytes.extend(self.blocks.iter().flat_map(|bits| bits.to_le_bytes()));
        if stored + (bytes.len() + FOOTER) as u64 == size {
            bytes.extend([0; PADDING]);
        }
        bytes.extend(size.to_le_bytes());
        bytes.extend(stored.to_le_bytes());
        bytes.extend(crc32c::crc32c(&bytes).to_le_bytes());
        bytes.extend(VERSION);
        bytes
    }
}

impl Map {
    /// The lengths that the map of a blob of so many bytes may have.
    pub(super) fn lengths(blob: u64) -> [u64; 2] {
        let least = 8 * blob.div_ceil(BLOCK) + FOOTER as u64;
        [least, least + PADDING as u64]
    }

    /// The place of the map in an object of so many bytes that holds a blob of so many bytes. None where no map fits in.
    pub(super) fn place(object: u64, blob: u64) -> Option<Range<u64>> {
        let length = 8 * blob.div_ceil(BLOCK) + (PADDING + FOOTER) as u64;
        // Of an object that has a map of less padding and no stored bytes, all is read.
        let start = object.saturating_sub(length);
        (object >= length - PADDING as u64).then_some(start..object)
    }

    /// The map of a blob of so many bytes, from the bytes of its place. None where they are no sound map, or of another
    /// blob.
    pub(super) fn parse(bytes: &[u8], object: u64, blob: u64) -> Option<Self> {
        let count = usize::try_from(blob.div_ceil(BLOCK)).ok()?;
        // Without padding, the place begins with bytes that are not of the map.
        let whole = [8 * count + FOOTER, 8 * count + PADDING + FOOTER];
        whole.into_iter().find_map(|length| {
            let map = bytes.get(bytes.len().checked_sub(length)?..)?;
            Self::exact(map, count, object, blob)
        })
    }

    fn exact(map: &[u8], count: usize, object: u64, blob: u64) -> Option<Self> {
        let (rest, version) = map.split_last_chunk::<4>()?;
        let (sound, sum) = rest.split_last_chunk::<4>()?;
        let (before, stored) = sound.split_last_chunk::<8>()?;
        let (bits, size) = before.split_last_chunk::<8>()?;
        let stored = u64::from_le_bytes(*stored);
        if *version != VERSION
            || crc32c::crc32c(sound) != u32::from_le_bytes(*sum)
            || u64::from_le_bytes(*size) != blob
            || stored.checked_add(map.len() as u64) != Some(object)
        {
            return None;
        }
        let blocks: Vec<u64> = bits
            .as_chunks::<8>()
            .0
            .iter()
            .take(count)
            .map(|bits| u64::from_le_bytes(*bits))
            .collect();
        let mut found = Self {
            size: blob,
            object,
            starts: Vec::with_capacity(count),
            blocks,
        };
        let mut start = 0;
        for number in 0..count as u64 {
            found.starts.push(start);
            let block = number * BLOCK..blob.min((number + 1) * BLOCK);
            start += found.stored(&block);
        }
        (start == stored).then_some(found)
    }

    /// The length of the object, which this was read from.
    pub(super) fn object_length(&self) -> u64 {
        self.object
    }

    /// The bytes of memory that this takes.
    pub(super) fn weight(&self) -> usize {
        16 * self.blocks.len()
    }

    /// Where the stored bytes of a range lie in the object.
    pub(super) fn locate(&self, range: &Range<u64>) -> Range<u64> {
        let block = range.start / BLOCK * BLOCK;
        let start =
            self.starts[(range.start / BLOCK) as usize] + self.stored(&(block..range.start));
        start..start + self.stored(range)
    }

    /// Puts the stored bytes of a range where they belong. What is between them are zeros.
    pub(super) fn unpack(&self, range: &Range<u64>, mut stored: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; (range.end - range.start) as usize];
        let mut offset = range.start;
        while offset < range.end {
            let end = range.end.min((offset / UNIT as u64 + 1) * UNIT as u64);
            if self.has(offset) {
                let target = (offset - range.start) as usize..(end - range.start) as usize;
                let (unit, rest) = stored.split_at(target.len());
                bytes[target].copy_from_slice(unit);
                stored = rest;
            }
            offset = end;
        }
        bytes
    }

    /// Whether the unit with this offset is stored.
    fn has(&self, offset: u64) -> bool {
        let bits = self.blocks[(offset / BLOCK) as usize];
        bits >> (offset % BLOCK / UNIT as u64) & 1 == 1
    }

    /// The number of stored bytes of a range.
    fn stored(&self, range: &Range<u64>) -> u64 {
        let mut count = 0;
        let mut offset = range.start;
        while offset < range.end {
            let end = range.end.min((offset / UNIT as u64 + 1) * UNIT as u64);
            if self.has(offset) {
                count += end - offset;
            }
            offset = end;
        }
        count
    }

    /// The first stored area at or after an offset.
    pub(super) fn next_data(&self, offset: u64) -> Option<Range<u64>> {
        let unit = UNIT as u64;
        let mut start = offset;
        while start < self.size && !self.has(start) {
            let block = self.blocks[(start / BLOCK) as usize];
            start = match block {
                0 => (start / BLOCK + 1) * BLOCK,
                _ => (start / unit + 1) * unit,
            };
        }
        if start >= self.size {
            return None;
        }
        let mut end = start;
        while end < self.size && self.has(end) {
            end = (end / unit + 1) * unit;
        }
        Some(start..end.min(self.size))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// An object with a map of a blob whose units are stored or not.
    fn object(units: &[bool], size: u64) -> (Vec<u8>, Vec<u8>) {
        let (mut blob, mut object, mut map) = (Vec::new(), Vec::new(), MapBuilder::default());
        for (number, stored) in units.iter().enumerate() {
            let length = (size - blob.len() as u64).min(UNIT as u64) as usize;
            map.push(*stored);
            let byte = if *stored { number as u8 | 1 } else { 0 };
            blob.resize(blob.len() + length, byte);
            if *stored {
                object.resize(object.len() + length, byte);
            }
        }
        let stored = object.len() as u64;
        object.extend(map.finish(size, stored));
        (blob, object)
    }

    fn parsed(object: &[u8], blob: u64) -> Option<Map> {
        let length = object.len() as u64;
        let place = Map::place(length, blob)?;
        Map::parse(&object[place.start as usize..], length, blob)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn a_range_is_found_and_unpacked(
            units in prop::collection::vec(any::<bool>(), 1..150),
            last in 1..=UNIT as u64,
            ranges in prop::collection::vec((any::<prop::sample::Index>(), 1..3 * BLOCK), 1..5),
        ) {
            prop_assume!(units.contains(&false));
            let size = (units.len() as u64 - 1) * UNIT as u64 + last;
            let (blob, object) = object(&units, size);
            prop_assert_ne!(blob.len(), object.len());
            let map = parsed(&object, size).unwrap();
            for (start, length) in ranges {
                let start = start.index(size as usize) as u64;
                let end = size.min(start + length);
                let place = map.locate(&(start..end));
                let found = map.unpack(&(start..end), &object[place.start as usize..place.end as usize]);
                prop_assert!(found == blob[start as usize..end as usize]);
            }
            let mut offset = 0;
            while let Some(area) = map.next_data(offset) {
                prop_assert!(blob[offset as usize..area.start as usize].iter().all(|byte| *byte == 0));
                offset = area.end;
            }
            prop_assert!(blob[offset as usize..].iter().all(|byte| *byte == 0));
        }
    }

    #[test]
    fn an_object_with_a_map_never_has_the_length_of_its_blob() {
        // One unit is left out, of as many bytes as a map without padding has.
        let size = BLOCK + (8 * 2 + FOOTER) as u64;
        let units: Vec<bool> = (0..65).map(|unit| unit < 64).collect();
        let (blob, object) = object(&units, size);
        assert_eq!(object.len(), blob.len() + PADDING);
        assert!(parsed(&object, size).is_some());
    }

    #[test]
    fn a_damaged_map_is_none() {
        let (_, object) = object(&[true, false, true], 3 * UNIT as u64 - 5);
        let size = 3 * UNIT as u64 - 5;
        assert!(parsed(&object, size).is_some());
        assert!(parsed(&object, size + 1).is_none());
        assert!(parsed(&object[..object.len() - 1], size).is_none());
        assert!(parsed(&object[1..], size).is_none());
        assert!(parsed(&[], size).is_none());
        for at in 2 * UNIT..object.len() {
            let mut flipped = object.clone();
            flipped[at] ^= 4;
            assert!(parsed(&flipped, size).is_none(), "{at}");
        }
    }
}
