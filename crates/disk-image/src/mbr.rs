//! The master boot record: four entries, and the chain of logical partitions behind an extended one.

use crate::error::{corrupt_mbr, require_inside};
use crate::partitions::{Area, find_overlap};
use crate::read_at::read_up_to;
use crate::{FormatError, PartitionScheme, PartitionTable, ReadAt, bytes};

/// The unit in which MBR tables count, and the least size of a disk.
pub(crate) const SECTOR: u64 = 512;

/// The last two bytes of a boot record, read as little endian: 55 AA.
pub(crate) const SIGNATURE: u16 = 0xAA55;

/// More logical partitions than any system numbers; what goes beyond is a loop or malice.
const MAXIMUM_LOGICAL: usize = 256;
/// The number of the first logical partition, whatever the other entries have.
const FIRST_LOGICAL: u32 = 5;

const PROTECTIVE: u8 = 0xEE;

/// One entry of a boot record.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
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
pub(crate) struct Table {
    entries: [Entry; 4],
}

impl Table {
    /// Reads the entries of a sector of 512 bytes.
    pub(crate) fn parse(sector: &[u8]) -> Table {
        let entries = [446, 462, 478, 494].map(|at| Entry {
            status: bytes::le_u16(sector, at).to_le_bytes()[0],
            kind: bytes::le_u16(sector, at + 4).to_le_bytes()[0],
            start: u64::from(bytes::le_u32(sector, at + 8)),
            sectors: u64::from(bytes::le_u32(sector, at + 12)),
        });
        Table { entries }
    }

