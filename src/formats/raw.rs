//! Raw images: the bytes of a disk, known by the partition table at their start.

use super::read_at::read_up_to;
use super::{FormatError, ReadAt, bytes, gpt, mbr, probe, signatures};

/// The unit in which MBR tables count, and the least size of a disk.
pub(super) const SECTOR: u64 = 512;

/// Checks a raw image and returns its virtual size, which is its length.
pub(super) fn inspect<R: ReadAt + ?Sized>(content: &R) -> Result<u64, FormatError> {
    if let Some(found) = probe::disk_image(content)? {
        return Err(FormatError::Unrecognized { found });
    }
    let length = content.len();
    let first = read_up_to(content, 0, 512)?;
    if (first.len() as u64) < SECTOR {
        return Err(match signatures::other_content(content)? {
            Some(found) => FormatError::Unrecognized { found },
            None => FormatError::TooSmall { length },
        });
    }
    if bytes::le_u16(&first, 510) != mbr::SIGNATURE {
        let found = if gpt::has_header(content)? {
            "a GPT header, but no protective MBR before it"
        } else {
            "the first sector does not end in the signature 55 AA"
        };
        return Err(without_table(content, found)?);
    }
    let table = mbr::Table::parse(&first);
    if let Err(fault) = table.plausible() {
        return Err(without_table(content, &fault)?);
    }
    let checked = if table.is_protective() {
        gpt::check(content, &table)
    } else {
        mbr::check(content, &table)
    };
    if let Err(error) = checked {
        // A file system or an ISO image may have bytes in the place of the table that come close to one.
        return Err(match signatures::other_content(content)? {
            Some(found)
                if matches!(error, FormatError::Corrupt { .. }) && !table.is_protective() =>
            {
                FormatError::Unrecognized { found }
            }
            _ => error,
        });
    }
    if !length.is_multiple_of(SECTOR) {
        return Err(FormatError::PartialSector { length });
    }
    Ok(length)
}

fn without_table<R: ReadAt + ?Sized>(content: &R, found: &str) -> Result<FormatError, FormatError> {
    Ok(match signatures::other_content(content)? {
        Some(found) => FormatError::Unrecognized { found },
        None => FormatError::NoPartitionTable {
            found: found.to_owned(),
        },
    })
}
