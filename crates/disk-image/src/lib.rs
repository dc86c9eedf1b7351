//! Disk images of virtual machines: recognised by their bytes, mapped, and vetted before a host opens them.
//!
//! [`inspect`] answers for an image that is whole, sound and complete in itself, or says why it is refused and which
//! command helps. Accepted are qcow2 (version 2 and 3) and raw disks with an MBR or GPT partition table; dozens of
//! other formats are named in the refusal. Bytes are read through [`ReadAt`] alone: no name inside of an image, of a
//! backing file or of a data file, is ever opened.
//!
//! ```
//! use disk_image::{Format, FormatError, PartitionScheme, inspect};
//!
//! // A disk of 1 MiB whose boot record has one partition: Linux, 2047 sectors from the second one on.
//! let mut disk = vec![0; 1 << 20];
//! disk[450] = 0x83;
//! disk[454] = 1;
//! disk[458..460].copy_from_slice(&2047_u16.to_le_bytes());
//! disk[510..512].copy_from_slice(&[0x55, 0xaa]);
//!
//! let found = inspect(&disk)?;
//! assert_eq!((found.format, found.virtual_size), (Format::Raw, 1 << 20));
//! let table = found.partition_table.expect("a raw disk has one");
//! assert_eq!(table.scheme, PartitionScheme::Mbr);
//! assert_eq!((table.partitions[0].offset, table.partitions[0].size), (512, 2047 * 512));
//!
//! // The same disk, cut short.
//! disk.truncate(1 << 19);
//! let refusal = inspect(&disk).unwrap_err();
//! assert!(matches!(refusal, FormatError::Truncated { .. }));
//! assert_eq!(
//!     refusal.to_string(),
//!     "the image is truncated: MBR partition 1 would end at byte 1048576, the content has 524288 bytes",
//! );
//! # Ok::<(), FormatError>(())
//! ```
//!
//! A file is read by a [`FileReader`]; other storage implements [`ReadAt`]. Where the bytes still arrive, a
//! [`Follower`] takes them as they pass by, and its inspection at the end has less left to do.
//!
//! # What it costs
//!
//! Memory is bounded by 64 MiB and some buffers, whatever the image. Time is bounded by the bytes that are stored, holes
//! left out, and those that the guest sees in compressed clusters: each of these is decompressed, since nothing else
//! shows that it is whole.
//!
//! # Words
//!
//! The *content* is the bytes of an image, as they are in its file. The *disk* is what the guest sees.

#![warn(missing_docs)]

mod bytes;
mod error;
mod follower;
mod gpt;
mod inspection;
mod installer;
mod mbr;
mod partitions;
mod probe;
mod qcow2;
mod quote;
mod raw;
mod read_at;
mod signatures;
mod stop;
mod superblocks;
#[cfg(test)]
mod test_support;
#[cfg(test)]
mod tests;

pub use error::{FormatError, Known, Structure};
pub use follower::Follower;
pub use inspection::{Format, Inspection, Options};
pub use partitions::{Partition, PartitionScheme, PartitionTable};
pub use read_at::{FileReader, ReadAt, is_zero};
pub use stop::Stop;

/// Recognises a disk image and checks that it is whole, sound and complete in itself, as an installed disk is.
///
/// Blocking. Memory is bounded by 64 MiB and buffers: four bytes for each cluster of a qcow2 file, ten million of them at
/// a time, and twelve for each of its L2 tables. Each table is read once, or once for each ten million clusters, whatever
/// refers to it. Compressed clusters are decompressed on two threads at most.
///
/// Sources: QEMU's `docs/interop/qcow2`, UEFI 2.10 chapter 5 (GPT, protective MBR).
///
/// # Errors
///
/// [`FormatError::Io`] where the content cannot be read; any other variant but [`FormatError::Stopped`] where the image is
/// not one to accept.
pub fn inspect<R: ReadAt + Sync + ?Sized>(content: &R) -> Result<Inspection, FormatError> {
    inspect_with(content, Options::default())
}

/// As [`inspect`], with more images accepted.
///
/// # Errors
///
/// Those of [`inspect`].
pub fn inspect_with<R: ReadAt + Sync + ?Sized>(
    content: &R,
    options: Options,
) -> Result<Inspection, FormatError> {
    Follower::new(Stop::never(), u64::MAX).inspect(content, options)
}

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
