//! Knows what a disk image says of itself: its format, its virtual size, and whether it is whole, sound and free of
//! references to other files. Never mentions where bytes come from, what keeps them, or which image they belong to.

mod bytes;
mod error;
mod follower;
mod gpt;
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
pub use read_at::{FileReader, ReadAt};
pub use stop::Stop;

/// The formats a disk image is kept in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// QEMU's copy-on-write image, version 2 or 3, complete in one file.
    Qcow2,
    /// The bytes of a disk as they are, with an MBR or GPT partition table.
    Raw,
}

impl Format {
    /// The name that QEMU uses: `qcow2` or `raw`.
    pub fn as_str(self) -> &'static str {
        match self {
            Format::Qcow2 => "qcow2",
            Format::Raw => "raw",
        }
    }

    /// The usual ending of a file name, without the dot: `qcow2` or `img`.
    pub fn file_extension(self) -> &'static str {
        match self {
            Format::Qcow2 => "qcow2",
            Format::Raw => "img",
        }
    }

    /// The format of that name, as [`Format::as_str`] writes it.
    pub fn from_name(name: &str) -> Option<Format> {
        match name {
            "qcow2" => Some(Format::Qcow2),
            "raw" => Some(Format::Raw),
            _ => None,
        }
    }
}

impl std::fmt::Display for Format {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// A sound image, as [`inspect`] found it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspection {
    /// Recognised by content alone.
    pub format: Format,
    /// The size in bytes of the disk that a guest sees; a multiple of 512.
    pub virtual_size: u64,
    /// Faults that no desktop suffers from, for the administrator.
    pub notes: Vec<String>,
}

/// Which images are accepted besides installed disks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// ISO 9660 and UDF images, with or without a partition table.
    pub allow_installer_images: bool,
}

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
