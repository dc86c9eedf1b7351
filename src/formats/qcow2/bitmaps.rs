//! The persistent bitmaps of a qcow2 image. A desktop never reads them; QEMU opens no image whose bitmaps are broken.

use super::super::error::require_inside;
use super::super::read_at::read_up_to;
use super::super::{FormatError, ReadAt, bytes};
use super::clusters::{ClusterMap, Use};
use super::header::Header;
use super::{corrupt, for_each_number};

/// Limits of QEMU itself.
const MAXIMUM_BITMAPS: u32 = 65_535;
const MAXIMUM_DIRECTORY_BYTES: u64 = 65_535 * 1024;

const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
const RESERVED: u64 = 0xff00_0000_0000_01fe;

/// Checks the directory, each table and the place of each cluster, where the image says that they are consistent.
pub(super) fn check<R: ReadAt + ?Sized>(
    content: &R,
    header: &Header,
    map: &mut ClusterMap,
) -> Result<(), FormatError> {
    let Some(directory) = header.bitmaps else {
        return Ok(());
    };
    if directory.count == 0
        || directory.count > MAXIMUM_BITMAPS
        || directory.bytes > MAXIMUM_DIRECTORY_BYTES
    {
        return Err(corrupt(format!(
            "a directory of {} bitmaps in {} bytes, expected 1 to {MAXIMUM_BITMAPS} in at most \
             {MAXIMUM_DIRECTORY_BYTES}",
            directory.count, directory.bytes
        )));
    }
    let length = content.len();
    let what = "the bitmap directory";
    header.check_place(what, directory.offset, directory.bytes, length)?;
    map.mark(directory.offset, directory.bytes, Use::Metadata, || {
        what.to_owned()
    })?;
    let end = directory.offset + directory.bytes;
    let mut at = directory.offset;
    for number in 1..=directory.count {
        require_inside(at, 24, end, || {
            format!("the directory entry of the bitmap {number}")
        })?;
        let entry = read_up_to(content, at, 24)?;
        let table_offset = bytes::be_u64(&entry, 0);
        let table_entries = u64::from(bytes::be_u32(&entry, 8));
        let name_bytes = u64::from(bytes::be_u16(&entry, 18));
        let extra_bytes = u64::from(bytes::be_u32(&entry, 20));
        at = (at + 24 + name_bytes + extra_bytes).next_multiple_of(8);
        if at > end {
            return Err(corrupt(format!(
                "the directory entry of the bitmap {number} goes beyond the directory"
            )));
        }
        check_table(content, header, map, number, table_offset, table_entries)?;
    }
    if at != end {
        return Err(corrupt(format!(
            "the bitmap directory has {} bytes, and its entries only {}",
            directory.bytes,
            at - directory.offset
        )));
    }
    Ok(())
}

fn check_table<R: ReadAt + ?Sized>(
    content: &R,
    header: &Header,
    map: &mut ClusterMap,
    number: u32,
    offset: u64,
    entries: u64,
) -> Result<(), FormatError> {
    let length = content.len();
    let what = format!("the table of the bitmap {number}");
    header.check_place(&what, offset, entries * 8, length)?;
    map.mark(offset, entries * 8, Use::Metadata, || what.clone())?;
    let cluster_size = header.cluster_size();
    for_each_number(content, offset, entries, |index, entry| {
        let cluster = entry & OFFSET;
        // Without a cluster the lowest bit says what all bits of that part are.
        if entry & RESERVED != 0 || (cluster != 0 && entry & 1 != 0) {
            return Err(corrupt(format!(
                "the entry {index} of the bitmap {number} is {entry:#018x}, with reserved bits set"
            )));
        }
        if cluster == 0 {
            return Ok(());
        }
        let what = format!("the cluster {index} of the bitmap {number}");
        header.check_place(&what, cluster, cluster_size, length)?;
        map.mark(cluster, cluster_size, Use::Metadata, || what.clone())
    })
}
