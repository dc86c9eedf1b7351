//! The GUID partition table: two headers with two copies of the entries, each under a checksum (UEFI 2.10, 5.3).

use super::error::{Structure, require_inside};
use super::mbr::Table;
use super::partitions::{Area, find_overlap};
use super::read_at::{for_each_piece, read_up_to};
use super::{FormatError, ReadAt, bytes};

const SIGNATURE: &[u8] = b"EFI PART";
const REVISION: u32 = 0x0001_0000;
const SMALLEST_HEADER: u64 = 92;
/// The standard asks for room for 16 KiB of entries; far more than any tool makes is still accepted.
const MAXIMUM_ENTRIES_BYTES: u64 = 16 * 1024 * 1024;
const MAXIMUM_ENTRY_SIZE: u32 = 4096;

/// The sizes of a sector that disks have.
const SECTOR_SIZES: [u64; 2] = [512, 4096];

/// Whether a header stands where the first one belongs.
pub(super) fn has_header<R: ReadAt + ?Sized>(content: &R) -> Result<bool, FormatError> {
    Ok(find_sector_size(content)?.is_some())
}

/// Checks the table of a disk whose boot record is protective.
pub(super) fn check<R: ReadAt + ?Sized>(
    content: &R,
    protective: &Table,
) -> Result<(), FormatError> {
    let Some(sector) = find_sector_size(content)? else {
        if content.len() < 8192 {
            return Err(FormatError::Truncated {
                what: "the GPT header that the protective MBR announces".to_owned(),
                needed: 8192,
                length: content.len(),
            });
        }
        return Err(corrupt(
            "there is a protective MBR and no GPT header after it, in sectors of neither 512 nor 4096 bytes"
                .to_owned(),
        ));
    };
    let disk = Disk { content, sector };
    let primary = disk.header(1, "primary")?;
    disk.check_layout(&primary)?;
    disk.check_entries(&primary)?;
    let backup = disk.header(primary.alternate, "backup")?;
    disk.check_backup(&primary, &backup)?;
    protective.check_entries(sector, content.len())?;
    Ok(())
}

fn find_sector_size<R: ReadAt + ?Sized>(content: &R) -> Result<Option<u64>, FormatError> {
    for sector in SECTOR_SIZES {
        if read_up_to(content, sector, SIGNATURE.len())? == SIGNATURE {
            return Ok(Some(sector));
        }
    }
    Ok(None)
}

/// A header whose signature, revision, size, checksum and own place are right.
struct Header {
    which: &'static str,
    lba: u64,
    alternate: u64,
    first_usable: u64,
    last_usable: u64,
    disk_guid: Vec<u8>,
    entries_lba: u64,
    entry_count: u32,
    entry_size: u32,
    entries_checksum: u32,
}

impl Header {
    fn entries_bytes(&self) -> u64 {
        u64::from(self.entry_count) * u64::from(self.entry_size)
    }
}

struct Disk<'a, R: ?Sized> {
    content: &'a R,
    sector: u64,
}

