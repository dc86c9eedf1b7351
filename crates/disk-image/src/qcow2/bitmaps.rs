//! The persistent bitmaps of a qcow2 image. A guest never reads them; QEMU opens no image whose bitmaps are broken.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

use super::clusters::{Use, Window};
use super::entries::OFFSET;
use super::header::Header;
use super::structures::{Kind, Structure, Structures};
use super::tables::Tables;
use crate::error::{corrupt_qcow2, require_inside};
use crate::quote::quote;
use crate::read_at::read_up_to;
use crate::{FormatError, ReadAt, bytes};

/// Limits of QEMU itself.
const MAXIMUM_BITMAPS: u32 = 65_535;
const MAXIMUM_DIRECTORY_BYTES: u64 = 65_535 * 1024;
const MAXIMUM_NAME: usize = 1023;
const MAXIMUM_BITMAP_BYTES: u64 = 512 * 1024 * 1024;

/// The only type of bitmap there is: what was written since.
const DIRTY_TRACKING: u8 = 1;
/// Was not saved; the content means nothing.
const IN_USE: u32 = 1;
const AUTO: u32 = 2;

const ENTRY: u64 = 24;
const RESERVED: u64 = 0xff00_0000_0000_01fe;

/// Checks the directory, where the image says that the bitmaps are in step with the data. Returns it and the tables.
pub(super) fn read<R: ReadAt + ?Sized>(
    content: &R,
    header: &Header,
) -> Result<Vec<Structure>, FormatError> {
    let Some(directory) = header.bitmaps else {
        return Ok(Vec::new());
    };
    if directory.reserved != 0 {
        return Err(corrupt_qcow2(format!(
            "the reserved field of the bitmaps extension is {:#010x}, expected 0",
            directory.reserved
        )));
    }
    if directory.count == 0
        || directory.count > MAXIMUM_BITMAPS
        || directory.bytes > MAXIMUM_DIRECTORY_BYTES
    {
        return Err(corrupt_qcow2(format!(
            "a directory of {} bitmaps in {} bytes, expected 1 to {MAXIMUM_BITMAPS} in at most \
             {MAXIMUM_DIRECTORY_BYTES}",
            directory.count, directory.bytes
        )));
    }
    let length = content.len();
    header.check_place(
        Kind::BitmapDirectory,
        directory.offset,
        directory.bytes,
        length,
    )?;
    let mut structures = vec![Structure {
        kind: Kind::BitmapDirectory,
        offset: directory.offset,
        size: directory.bytes,
    }];
    let mut names = Names::default();
    let end = directory.offset + directory.bytes;
    let mut at = directory.offset;
    for number in 1..=directory.count {
        require_inside(at, ENTRY, end, || {
            format!("the directory entry of the bitmap {number}")
        })?;
        let entry = Entry::parse(number, &read_up_to(content, at, ENTRY as usize)?);
        let name_at = at + ENTRY;
        at = (name_at + entry.name_bytes as u64 + entry.extra_bytes).next_multiple_of(8);
        if at > end {
            return Err(corrupt_qcow2(format!(
                "the directory entry of the bitmap {number} goes beyond the directory"
            )));
        }
        entry.check(header)?;
        names.add(content, number, name_at, entry.name_bytes)?;
        let table = Structure {
            kind: Kind::BitmapTable(number),
            offset: entry.table_offset,
            size: entry.table_entries * 8,
        };
        header.check_place(table.kind, table.offset, table.size, length)?;
        structures.push(table);
    }
    if at != end {
        return Err(corrupt_qcow2(format!(
            "the bitmap directory has {} bytes, and its entries only {}",
            directory.bytes,
            at - directory.offset
        )));
    }
    Ok(structures)
}

/// An entry of the directory; extra data and the name follow it.
struct Entry {
    number: u32,
    table_offset: u64,
    table_entries: u64,
    flags: u32,
    kind: u8,
    granularity_bits: u8,
    name_bytes: usize,
    extra_bytes: u64,
}

impl Entry {
    fn parse(number: u32, entry: &[u8]) -> Entry {
        Entry {
            number,
            table_offset: bytes::be_u64(entry, 0),
            table_entries: u64::from(bytes::be_u32(entry, 8)),
            flags: bytes::be_u32(entry, 12),
            kind: entry.get(16).copied().unwrap_or(0),
            granularity_bits: entry.get(17).copied().unwrap_or(0),
            name_bytes: usize::from(bytes::be_u16(entry, 18)),
            extra_bytes: u64::from(bytes::be_u32(entry, 20)),
        }
    }

