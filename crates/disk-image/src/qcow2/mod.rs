//! Knows the structure of a qcow2 image (QEMU's `docs/interop/qcow2`): header, refcounts, tables, snapshots, bitmaps.
//! Never mentions what the guest keeps in its clusters: they are located, not read, but for compressed ones, which are
//! decompressed to see that they can be.

mod bitmaps;
mod clusters;
mod codec;
mod compressed;
mod decompression;
mod deflate;
mod entries;
mod extensions;
mod fault;
mod features;
mod follower;
mod guest;
mod header;
mod l2_tables;
mod mapping;
mod refcounts;
mod references;
mod snapshots;
mod structures;
mod tables;
#[cfg(test)]
mod tests;
mod zstandard;

use crate::error::corrupt_qcow2;
use crate::read_at::read_up_to;
use crate::{FormatError, ReadAt, bytes, probe};
use follower::Decompressed;
pub(crate) use follower::Follower;
use header::{Header, MAGIC};
use references::Limits;

/// Whether the content claims to be qcow2. The first version of the format, without the 2, is another one.
pub(crate) fn is_qcow2<R: ReadAt + ?Sized>(content: &R) -> Result<bool, FormatError> {
    let start = read_up_to(content, 0, 8)?;
    Ok(start.starts_with(MAGIC) && bytes::be_u32(&start, 4) != 1)
}

/// Checks the whole structure of a qcow2 image, then the compressed clusters that the follower has not seen pass by,
/// and returns its virtual size.
pub(crate) fn inspect<R: ReadAt + Sync + ?Sized>(
    content: &R,
    follower: Follower,
) -> Result<u64, FormatError> {
    if let Some(other) = probe::beside_qcow2(content)? {
        return Err(corrupt_qcow2(format!(
            "its header passes for that of {} as well",
            other.name
        )));
    }
    let (virtual_size, decompressed) = check(content, follower, Limits::USUAL)?;
    tracing::debug!(?decompressed, "the compressed clusters are whole");
    Ok(virtual_size)
}

fn check<R: ReadAt + Sync + ?Sized>(
    content: &R,
    follower: Follower,
    limits: Limits,
) -> Result<(u64, Decompressed), FormatError> {
    let header = Header::read(content)?;
    let with_compressed = references::check(content, &header, limits)?;
    let decompressed = follower.finish(content, &header, &with_compressed)?;
    guest::refuse_image_inside(content, &header)?;
    Ok((header.virtual_size, decompressed))
}