    /// Whether this is a table at all and not boot code; says what speaks against it.
    pub(crate) fn plausible(&self) -> Result<(), String> {
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
    pub(crate) fn is_protective(&self) -> bool {
        self.entries.iter().any(|entry| entry.kind == PROTECTIVE)
    }

    /// Checks the entries that are not protective, in sectors of that size. Returns all of them, and those that are
    /// extended.
    pub(crate) fn check_entries(
        &self,
        sector_size: u64,
        length: u64,
    ) -> Result<(Vec<Area>, Vec<Area>), FormatError> {
        let mut areas = Vec::new();
        let mut extended = Vec::new();
        for (number, entry) in (1..).zip(self.entries) {
            if entry.is_empty() || entry.kind == PROTECTIVE {
                continue;
            }
            if entry.start == 0 {
                return Err(corrupt_mbr(format!(
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
        Ok((areas, extended))
    }
}

/// Checks the partitions of a disk that has an MBR only, and returns them.
pub(crate) fn check<R: ReadAt + ?Sized>(
    content: &R,
    table: &Table,
) -> Result<PartitionTable, FormatError> {
    let (mut areas, extended) = table.check_entries(SECTOR, content.len())?;
    let mut logical = Vec::new();
    for area in extended {
        check_logical(content, area, &mut logical)?;
    }
    areas.append(&mut logical);
    Ok(PartitionTable::new(PartitionScheme::Mbr, areas, SECTOR))
}

/// Follows the chain of boot records inside an extended partition. Each describes one logical partition, counted from
/// its own place, and the next record, counted from the start of the extended partition. Adds them to those of other
/// extended partitions.
fn check_logical<R: ReadAt + ?Sized>(
    content: &R,
    extended: Area,
    logical: &mut Vec<Area>,
) -> Result<(), FormatError> {
    let mut areas = Vec::new();
    let mut record = extended.first;
    loop {
        // There are not so many that the number would not fit.
        let number = FIRST_LOGICAL + logical.len() as u32;
        let sector = read_up_to(content, record.saturating_mul(SECTOR), 512)?;
        // An extended partition that was made and never filled may have no record at all.
        if record == extended.first && sector.iter().all(|byte| *byte == 0) {
            return Ok(());
        }
        if bytes::le_u16(&sector, 510) != SIGNATURE {
            return Err(corrupt_mbr(format!(
                "the boot record of the extended partition {} at sector {record} does not end in the signature 55 AA",
                extended.number
            )));
        }
        areas.push(Area {
            first: record,
            last: record,
            number,
        });
        let [partition, link, third, fourth] = Table::parse(&sector).entries;
        if !third.is_empty() || !fourth.is_empty() {
            return Err(corrupt_mbr(format!(
                "the boot record at sector {record} has more than the two entries of an extended boot record"
            )));
        }
        if !partition.is_empty() {
            let area = area(
                record.saturating_add(partition.start),
                partition.sectors,
                number,
            )?;
            if area.last > extended.last {
                return Err(corrupt_mbr(format!(
                    "the logical partition {number} ends at sector {}, after its extended partition at {}",
                    area.last, extended.last
                )));
            }
            areas.push(area);
            logical.push(area);
        }
        if link.is_empty() {
            break;
        }
        record = extended.first.saturating_add(link.start);
        if !link.is_extended() || record > extended.last {
            return Err(corrupt_mbr(format!(
                "the chain of logical partitions leads to sector {record}, outside of the extended partition {}",
                extended.number
            )));
        }
        // Each round adds a record, so that a loop ends here, or as an overlap of a record with itself.
        if areas.len() > 2 * MAXIMUM_LOGICAL || logical.len() >= MAXIMUM_LOGICAL {
            return Err(corrupt_mbr(format!(
                "the extended partition {} has more than {MAXIMUM_LOGICAL} logical partitions, or a loop of them",
                extended.number
            )));
        }
    }
    refuse_overlap(&mut areas)
}

fn area(start: u64, sectors: u64, number: u32) -> Result<Area, FormatError> {
    let Some(beyond_first) = sectors.checked_sub(1) else {
        return Err(corrupt_mbr(format!(
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
        Some((left, right)) if left.number == right.number => Err(corrupt_mbr(format!(
            "partition {} overlaps its own boot record at sector {}",
            left.number, right.first
        ))),
        Some((left, right)) => Err(corrupt_mbr(format!(
            "partition {} (sectors {} to {}) and partition {} (sectors {} to {}) overlap",
            left.number, left.first, left.last, right.number, right.first, right.last
        ))),
    }
}

#[cfg(test)]
mod tests {
    use crate::test_support::{MbrEntry, mbr, mbr_with_logical, put_boot_record};
    use crate::{Partition, PartitionScheme, inspect};

    const LINUX: u8 = 0x83;

    #[test]
    fn partitions_inside_the_disk_are_accepted() {
        let cases: [&[MbrEntry]; 5] = [
            &[(0x80, LINUX, 1, 199)],
            &[(0, LINUX, 199, 1)],
            &[(0, LINUX, 100, 10), (0x80, 0x07, 1, 99), (0, 0x82, 110, 90)],
            &[(0, 0, 0, 0), (0, 0, 0, 0), (0, 0, 0, 0), (0, LINUX, 1, 5)],
            // Made and never filled: there is no record in it.
            &[(0, LINUX, 1, 49), (0, 0x0F, 50, 100)],
        ];
        for entries in cases {
            let image = mbr(200, entries);
            let found = inspect(&image).unwrap_or_else(|error| panic!("{entries:?}: {error}"));
            assert_eq!(found.format, crate::Format::Raw);
            assert_eq!(found.virtual_size, 200 * 512);
        }
        inspect(&mbr_with_logical()).unwrap();
    }

    #[test]
    fn partitions_are_told_in_bytes_and_in_the_order_of_their_numbers() {
        let entries = [(0, LINUX, 150, 50), (0, 0, 0, 0), (0x80, 0x07, 1, 49)];
        for (image, expected) in [
            (mbr(200, &entries), &[(1, 150, 50), (3, 1, 49)][..]),
            (
                mbr_with_logical(),
                &[(1, 1, 49), (2, 50, 100), (5, 51, 29), (6, 101, 49)],
            ),
        ] {
            let table = inspect(&image).unwrap().partition_table.unwrap();
            assert_eq!(table.scheme, PartitionScheme::Mbr);
            let partition = |&(number, first, sectors): &(u32, u64, u64)| Partition {
                number,
                offset: first * 512,
                size: sectors * 512,
            };
            let expected: Vec<Partition> = expected.iter().map(partition).collect();
            assert_eq!(table.partitions, expected);
        }
    }

    #[test]
    fn tables_that_contradict_themselves_are_refused() {
        let cases: [(&str, &[MbrEntry]); 8] = [
            ("no partition table: expected MBR or GPT", &[]),
            (
                "entry 2 of the boot record has the status 0x20",
                &[(0, LINUX, 1, 9), (0x20, LINUX, 10, 5)],
            ),
            ("partition 1 begins at sector 0", &[(0, LINUX, 0, 10)]),
            (
                "partition 2 has a type and no length",
                &[(0, LINUX, 1, 10), (0, LINUX, 50, 0)],
            ),
            (
                "partition 2 (sectors 1 to 50) and partition 1 (sectors 50 to 59) overlap",
                &[(0, LINUX, 50, 10), (0, LINUX, 1, 50)],
            ),
            (
                "truncated: MBR partition 1 would end at byte 102912",
                &[(0, LINUX, 1, 200)],
            ),
            (
                "truncated: MBR partition 3",
                &[(0, 0, 0, 0), (0, 0, 0, 0), (0, LINUX, u32::MAX, u32::MAX)],
            ),
            (
                "truncated: the GPT header that the protective MBR announces",
                &[(0, 0xEE, 1, 9)],
            ),
        ];
        for (expected, entries) in cases {
            let sectors = if expected.contains("announces") {
                10
            } else {
                200
            };
            let message = inspect(&mbr(sectors, entries)).unwrap_err().to_string();
            assert!(
                message.contains(expected),
                "expected {expected:?} in {message:?}"
            );
        }
    }

    #[test]
    fn chains_of_logical_partitions_must_be_sound() {
        type Damage = fn(&mut Vec<u8>);
        let cases: [(&str, Damage); 9] = [
            ("sector 50 does not end in the signature 55 AA", |image| {
                image[50 * 512 + 510] = 0
            }),
            ("sector 100 does not end in the signature 55 AA", |image| {
                image[100 * 512 + 511] = 0
            }),
            (
                "the logical partition 6 ends at sector 150, after its extended partition at 149",
                |image| {
                    put_boot_record(image, 100, &[(0, LINUX, 1, 50)]);
                },
            ),
            ("partition 5 has a type and no length", |image| {
                put_boot_record(image, 50, &[(0, LINUX, 1, 0)]);
            }),
            (
                "partition 5 (sectors 51 to 100) and partition 6 (sectors 100 to 100) overlap",
                |image| {
                    put_boot_record(image, 50, &[(0, LINUX, 1, 50)]);
                },
            ),
            ("partition 5 overlaps its own boot record", |image| {
                put_boot_record(image, 50, &[(0, LINUX, 0, 5)]);
            }),
            (
                "leads to sector 150, outside of the extended partition 2",
                |image| {
                    put_boot_record(image, 50, &[(0, LINUX, 1, 29), (0, 0x05, 100, 50)]);
                },
            ),
            ("more than 256 logical partitions, or a loop", |image| {
                put_boot_record(image, 100, &[(0, LINUX, 1, 49), (0, 0x05, 50, 50)]);
            }),
            ("more than the two entries", |image| {
                put_boot_record(
                    image,
                    50,
                    &[(0, LINUX, 1, 29), (0, 0, 0, 0), (0, LINUX, 31, 2)],
                );
            }),
        ];
        for (expected, damage) in cases {
            let mut image = mbr_with_logical();
            damage(&mut image);
            let message = inspect(&image).unwrap_err().to_string();
            assert!(
                message.contains(expected),
                "expected {expected:?} in {message:?}"
            );
        }
    }

    #[test]
    fn an_image_is_a_whole_number_of_sectors() {
        let mut image = mbr(200, &[(0, LINUX, 1, 100)]);
        image.pop();
        let message = inspect(&image).unwrap_err().to_string();
        assert!(
            message.contains("102399 bytes are not a whole number of sectors"),
            "{message}"
        );
    }
}
