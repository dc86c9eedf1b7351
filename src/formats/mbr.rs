//! The master boot record: four entries, and the chain of logical partitions behind an extended one.

use super::error::{Structure, require_inside};
use super::partitions::{Area, find_overlap};
use super::raw::SECTOR;
use super::read_at::read_up_to;
use super::{FormatError, ReadAt, bytes};

/// The last two bytes of a boot record, read as little endian: 55 AA.
pub(super) const SIGNATURE: u16 = 0xAA55;

/// More logical partitions than any system numbers; what goes beyond is a loop or malice.
const MAXIMUM_LOGICAL: u32 = 256;

const PROTECTIVE: u8 = 0xEE;

/// One entry of a boot record.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    status: u8,
    kind: u8,
    start: u64,
    sectors: u64,
}

impl Entry {
    fn is_empty(self) -> bool {
        self.kind == 0
    }

    fn is_extended(self) -> bool {
        matches!(self.kind, 0x05 | 0x0F | 0x85)
    }
}

/// The four entries of a boot record.
#[derive(Clone, Copy, Debug)]
pub(super) struct Table {
    entries: [Entry; 4],
}

impl Table {
    /// Reads the entries of a sector of 512 bytes.
    pub(super) fn parse(sector: &[u8]) -> Table {
        let entries = [446, 462, 478, 494].map(|at| Entry {
            status: bytes::le_u16(sector, at).to_le_bytes()[0],
            kind: bytes::le_u16(sector, at + 4).to_le_bytes()[0],
            start: u64::from(bytes::le_u32(sector, at + 8)),
            sectors: u64::from(bytes::le_u32(sector, at + 12)),
        });
        Table { entries }
    }

    /// Whether this is a table at all and not boot code; says what speaks against it.
    pub(super) fn plausible(&self) -> Result<(), String> {
        for (number, entry) in (1..).zip(self.entries) {
            if !matches!(entry.status, 0x00 | 0x80) {
                return Err(format!(
                    "entry {number} of the boot record has the status {:#04x}, expected 0x00 or 0x80",
                    entry.status
                ));
            }
        }
        if self.entries.iter().all(|entry| entry.is_empty()) {
            return Err("the four entries of the boot record are empty".to_owned());
        }
        Ok(())
    }

    /// Whether the disk has a GPT: one entry only keeps old software away from it.
    pub(super) fn is_protective(&self) -> bool {
        self.entries.iter().any(|entry| entry.kind == PROTECTIVE)
    }

    /// Checks the entries that are not protective, in sectors of that size. Returns those that are extended.
    pub(super) fn check_entries(
        &self,
        sector_size: u64,
        length: u64,
    ) -> Result<Vec<Area>, FormatError> {
        let mut areas = Vec::new();
        let mut extended = Vec::new();
        for (number, entry) in (1..).zip(self.entries) {
            if entry.is_empty() || entry.kind == PROTECTIVE {
                continue;
            }
            if entry.start == 0 {
                return Err(corrupt(format!(
                    "partition {number} begins at sector 0, where the table itself is"
                )));
            }
            let area = area(entry.start, entry.sectors, number)?;
            require_inside(
                entry.start.saturating_mul(sector_size),
                entry.sectors.saturating_mul(sector_size),
                length,
                || format!("MBR partition {number}"),
            )?;
            areas.push(area);
            if entry.is_extended() {
                extended.push(area);
            }
        }
        refuse_overlap(&mut areas)?;
        Ok(extended)
    }
}

/// Checks the partitions of a disk that has an MBR only.
pub(super) fn check<R: ReadAt + ?Sized>(content: &R, table: &Table) -> Result<(), FormatError> {
    let extended = table.check_entries(SECTOR, content.len())?;
    let mut next_number = 5;
    for area in extended {
        check_logical(content, area, &mut next_number)?;
    }
    Ok(())
}

/// Follows the chain of boot records inside an extended partition. Each describes one logical partition, counted from
/// its own place, and the next record, counted from the start of the extended partition.
fn check_logical<R: ReadAt + ?Sized>(
    content: &R,
    extended: Area,
    next_number: &mut u32,
) -> Result<(), FormatError> {
    let mut areas = Vec::new();
    let mut record = extended.first;
    loop {
        let sector = read_up_to(content, record.saturating_mul(SECTOR), 512)?;
        // An extended partition that was made and never filled may have no record at all.
        if record == extended.first && sector.iter().all(|byte| *byte == 0) {
            return Ok(());
        }
        if bytes::le_u16(&sector, 510) != SIGNATURE {
            return Err(corrupt(format!(
                "the boot record of the extended partition {} at sector {record} does not end in the signature 55 AA",
                extended.number
            )));
        }
        areas.push(Area {
            first: record,
            last: record,
            number: *next_number,
        });
        let [partition, link, third, fourth] = Table::parse(&sector).entries;
        if !third.is_empty() || !fourth.is_empty() {
            return Err(corrupt(format!(
                "the boot record at sector {record} has more than the two entries of an extended boot record"
            )));
        }
        if !partition.is_empty() {
            let number = *next_number;
            let area = area(
                record.saturating_add(partition.start),
                partition.sectors,
                number,
            )?;
            if area.last > extended.last {
                return Err(corrupt(format!(
                    "the logical partition {number} ends at sector {}, after its extended partition at {}",
                    area.last, extended.last
                )));
            }
            areas.push(area);
            *next_number += 1;
        }
        if link.is_empty() {
            break;
        }
        record = extended.first.saturating_add(link.start);
        if !link.is_extended() || record > extended.last {
            return Err(corrupt(format!(
                "the chain of logical partitions leads to sector {record}, outside of the extended partition {}",
                extended.number
            )));
        }
        // Each round adds a record, so that a loop ends here, or as an overlap of a record with itself.
        if areas.len() as u64 > 2 * u64::from(MAXIMUM_LOGICAL) || *next_number > MAXIMUM_LOGICAL + 4
        {
            return Err(corrupt(format!(
                "the extended partition {} has more than {MAXIMUM_LOGICAL} logical partitions, or a loop of them",
                extended.number
            )));
        }
    }
    refuse_overlap(&mut areas)
}

fn area(start: u64, sectors: u64, number: u32) -> Result<Area, FormatError> {
    let Some(beyond_first) = sectors.checked_sub(1) else {
        return Err(corrupt(format!(
            "partition {number} has a type and no length; an unused entry is all zero"
        )));
    };
    Ok(Area {
        first: start,
        last: start.saturating_add(beyond_first),
        number,
    })
}

fn refuse_overlap(areas: &mut [Area]) -> Result<(), FormatError> {
    match find_overlap(areas) {
        None => Ok(()),
        Some((left, right)) if left.number == right.number => Err(corrupt(format!(
            "partition {} overlaps its own boot record at sector {}",
            left.number, right.first
        ))),
        Some((left, right)) => Err(corrupt(format!(
            "partition {} (sectors {} to {}) and partition {} (sectors {} to {}) overlap",
            left.number, left.first, left.last, right.number, right.first, right.last
        ))),
    }
}

fn corrupt(what: String) -> FormatError {
    FormatError::Corrupt {
        structure: Structure::Mbr,
        what,
    }
}
