//! Answers to an inspection: formats and facts about an image, and the options to ask for them.

use crate::PartitionTable;

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

/// A sound image, as [`crate::inspect`] found it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Inspection {
    /// Recognised by content alone.
    pub format: Format,
    /// The size in bytes of the disk that a guest sees; a multiple of 512.
    pub virtual_size: u64,
    /// Of a raw image. Of a qcow2 image the disk inside is not looked into, and an installer image need not have one.
    pub partition_table: Option<PartitionTable>,
    /// Faults that no guest suffers from, for the administrator.
    pub notes: Vec<String>,
}

/// Which images are accepted besides installed disks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// ISO 9660 and UDF images, with or without a partition table.
    pub allow_installer_images: bool,
}
