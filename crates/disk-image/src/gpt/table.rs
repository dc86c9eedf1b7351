//! One copy of the table: a header, and the entries that it leads to.

use crate::error::{corrupt_gpt, require_inside};
use crate::partitions::{Area, find_overlap};
use crate::read_at::{for_each_piece, read_up_to};
use crate::{FormatError, ReadAt, bytes};

pub(super) const SIGNATURE: &[u8] = b"EFI PART";
const REVISION: u32 = 0x0001_0000;
const SMALLEST_HEADER: u64 = 92;
/// The standard asks for room for 16 KiB of entries; far more than any tool makes is still accepted.
const MAXIMUM_ENTRIES_BYTES: u64 = 16 * 1024 * 1024;
const MAXIMUM_ENTRY_SIZE: u32 = 4096;

/// A disk in sectors of one size.
pub(super) struct Disk<'a, R: ?Sized> {
    pub(super) content: &'a R,
    pub(super) sector: u64,
}

/// A partition that an entry describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Partition {
    number: u32,
    /// Type and identity, 16 bytes each.
    guids: [u8; 32],
    first: u64,
    last: u64,
}

/// A header and entries whose checksums are right. What they say of the disk is not checked yet.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) which: &'static str,
    pub(super) lba: u64,
    pub(super) alternate: u64,
    pub(super) first_usable: u64,
    pub(super) last_usable: u64,
    pub(super) entries_lba: u64,
    /// The sector after the entries.
    entries_end: u64,
    partitions: Vec<Partition>,
}

impl Table {
    /// Whether both describe the same partitions, in bytes.
    pub(super) fn has_partitions_of(&self, other: &Table, own: u64, others: u64) -> bool {
        let place = |partition: &Partition, sector: u64| {
            let end = partition.last.saturating_add(1).saturating_mul(sector);
            (partition.first.saturating_mul(sector), end)
        };
        self.partitions.len() == other.partitions.len()
            && self.partitions.iter().zip(&other.partitions).all(|(a, b)| {
                (a.number, a.guids) == (b.number, b.guids) && place(a, own) == place(b, others)
            })
    }
}