impl<R: ReadAt + ?Sized> Disk<'_, R> {
    fn header(&self, lba: u64, which: &'static str) -> Result<Header, FormatError> {
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
            return Err(corrupt(format!(
                "the {which} header at sector {lba} does not begin with the signature \"EFI PART\""
            )));
        }
        let revision = bytes::le_u32(&raw, 8);
        if revision != REVISION {
            return Err(corrupt(format!(
                "the {which} header has the revision {revision:#010x}, expected {REVISION:#010x}"
            )));
        }
        let size = u64::from(bytes::le_u32(&raw, 12));
        if !(SMALLEST_HEADER..=self.sector).contains(&size) {
            return Err(corrupt(format!(
                "the {which} header says that it has {size} bytes, expected {SMALLEST_HEADER} to {}",
                self.sector
            )));
        }
        let mut hasher = crc32fast::Hasher::new();
        for (at, byte) in raw
            .iter()
            .enumerate()
            .take(usize::try_from(size).unwrap_or(0))
        {
            // The checksum's own four bytes count as zero.
            hasher.update(&[if (16..20).contains(&at) { 0 } else { *byte }]);
        }
        if hasher.finalize() != bytes::le_u32(&raw, 16) {
            return Err(corrupt(format!(
                "the checksum of the {which} header is wrong"
            )));
        }
        let own_lba = bytes::le_u64(&raw, 24);
        if own_lba != lba {
            return Err(corrupt(format!(
                "the {which} header at sector {lba} says that it is at sector {own_lba}"
            )));
        }
        Ok(Header {
            which,
            lba,
            alternate: bytes::le_u64(&raw, 32),
            first_usable: bytes::le_u64(&raw, 40),
            last_usable: bytes::le_u64(&raw, 48),
            disk_guid: raw.get(56..72).unwrap_or_default().to_vec(),
            entries_lba: bytes::le_u64(&raw, 72),
            entry_count: bytes::le_u32(&raw, 80),
            entry_size: bytes::le_u32(&raw, 84),
            entries_checksum: bytes::le_u32(&raw, 88),
        })
    }

    /// Checks what the primary header says of the disk, and that the disk is that long.
    fn check_layout(&self, header: &Header) -> Result<(), FormatError> {
        if header.entry_size < 128
            || !header.entry_size.is_power_of_two()
            || header.entry_size > MAXIMUM_ENTRY_SIZE
            || header.entry_count == 0
            || header.entries_bytes() > MAXIMUM_ENTRIES_BYTES
        {
            return Err(corrupt(format!(
                "{} entries of {} bytes: expected at least one, of 128 bytes times a power of two up to \
                 {MAXIMUM_ENTRY_SIZE}, and at most {MAXIMUM_ENTRIES_BYTES} bytes in all",
                header.entry_count, header.entry_size
            )));
        }
        let entries_end = self.entries_end(header);
        if header.entries_lba < 2
            || entries_end > header.first_usable
            || header.first_usable > header.last_usable
            || header.last_usable >= header.alternate
        {
            return Err(corrupt(format!(
                "its parts are out of order: entries in sectors {} up to {entries_end}, usable sectors {} to {}, \
                 backup header at sector {}",
                header.entries_lba, header.first_usable, header.last_usable, header.alternate
            )));
        }
        let end = header.last_usable.saturating_add(1);
        require_inside(
            0,
            end.saturating_mul(self.sector),
            self.content.len(),
            || "the area of the disk that the GPT describes".to_owned(),
        )
    }

    /// The sector after the entries.
    fn entries_end(&self, header: &Header) -> u64 {
        let sectors = header.entries_bytes().div_ceil(self.sector);
        header.entries_lba.saturating_add(sectors)
    }

    /// Checks the checksum of the entries, and each partition.
    fn check_entries(&self, header: &Header) -> Result<(), FormatError> {
        let which = header.which;
        let offset = header.entries_lba.saturating_mul(self.sector);
        require_inside(offset, header.entries_bytes(), self.content.len(), || {
            format!("the {which} GPT entries")
        })?;
        let mut hasher = crc32fast::Hasher::new();
        let mut areas = Vec::new();
        let mut number = 0;
        let entry_size = usize::try_from(header.entry_size).unwrap_or(128);
        for_each_piece(self.content, offset, header.entries_bytes(), |piece| {
            hasher.update(piece);
            // A piece is a whole number of entries: both are powers of two, and the piece is larger.
            for entry in piece.chunks_exact(entry_size) {
                number += 1;
                let unused = entry.iter().take(16).all(|byte| *byte == 0);
                if !unused {
                    areas.push(Area {
                        first: bytes::le_u64(entry, 32),
                        last: bytes::le_u64(entry, 40),
                        number,
                    });
                }
            }
            Ok(())
        })?;
        if hasher.finalize() != header.entries_checksum {
            return Err(corrupt(format!(
                "the checksum of the {which} entries is wrong"
            )));
        }
        for area in &areas {
            if area.first > area.last
                || area.first < header.first_usable
                || area.last > header.last_usable
            {
                return Err(corrupt(format!(
                    "partition {} has the sectors {} to {}, outside of the usable sectors {} to {}",
                    area.number, area.first, area.last, header.first_usable, header.last_usable
                )));
            }
        }
        match find_overlap(&mut areas) {
            None => Ok(()),
            Some((left, right)) => Err(corrupt(format!(
                "partition {} (sectors {} to {}) and partition {} (sectors {} to {}) overlap",
                left.number, left.first, left.last, right.number, right.first, right.last
            ))),
        }
    }

    /// Checks that the backup says the same as the primary header, and that its entries are whole.
    fn check_backup(&self, primary: &Header, backup: &Header) -> Result<(), FormatError> {
        let same = backup.alternate == primary.lba
            && backup.first_usable == primary.first_usable
            && backup.last_usable == primary.last_usable
            && backup.disk_guid == primary.disk_guid
            && backup.entry_count == primary.entry_count
            && backup.entry_size == primary.entry_size
            && backup.entries_checksum == primary.entries_checksum;
        if !same {
            return Err(corrupt(
                "the backup header describes another table than the primary header".to_owned(),
            ));
        }
        if backup.entries_lba <= primary.last_usable || self.entries_end(backup) > backup.lba {
            return Err(corrupt(format!(
                "the backup entries begin at sector {}, expected between the last usable sector {} and \
                 the backup header at {}",
                backup.entries_lba, primary.last_usable, backup.lba
            )));
        }
        self.check_entries(backup)
    }
}

