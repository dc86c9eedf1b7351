//! Bits of the entries in L1 and L2 tables, and the walk through the entries of one L2 table.

use super::header::Header;
use super::tables::Tables;
use crate::{FormatError, ReadAt};

/// The bits with the offset of the cluster that the entry points to, in tables of bitmaps too.
pub(super) const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
/// The refcount of what the entry points to is exactly one: it may be written in place.
pub(super) const COPIED: u64 = 1 << 63;
/// The cluster of an L2 entry is compressed.
pub(super) const COMPRESSED: u64 = 1 << 62;
/// The cluster of an L2 entry reads as zeros.
pub(super) const ZERO: u64 = 1;

/// Hands the entries of the L2 table at the offset that are not zero to `visit`: the index, the entry, and the bits of
/// its subclusters where the image has such.
///
/// The table lies inside the content. Returns whether there was any.
pub(super) fn for_each_l2_entry<R: ReadAt + ?Sized>(
    tables: &Tables<'_, R>,
    header: &Header,
    table: u64,
    mut visit: impl FnMut(u64, u64, Option<u64>) -> Result<(), FormatError>,
) -> Result<bool, FormatError> {
    let count = header.l2_entries();
    if header.extended_l2 {
        tables.for_each_entry(table, count, |index, [entry, subclusters]| {
            visit(index, entry, Some(subclusters))
        })
    } else {
        tables.for_each_entry(table, count, |index, [entry]| visit(index, entry, None))
    }
}
