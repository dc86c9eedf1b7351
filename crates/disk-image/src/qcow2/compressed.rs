//! Compressed clusters: where their data lie, which tables have some, and whether those at the end of the file are
//! whole.

use super::codec::Codec;
use super::fault::Fault;
use super::header::Header;
use crate::error::corrupt_qcow2;
use crate::read_at::{is_zero, read_up_to};
use crate::{FormatError, ReadAt};

const SECTOR: u64 = 512;

/// The position of the data of a compressed cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Descriptor {
    /// Of the first byte; aligned to nothing.
    pub(super) offset: u64,
    /// Sectors beyond the one that holds the first byte.
    additional_sectors: u64,
}

impl Descriptor {
    /// Reads an L2 entry that is marked as compressed. None where bits are set that must not be.
    pub(super) fn parse(entry: u64, cluster_bits: u32) -> Option<Descriptor> {
        let sector_bits = cluster_bits.checked_sub(8)?;
        let offset_bits = 62u32.checked_sub(sector_bits)?;
        let offset = entry & ((1 << offset_bits) - 1);
        let additional_sectors = (entry >> offset_bits) & ((1 << sector_bits) - 1);
        (offset >> 56 == 0).then_some(Descriptor {
            offset,
            additional_sectors,
        })
    }

    /// The end of the last sector. The data may end before.
    pub(super) fn end(self) -> u64 {
        (self.offset & !(SECTOR - 1)) + (self.additional_sectors + 1) * SECTOR
    }
}

/// Compressed clusters whose last sector is not wholly in the file.
///
/// QEMU counts compressed data in sectors and writes only the bytes, so that a file may rightly end inside of a
/// sector; `qemu-img convert` fills it up with zeros, other ways of writing do not. Such a file ends where the last data
/// end, be they data that were overwritten or discarded since; one that ends within zeros was cut.
#[derive(Default)]
pub(super) struct TailClusters {
    codec: Option<Codec>,
    found: u64,
    before_last_sector: u64,
    /// The end of the data that reach farthest.
    data_end: u64,
}

impl TailClusters {
    /// Checks that the data of a cluster which ends beyond the file are whole in it.
    pub(super) fn check_cluster<R: ReadAt + ?Sized>(
        &mut self,
        content: &R,
        header: &Header,
        guest_cluster: u64,
        descriptor: Descriptor,
    ) -> Result<(), FormatError> {
        let length = content.len();
        let truncated = || FormatError::Truncated {
            what: format!("the data of the compressed guest cluster {guest_cluster}"),
            needed: descriptor.end(),
            length,
        };
        if descriptor.end() != length.next_multiple_of(SECTOR) || descriptor.offset >= length {
            return Err(truncated());
        }
        // Data do not overlap, so that only one cluster can reach into the last sector from before it, and no more
        // can begin in that sector than it has bytes. This bounds the work.
        let last_sector = length & !(SECTOR - 1);
        self.found += 1;
        self.before_last_sector += u64::from(descriptor.offset < last_sector);
        if self.found > SECTOR || self.before_last_sector > 1 {
            return Err(corrupt_qcow2(
                "compressed clusters overlap in the last sector of the file".to_owned(),
            ));
        }
        // A descriptor spans two clusters at most.
        let available = usize::try_from(length - descriptor.offset).unwrap_or(usize::MAX);
        let data = read_up_to(content, descriptor.offset, available.min(1 << 23))?;
        let codec = self.codec.get_or_insert_with(|| Codec::new(header));
        let used = codec.decompress(&data).map_err(|fault| match fault {
            Fault::Incomplete { .. } => truncated(),
            fault => codec.damage(guest_cluster, &data, fault),
        })?;
        self.data_end = self.data_end.max(descriptor.offset + used as u64);
        Ok(())
    }

    /// Checks, after all clusters, that the file does not end within zeros behind their data.
    pub(super) fn check_end<R: ReadAt + ?Sized>(&self, content: &R) -> Result<(), FormatError> {
        let length = content.len();
        if self.found == 0 || self.data_end == length {
            return Ok(());
        }
        // The data end in the last sector, or in the one before.
        let behind = read_up_to(content, self.data_end, 2 * SECTOR as usize)?;
        if is_zero(&behind) {
            return Err(FormatError::Truncated {
                what: "the last sector of compressed data".to_owned(),
                needed: length.next_multiple_of(SECTOR),
                length,
            });
        }
        Ok(())
    }
}

/// A set of L2 tables, by their numbers in the L1 table.
#[derive(Debug, Default)]
pub(super) struct TableSet(Vec<u64>);

impl TableSet {
    pub(super) fn insert(&mut self, table: u64) {
        // An L1 table has at most 2^22 entries, which makes half a MiB.
        let Ok(word) = usize::try_from(table / 64) else {
            return;
        };
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        if let Some(word) = self.0.get_mut(word) {
            *word |= 1 << (table % 64);
        }
    }

    pub(super) fn contains(&self, table: u64) -> bool {
        let word = usize::try_from(table / 64)
            .ok()
            .and_then(|word| self.0.get(word));
        word.is_some_and(|word| word >> (table % 64) & 1 != 0)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
