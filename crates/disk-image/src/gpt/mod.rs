//! The GUID partition table: two headers with two copies of the entries, each under a checksum (UEFI 2.10, 5.3).
//!
//! Kernels and firmware boot from a sound primary table whatever has become of the backup, which is lost wherever a
//! disk is cut after its last partition or copied onto a larger one. So a faulty backup is noted; only one that is
//! sound and describes other partitions is refused, as are two tables for sectors of different sizes.

mod table;
#[cfg(test)]
mod tests;

use crate::error::corrupt_gpt;
use crate::mbr;
use crate::{FormatError, PartitionScheme, PartitionTable, ReadAt};
use table::{Disk, Table};

/// The sizes of a sector that disks have.
const SECTOR_SIZES: [u64; 2] = [512, 4096];

/// Whether a header stands where the first one belongs.
pub(crate) fn has_header<R: ReadAt + ?Sized>(content: &R) -> Result<bool, FormatError> {
    Ok(disk_with_header(content)?.is_some())
}

fn disk_with_header<R: ReadAt + ?Sized>(content: &R) -> Result<Option<Disk<'_, R>>, FormatError> {
    for sector in SECTOR_SIZES {
        let disk = Disk { content, sector };
        if disk.has_signature(1)? {
            return Ok(Some(disk));
        }
    }
    Ok(None)
}

/// Checks the table of a disk whose boot record is protective. Returns it, with notes on faults that do no harm.
pub(crate) fn check<R: ReadAt + ?Sized>(
    content: &R,
    protective: &mbr::Table,
) -> Result<(PartitionTable, Vec<String>), FormatError> {
    let Some(disk) = disk_with_header(content)? else {
        if content.len() < 8192 {
            return Err(FormatError::Truncated {
                what: "the GPT header that the protective MBR announces".to_owned(),
                needed: 8192,
                length: content.len(),
            });
        }
        let what = "there is a protective MBR and no GPT header after it, in sectors of neither 512 nor 4096 bytes";
        return Err(name_backup(content, &SECTOR_SIZES, what.to_owned())?);
    };
    let primary = match disk.read(1, "primary") {
        Err(FormatError::Corrupt { what, .. }) => {
            return Err(name_backup(content, &[disk.sector], what)?);
        }
        read => read?,
    };
    refuse_other_sector_size(&disk, &primary)?;
    let areas = disk.check(&primary)?;
    let note = check_backup(&disk, &primary)?;
    protective.check_entries(disk.sector, content.len())?;
    let table = PartitionTable::new(PartitionScheme::Gpt, areas, disk.sector);
    Ok((table, note.into_iter().collect()))
}

/// The refusal of a damaged primary table, which can be mended where the disk ends in a sound backup.
fn name_backup<R: ReadAt + ?Sized>(
    content: &R,
    sectors: &[u64],
    what: String,
) -> Result<FormatError, FormatError> {
    for sector in sectors {
        let disk = Disk {
            content,
            sector: *sector,
        };
        match disk.read(disk.last_sector(), "backup") {
            Ok(_) => return Ok(FormatError::GptPrimaryDamaged { what }),
            Err(FormatError::Io(error)) => return Err(error.into()),
            Err(_) => {}
        }
    }
    Ok(corrupt_gpt(what))
}

/// Refuses a disk that has another table for those who read it in sectors of another size.
fn refuse_other_sector_size<R: ReadAt + ?Sized>(
    disk: &Disk<'_, R>,
    primary: &Table,
) -> Result<(), FormatError> {
    for sector in SECTOR_SIZES {
        if sector == disk.sector {
            continue;
        }
        let other = Disk {
            content: disk.content,
            sector,
        };
        // Firmware takes a backup at the end of the disk where the primary table is broken.
        for (lba, which) in [(1, "primary"), (other.last_sector(), "backup")] {
            if !other.has_signature(lba)? {
                continue;
            }
            let found = match other.read(lba, which) {
                Ok(found) => found,
                Err(FormatError::Io(error)) => return Err(error.into()),
                Err(_) => continue,
            };
            if !found.has_partitions_of(primary, sector, disk.sector) {
                return Err(corrupt_gpt(format!(
                    "it is one table in sectors of {} bytes and another in sectors of {sector} bytes; \
                     remove the wrong one, the {which} header at byte {}, by overwriting it with zeros",
                    disk.sector,
                    lba.saturating_mul(sector)
                )));
            }
        }
    }
    Ok(())
}

/// Compares the backup with the primary table, and returns a note on its faults.
fn check_backup<R: ReadAt + ?Sized>(
    disk: &Disk<'_, R>,
    primary: &Table,
) -> Result<Option<String>, FormatError> {
    let lba = primary.alternate;
    let fault = match disk.read(lba, "backup") {
        Ok(_) if lba == primary.lba => "the primary header names itself as the backup".to_owned(),
        Ok(backup) if !backup.has_partitions_of(primary, disk.sector, disk.sector) => {
            return Err(FormatError::GptBackupDiffers { lba });
        }
        Ok(_) if lba <= primary.last_usable => {
            format!("the backup header at sector {lba} is among the usable sectors")
        }
        Ok(backup) if backup.entries_lba <= primary.last_usable => format!(
            "the backup entries begin at sector {}, among the usable sectors",
            backup.entries_lba
        ),
        Ok(backup) if backup.alternate != primary.lba => format!(
            "the backup header at sector {lba} names sector {} for the primary header",
            backup.alternate
        ),
        Ok(backup)
            if (backup.first_usable, backup.last_usable)
                != (primary.first_usable, primary.last_usable) =>
        {
            format!("the backup header at sector {lba} names other usable sectors")
        }
        Ok(_) if lba != disk.last_sector() => {
            format!("the backup header is at sector {lba}, and not at the end of the disk")
        }
        Ok(_) => return Ok(None),
        Err(FormatError::Io(error)) => return Err(error.into()),
        Err(FormatError::Truncated { .. }) => {
            format!("the disk ends before its backup, whose header belongs to sector {lba}")
        }
        Err(FormatError::Corrupt { what, .. }) => what,
        Err(other) => other.to_string(),
    };
    Ok(Some(format!(
        "the backup of the GPT is of no use: {fault}; make it anew with: sgdisk -e IMAGE"
    )))
}