fn corrupt(what: String) -> FormatError {
    FormatError::Corrupt {
        structure: Structure::Gpt,
        what,
    }
}

#[cfg(test)]
mod tests {
    use super::super::inspect;
    use super::super::test_support::{Put, gpt, put_boot_record, seal_gpt};
    use super::*;

    const SECTORS: usize = 200;
    const PARTITIONS: [(u64, u64); 2] = [(40, 99), (100, 150)];
    /// The places of the headers and of the entries in sectors of 512 bytes.
    const PRIMARY: usize = 512;
    const ENTRIES: usize = 2 * 512;
    const BACKUP: usize = (SECTORS - 1) * 512;
    const BACKUP_ENTRIES: usize = (SECTORS - 33) * 512;

    fn sample() -> Vec<u8> {
        gpt(512, SECTORS, &PARTITIONS)
    }

    #[test]
    fn tables_in_both_sizes_of_sectors_are_accepted() {
        for (sector, partitions) in [
            (512, &PARTITIONS[..]),
            (512, &[]),
            (4096, &[(6, 100), (101, 194)]),
        ] {
            let found = inspect(&gpt(sector, SECTORS, partitions)).unwrap();
            assert_eq!(found.virtual_size, (sector * SECTORS) as u64);
        }
    }

    #[test]
    fn a_hybrid_boot_record_and_a_disk_that_has_grown_are_accepted() {
        let mut image = sample();
        put_boot_record(&mut image, 0, &[(0, 0xEE, 1, 39), (0x80, 0x83, 40, 60)]);
        inspect(&image).unwrap();
        image.resize(SECTORS * 2 * 512, 0);
        assert_eq!(
            inspect(&image).unwrap().virtual_size,
            (SECTORS * 2 * 512) as u64
        );
        put_boot_record(
            &mut image,
            0,
            &[(0, 0xEE, 1, 39), (0, 0x83, 40, 60), (0, 0x83, 99, 2)],
        );
        let message = inspect(&image).unwrap_err().to_string();
        assert!(
            message.contains("partition 2 (sectors 40 to 99) and partition 3"),
            "{message}"
        );
    }

    #[test]
    fn every_changed_byte_of_either_table_is_found() {
        let image = sample();
        let areas = [
            PRIMARY..PRIMARY + 92,
            ENTRIES..ENTRIES + 300,
            BACKUP..BACKUP + 92,
            BACKUP_ENTRIES..BACKUP_ENTRIES + 300,
        ];
        for at in areas.into_iter().flatten() {
            let mut damaged = image.clone();
            damaged[at] ^= 0x10;
            assert!(inspect(&damaged).is_err(), "byte {at}");
        }
    }