    /// Checks that QEMU makes of an entry before it opens the image.
    fn check(&self, header: &Header) -> Result<(), FormatError> {
        let fault = if self.extra_bytes != 0 {
            format!("{} bytes of extra data, expected none", self.extra_bytes)
        } else if self.kind != DIRTY_TRACKING {
            format!("the type {}, expected {DIRTY_TRACKING}", self.kind)
        } else if self.flags & !(IN_USE | AUTO) != 0 {
            format!("the flags {:#x}, expected bits 0 and 1 only", self.flags)
        } else if !(9..=31).contains(&self.granularity_bits) {
            format!(
                "a granularity of 2^{} bytes, expected 2^9 to 2^31",
                self.granularity_bits
            )
        } else if self.name_bytes > MAXIMUM_NAME {
            format!(
                "a name of {} bytes, expected {MAXIMUM_NAME} at most",
                self.name_bytes
            )
        } else if self.table_offset == 0 {
            "its table at the header of the image".to_owned()
        } else {
            return self.check_size(header);
        };
        Err(corrupt_qcow2(format!(
            "the bitmap {} has {fault}",
            self.number
        )))
    }

    fn check_size(&self, header: &Header) -> Result<(), FormatError> {
        // Bits fill words of 64, and words fill clusters.
        let bits = header.virtual_size.div_ceil(1 << self.granularity_bits);
        let needed = (bits.div_ceil(64) * 8).div_ceil(header.cluster_size());
        let largest = MAXIMUM_BITMAP_BYTES / header.cluster_size();
        let expected = match self.flags & IN_USE {
            0 => needed..=needed.min(largest),
            _ => 1..=largest,
        };
        if expected.contains(&self.table_entries) {
            return Ok(());
        }
        Err(corrupt_qcow2(format!(
            "the bitmap {} has a table of {} entries, expected {} to {}",
            self.number,
            self.table_entries,
            expected.start(),
            expected.end()
        )))
    }
}

/// The names seen so far, by their hashes: where each is, and how long. All names together may have 64 MiB.
#[derive(Default)]
struct Names {
    hasher: RandomState,
    places: HashMap<u64, (u64, usize)>,
}

impl Names {
    /// Errors: a name that another bitmap has. A zero byte ends a name.
    fn add<R: ReadAt + ?Sized>(
        &mut self,
        content: &R,
        number: u32,
        at: u64,
        size: usize,
    ) -> Result<(), FormatError> {
        let read = |(at, size)| -> Result<Vec<u8>, FormatError> {
            let mut name = read_up_to(content, at, size)?;
            name.truncate(name.iter().position(|byte| *byte == 0).unwrap_or(size));
            Ok(name)
        };
        let name = read((at, size))?;
        let hash = self.hasher.hash_one(&name);
        if let Some(other) = self.places.insert(hash, (at, size))
            && read(other)? == name
        {
            return Err(corrupt_qcow2(format!(
                "the bitmap {number} has the name {} of another one",
                quote(&name)
            )));
        }
        Ok(())
    }
}

/// Checks each entry of the tables, and notes the use of the cluster that it names.
pub(super) fn mark<R: ReadAt + ?Sized>(
    tables: &Tables<'_, R>,
    header: &Header,
    structures: &Structures,
    window: &mut Window,
) -> Result<(), FormatError> {
    let length = tables.content.len();
    let cluster_size = header.cluster_size();
    for (number, table) in structures.bitmap_tables() {
        tables.for_each_entry(table.offset, table.size / 8, |index, [entry]| {
            let cluster = entry & OFFSET;
            // Without a cluster the lowest bit says what all bits of that part are.
            if entry & RESERVED != 0 || (cluster != 0 && entry & 1 != 0) {
                return Err(corrupt_qcow2(format!(
                    "the entry {index} of the bitmap {number} is {entry:#018x}, with reserved bits set"
                )));
            }
            if cluster == 0 {
                return Ok(());
            }
            let what = || format!("the cluster {index} of the bitmap {number}");
            header.check_place(
                format_args!("the cluster {index} of the bitmap {number}"),
                cluster,
                cluster_size,
                length,
            )?;
            window.mark_one(cluster, Use::Metadata, 1, what)
        })?;
    }
    Ok(())
}
