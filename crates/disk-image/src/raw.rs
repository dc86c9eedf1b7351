//! Raw images: the bytes of a disk, known by the partition table at their start.

use crate::mbr::{self, SECTOR};
use crate::read_at::read_up_to;
use crate::{
    Format, FormatError, Inspection, Options, PartitionTable, ReadAt, bytes, gpt, installer, probe,
    signatures,
};

/// Checks a raw image, whose virtual size is its length.
pub(crate) fn inspect<R: ReadAt + ?Sized>(
    content: &R,
    options: Options,
) -> Result<Inspection, FormatError> {
    if let Some(found) = probe::disk_image(content)? {
        return Err(FormatError::Unrecognized { found });
    }
    let (partition_table, notes) = match installer::find(content)? {
        None => {
            let (table, notes) = check_table(content)?;
            (Some(table), notes)
        }
        Some(found) if options.allow_installer_images => {
            found.refuse_cut(content.len())?;
            (None, vec![format!("this is {}", found.known.name)])
        }
        Some(found) => return Err(FormatError::InstallerImage { found: found.known }),
    };
    let length = content.len();
    if !length.is_multiple_of(SECTOR) {
        return Err(FormatError::PartialSector { length });
    }
    Ok(Inspection {
        format: Format::Raw,
        virtual_size: length,
        partition_table,
        notes,
    })
}

/// Checks the partition table, and returns it with notes on faults that do no harm.
fn check_table<R: ReadAt + ?Sized>(
    content: &R,
) -> Result<(PartitionTable, Vec<String>), FormatError> {
    let length = content.len();
    let first = read_up_to(content, 0, 512)?;
    if (first.len() as u64) < SECTOR {
        return Err(match signatures::other_content(content)? {
            Some(found) => FormatError::Unrecognized { found },
            None => FormatError::TooSmall { length },
        });
    }
    if bytes::le_u16(&first, 510) != mbr::SIGNATURE {
        let found = "the first sector does not end in the signature 55 AA";
        return Err(without_table(content, found)?);
    }
    let table = mbr::Table::parse(&first);
    if let Err(fault) = table.plausible() {
        return Err(without_table(content, &fault)?);
    }
    let checked = if table.is_protective() {
        gpt::check(content, &table)
    } else {
        mbr::check(content, &table).map(|found| (found, Vec::new()))
    };
    match checked {
        Ok(found) => Ok(found),
        // A file system may have bytes in the place of the table that come close to one.
        Err(error) => Err(match signatures::other_content(content)? {
            Some(found)
                if matches!(error, FormatError::Corrupt { .. }) && !table.is_protective() =>
            {
                FormatError::Unrecognized { found }
            }
            _ => error,
        }),
    }
}

fn without_table<R: ReadAt + ?Sized>(content: &R, found: &str) -> Result<FormatError, FormatError> {
    let found = match gpt::has_header(content)? {
        true => "a GPT header, but no protective MBR before it: write one with sgdisk -e IMAGE",
        false => found,
    };
    Ok(match signatures::other_content(content)? {
        Some(found) => FormatError::Unrecognized { found },
        None => FormatError::NoPartitionTable {
            found: found.to_owned(),
        },
    })
}