    #[test]
    fn tables_that_contradict_themselves_are_refused_although_the_checksums_are_right() {
        type Damage = fn(&mut Vec<u8>);
        let cases: [(&str, Damage); 15] = [
            ("the primary header has the revision 0x00020000", |image| {
                image.put_le32(PRIMARY + 8, 0x20000)
            }),
            ("says that it has 91 bytes", |image| {
                image.put_le32(PRIMARY + 12, 91)
            }),
            ("says that it has 513 bytes", |image| {
                image.put_le32(PRIMARY + 12, 513)
            }),
            (
                "the primary header at sector 1 says that it is at sector 2",
                |image| image.put_le64(PRIMARY + 24, 2),
            ),
            (
                "truncated: the backup GPT header at sector 18446744073709551615",
                |image| {
                    image.put_le64(PRIMARY + 32, u64::MAX);
                },
            ),
            ("its parts are out of order", |image| {
                image.put_le64(PRIMARY + 32, 1)
            }),
            ("its parts are out of order", |image| {
                image.put_le64(PRIMARY + 40, 33)
            }),
            ("its parts are out of order", |image| {
                image.put_le64(PRIMARY + 48, 20)
            }),
            ("its parts are out of order", |image| {
                image.put_le64(PRIMARY + 72, 1)
            }),
            ("0 entries of 128 bytes", |image| {
                image.put_le32(PRIMARY + 80, 0)
            }),
            ("4294967295 entries of 128 bytes", |image| {
                image.put_le32(PRIMARY + 80, u32::MAX)
            }),
            ("128 entries of 192 bytes", |image| {
                image.put_le32(PRIMARY + 84, 192)
            }),
            ("the backup header describes another table", |image| {
                image.put_bytes(BACKUP + 56, &[1])
            }),
            ("the backup entries begin at sector 100", |image| {
                image.copy_within(ENTRIES..ENTRIES + 32 * 512, 100 * 512);
                image.put_le64(BACKUP + 72, 100);
            }),
            (
                "the backup header at sector 150 does not begin with the signature",
                |image| {
                    image.put_le64(PRIMARY + 48, 149);
                    image.put_le64(PRIMARY + 32, 150);
                },
            ),
        ];
        for (expected, damage) in cases {
            let mut image = gpt(512, SECTORS, &[]);
            damage(&mut image);
            seal_gpt(&mut image, 512);
            let message = inspect(&image).unwrap_err().to_string();
            assert!(
                message.contains(expected),
                "expected {expected:?} in {message:?}"
            );
        }
    }

    #[test]
    fn partitions_outside_of_the_usable_sectors_or_on_each_other_are_refused() {
        let cases: [(&str, &[(u64, u64)]); 5] = [
            ("partition 1 has the sectors 33 to 60", &[(33, 60)]),
            (
                "partition 2 has the sectors 100 to 167",
                &[(40, 60), (100, 167)],
            ),
            ("partition 1 has the sectors 60 to 59", &[(60, 59)]),
            (
                "partition 1 has the sectors 50 to 18446744073709551615",
                &[(50, u64::MAX)],
            ),
            (
                "partition 2 (sectors 40 to 60) and partition 1 (sectors 60 to 70) overlap",
                &[(60, 70), (40, 60)],
            ),
        ];
        for (expected, partitions) in cases {
            let message = inspect(&gpt(512, SECTORS, partitions))
                .unwrap_err()
                .to_string();
            assert!(
                message.contains(expected),
                "expected {expected:?} in {message:?}"
            );
        }
    }

    #[test]
    fn a_cut_is_found_wherever_it_is() {
        let image = sample();
        for length in (512..image.len())
            .step_by(37)
            .chain([image.len() - 512, image.len() - 1])
        {
            let error = inspect(&image[..length]).unwrap_err();
            assert!(
                matches!(error, FormatError::Truncated { .. }),
                "{length}: {error}"
            );
        }
    }

    #[test]
    fn a_boot_record_and_a_table_that_lack_each_other_are_refused() {
        let mut image = sample();
        image[510] = 0;
        let message = inspect(&image).unwrap_err().to_string();
        assert!(
            message.contains("a GPT header, but no protective MBR"),
            "{message}"
        );
        let mut image = sample();
        image[PRIMARY] = 0;
        let message = inspect(&image).unwrap_err().to_string();
        assert!(
            message.contains("a protective MBR and no GPT header after it"),
            "{message}"
        );
    }
}
