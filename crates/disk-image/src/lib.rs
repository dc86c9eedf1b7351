//! Knows what a disk image says of itself: its format, its virtual size, and whether it is whole, sound and free of
//! references to other files. Never mentions where bytes come from, what keeps them, or which image they belong to.

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
pub use read_at::{FileReader, ReadAt};
pub use stop::Stop;

/// Recognises a disk image and checks that it is whole, sound and complete in itself, as an installed disk is.
///
/// Blocking. Memory is bounded by 64 MiB: four bytes for each cluster of a qcow2 file, ten million of them at a time.
/// Time is bounded by what is stored and what the guest sees: each table is read once, or once for each ten million
/// clusters, whatever refers to it, holes are not read, and each compressed cluster is decompressed, on two threads at
/// most. A [`Follower`] does that while the content arrives.
///
/// Sources: QEMU's `docs/interop/qcow2`, UEFI 2.10 chapter 5 (GPT, protective MBR).
pub fn inspect<R: ReadAt + Sync + ?Sized>(content: &R) -> Result<Inspection, FormatError> {
    inspect_with(content, Options::default())
}

/// As [`inspect`], with more images accepted.
pub fn inspect_with<R: ReadAt + Sync + ?Sized>(
    content: &R,
    options: Options,
) -> Result<Inspection, FormatError> {
    Follower::new(Stop::never(), u64::MAX).inspect(content, options)
}
