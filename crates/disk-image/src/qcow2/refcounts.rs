//! The refcounts of an image: a table of blocks, which hold a number for each cluster of the file.

use super::clusters::{Use, Window};
use super::header::Header;
use super::tables::Tables;
use crate::{FormatError, ReadAt, bytes};

/// Reads the refcounts of the clusters in a window.
pub(super) fn read<R: ReadAt + ?Sized>(
    tables: &Tables<'_, R>,
    header: &Header,
    window: &mut Window,
) -> Result<(), FormatError> {
    let per_block = (header.cluster_size() * 8) >> header.refcount_order;
    for_each_block(tables, header, |index, block| {
        let first = index.saturating_mul(per_block);
        let wanted = window.range();
        let from = wanted.start.max(first);
        let until = wanted.end.min(first.saturating_add(per_block));
        if from >= until {
            return Ok(());
        }
        // Windows begin at a multiple of eight clusters, and eight refcounts of whatever width fill whole bytes.
        let bytes_of = |clusters: u64| (clusters << header.refcount_order) / 8;
        let skipped = bytes_of(from - first);
        let size = bytes_of((until - from).next_multiple_of(8));
        tables.for_each_block(block + skipped, size, |at, piece| {
            let start = from + ((at * 8) >> header.refcount_order);
            let count = (piece.len() * 8) >> header.refcount_order;
            for (position, cluster) in (0..count).zip(start..) {
                let refcount = refcount_at(piece, position, header.refcount_order);
                window.set_refcount(cluster, refcount);
            }
            Ok(())
        })
    })
}

/// Notes the use of the blocks themselves.
pub(super) fn mark_blocks<R: ReadAt + ?Sized>(
    tables: &Tables<'_, R>,
    header: &Header,
    window: &mut Window,
) -> Result<(), FormatError> {
    for_each_block(tables, header, |index, block| {
        window.mark_one(block, Use::Metadata, 1, || {
            format!("the refcount block {index}")
        })
    })
}

/// Hands the place of each block to `visit`, with its index in the table.
fn for_each_block<R: ReadAt + ?Sized>(
    tables: &Tables<'_, R>,
    header: &Header,
    mut visit: impl FnMut(u64, u64) -> Result<(), FormatError>,
) -> Result<(), FormatError> {
    let entries = header.refcount_table_bytes() / 8;
    let offset = header.refcount_table_offset;
    let length = tables.content.len();
    tables.for_each_entry(offset, entries, |index, [block]| {
        let what = format!("the refcount block {index}");
        header.check_place(&what, block, header.cluster_size(), length)?;
        visit(index, block)
    })?;
    Ok(())
}

/// The refcount of that index in (a part of) a block. Widths below a byte begin at its least significant bit.
fn refcount_at(block: &[u8], index: usize, order: u32) -> u64 {
    match order {
        0..=2 => {
            let per_byte = 8 >> order;
            let byte = block.get(index / per_byte).copied().unwrap_or(0);
            let width = 1 << order;
            u64::from(byte >> ((index % per_byte) * width)) & ((1 << width) - 1)
        }
        3 => u64::from(block.get(index).copied().unwrap_or(0)),
        4 => u64::from(bytes::be_u16(block, index * 2)),
        5 => u64::from(bytes::be_u32(block, index * 4)),
        _ => bytes::be_u64(block, index * 8),
    }
}