impl<R: ReadAt + ?Sized> Disk<'_, R> {
    /// The last sector of the disk that is whole.
    pub(super) fn last_sector(&self) -> u64 {
        (self.content.len() / self.sector).saturating_sub(1)
    }

    /// Whether a header seems to be in a sector.
    pub(super) fn has_signature(&self, lba: u64) -> Result<bool, FormatError> {
        let offset = lba.saturating_mul(self.sector);
        Ok(read_up_to(self.content, offset, SIGNATURE.len())? == SIGNATURE)
    }

    /// Reads the header at a sector, and its entries.
    pub(super) fn read(&self, lba: u64, which: &'static str) -> Result<Table, FormatError> {
        let offset = lba.saturating_mul(self.sector);
        require_inside(offset, self.sector, self.content.len(), || {
            format!("the {which} GPT header at sector {lba}")
        })?;
        let raw = read_up_to(
            self.content,
            offset,
            usize::try_from(self.sector).unwrap_or(0),
        )?;
        if !raw.starts_with(SIGNATURE) {
            return Err(corrupt_gpt(format!(
                "the {which} header at sector {lba} does not begin with the signature \"EFI PART\""
            )));
        }
        let revision = bytes::le_u32(&raw, 8);
        if revision != REVISION {
            return Err(corrupt_gpt(format!(
                "the {which} header has the revision {revision:#010x}, expected {REVISION:#010x}"
            )));
        }
        let size = u64::from(bytes::le_u32(&raw, 12));
        if !(SMALLEST_HEADER..=self.sector).contains(&size) {
            return Err(corrupt_gpt(format!(
                "the {which} header says that it has {size} bytes, expected {SMALLEST_HEADER} to {}",
                self.sector
            )));
        }
        // The checksum's own four bytes count as zero.
        let mut header = raw.clone();
        header.truncate(usize::try_from(size).unwrap_or(0));
        header.get_mut(16..20).unwrap_or_default().fill(0);
        if crc32fast::hash(&header) != bytes::le_u32(&raw, 16) {
            return Err(corrupt_gpt(format!(
                "the checksum of the {which} header is wrong"
            )));
        }
        let own_lba = bytes::le_u64(&raw, 24);
        if own_lba != lba {
            return Err(corrupt_gpt(format!(
                "the {which} header at sector {lba} says that it is at sector {own_lba}"
            )));
        }
        let (entry_count, entry_size) = (bytes::le_u32(&raw, 80), bytes::le_u32(&raw, 84));
        let entries_bytes = u64::from(entry_count) * u64::from(entry_size);
        if entry_size < 128
            || !entry_size.is_power_of_two()
            || entry_size > MAXIMUM_ENTRY_SIZE
            || entry_count == 0
            || entries_bytes > MAXIMUM_ENTRIES_BYTES
        {
            return Err(corrupt_gpt(format!(
                "{entry_count} entries of {entry_size} bytes: expected at least one, of 128 bytes times a power of \
                 two up to {MAXIMUM_ENTRY_SIZE}, and at most {MAXIMUM_ENTRIES_BYTES} bytes in all"
            )));
        }
        let entries_lba = bytes::le_u64(&raw, 72);
        if entries_lba < 2 {
            return Err(corrupt_gpt(format!(
                "its parts are out of order: the {which} entries begin at sector {entries_lba}, expected 2 or later"
            )));
        }
        let sectors = entries_bytes.div_ceil(self.sector);
        let mut table = Table {
            which,
            lba,
            alternate: bytes::le_u64(&raw, 32),
            first_usable: bytes::le_u64(&raw, 40),
            last_usable: bytes::le_u64(&raw, 48),
            entries_lba,
            entries_end: entries_lba.saturating_add(sectors),
            partitions: Vec::new(),
        };
        self.read_entries(
            &mut table,
            entries_bytes,
            entry_size,
            bytes::le_u32(&raw, 88),
        )?;
        Ok(table)
    }

    fn read_entries(
        &self,
        table: &mut Table,
        entries_bytes: u64,
        entry_size: u32,
        checksum: u32,
    ) -> Result<(), FormatError> {
        let which = table.which;
        let offset = table.entries_lba.saturating_mul(self.sector);
        require_inside(offset, entries_bytes, self.content.len(), || {
            format!("the {which} GPT entries")
        })?;
        let mut hasher = crc32fast::Hasher::new();
        let mut number = 0;
        let entry_size = usize::try_from(entry_size).unwrap_or(128);
        for_each_piece(self.content, offset, entries_bytes, |piece| {
            hasher.update(piece);
            // A piece is a whole number of entries: both are powers of two, and the piece is larger.
            for entry in piece.chunks_exact(entry_size) {
                number += 1;
                let Some(guids) = entry.first_chunk::<32>() else {
                    continue;
                };
                let unused = guids.iter().take(16).all(|byte| *byte == 0);
                if !unused {
                    table.partitions.push(Partition {
                        number,
                        guids: *guids,
                        first: bytes::le_u64(entry, 32),
                        last: bytes::le_u64(entry, 40),
                    });
                }
            }
            Ok(())
        })?;
        if hasher.finalize() != checksum {
            return Err(corrupt_gpt(format!(
                "the checksum of the {which} entries is wrong"
            )));
        }
        Ok(())
    }

    /// Checks what the primary table says of the disk: the order of its parts, and that no partition is cut or on
    /// another. Returns the partitions.
    pub(super) fn check(&self, table: &Table) -> Result<Vec<Area>, FormatError> {
        if table.entries_end > table.first_usable || table.first_usable > table.last_usable {
            return Err(corrupt_gpt(format!(
                "its parts are out of order: entries in sectors {} up to {}, usable sectors {} to {}",
                table.entries_lba, table.entries_end, table.first_usable, table.last_usable
            )));
        }
        let mut areas = Vec::new();
        for partition in &table.partitions {
            let Partition {
                number,
                first,
                last,
                ..
            } = *partition;
            if first > last || first < table.first_usable || last > table.last_usable {
                return Err(corrupt_gpt(format!(
                    "partition {number} has the sectors {first} to {last}, outside of the usable sectors {} to {}",
                    table.first_usable, table.last_usable
                )));
            }
            let end = last.saturating_add(1).saturating_mul(self.sector);
            require_inside(0, end, self.content.len(), || {
                format!("GPT partition {number}")
            })?;
            areas.push(Area {
                first,
                last,
                number,
            });
        }
        if let Some((left, right)) = find_overlap(&mut areas) {
            return Err(corrupt_gpt(format!(
                "partition {} (sectors {} to {}) and partition {} (sectors {} to {}) overlap",
                left.number, left.first, left.last, right.number, right.first, right.last
            )));
        }
        // Linux reads no such table.
        if table.last_usable > self.last_sector() {
            return Err(FormatError::GptBeyondDisk {
                last_usable: table.last_usable,
                last_sector: self.last_sector(),
            });
        }
        Ok(areas)
    }
}
