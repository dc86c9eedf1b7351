//! Knows the structure of a qcow2 image (QEMU's `docs/interop/qcow2`): header, refcounts, tables, snapshots, bitmaps.
//! Never mentions what the guest keeps in its clusters: they are located, not read.

mod bitmaps;
mod clusters;
mod compressed;
mod deflate;
mod extensions;
mod features;
mod guest;
mod header;
mod mapping;
mod snapshots;
#[cfg(test)]
mod tests;
mod zstandard;

use super::error::Structure;
use super::read_at::{for_each_piece, read_up_to};
use super::{FormatError, ReadAt, bytes};
use clusters::ClusterMap;
use header::Header;

const MAGIC: &[u8] = b"QFI\xfb";

/// Whether the content claims to be qcow2. The first version of the format, without the 2, is another one.
pub(super) fn is_qcow2<R: ReadAt + ?Sized>(content: &R) -> Result<bool, FormatError> {
    let start = read_up_to(content, 0, 8)?;
    Ok(start.starts_with(MAGIC) && bytes::be_u32(&start, 4) != 1)
}

/// Checks the whole structure of a qcow2 image and returns its virtual size.
pub(super) fn inspect<R: ReadAt + ?Sized>(content: &R) -> Result<u64, FormatError> {
    let header = Header::read(content)?;
    let mut map = ClusterMap::read(content, &header)?;
    snapshots::check(content, &header, &mut map)?;
    bitmaps::check(content, &header, &mut map)?;
    mapping::check(content, &header, &mut map)?;
    guest::refuse_image_inside(content, &header)?;
    Ok(header.virtual_size)
}

/// Hands a table of big-endian 64-bit numbers, which lies inside the content, to `visit` one by one.
fn for_each_number<R: ReadAt + ?Sized>(
    content: &R,
    offset: u64,
    count: u64,
    mut visit: impl FnMut(u64, u64) -> Result<(), FormatError>,
) -> Result<(), FormatError> {
    let mut index = 0;
    for_each_piece(content, offset, count.saturating_mul(8), |piece| {
        for number in piece.chunks_exact(8) {
            visit(index, bytes::be_u64(number, 0))?;
            index += 1;
        }
        Ok(())
    })
}

fn corrupt(what: String) -> FormatError {
    FormatError::Corrupt {
        structure: Structure::Qcow2,
        what,
    }
}
