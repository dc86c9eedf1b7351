//! Why an image is refused, in words for the administrator who sent it.

use std::io;

use crate::Format;

/// The structure inside an image in which a fault was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Structure {
    /// The header and tables of a qcow2 image.
    Qcow2,
    /// The master boot record of a raw image, with the chain of its extended partitions.
    Mbr,
    /// The GUID partition table of a raw image.
    Gpt,
}

impl Structure {
    fn name(self) -> &'static str {
        match self {
            Structure::Qcow2 => "qcow2 image",
            Structure::Mbr => "MBR partition table",
            Structure::Gpt => "GPT partition table",
        }
    }

    fn advice(self) -> &'static str {
        match self {
            Structure::Qcow2 => "look at it with: qemu-img check",
            Structure::Mbr => "look at it with: sfdisk --verify",
            Structure::Gpt => "look at it with: sgdisk --verify",
        }
    }
}

/// Content that was recognised in the place of a supported image, and the command that makes one of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// With its article: `a VMDK image`.
    pub name: &'static str,
    /// The advice to a user, with its command.
    pub advice: &'static str,
}

impl Known {
    pub(crate) const fn new(name: &'static str, advice: &'static str) -> Known {
        Known { name, advice }
    }
}

/// Why an image was refused. All but [`FormatError::Io`] and [`FormatError::Stopped`] say that the image itself is at
/// fault: the same bytes will be refused again.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// No bytes at all.
    #[error(
        "the content is empty; expected a disk image: qcow2, or raw with an MBR or GPT partition table"
    )]
    Empty,

    /// Shorter than a single sector.
    #[error(
        "the content has {length} bytes, less than one sector of 512; \
         expected a disk image: qcow2, or raw with an MBR or GPT partition table"
    )]
    TooSmall {
        /// Bytes of the content.
        length: u64,
    },

    /// A format that is known, and not supported.
    #[error(
        "this looks like {}; supported are qcow2 and raw with an MBR or GPT partition table; {}", found.name, found.advice
    )]
    Unrecognized {
        /// The format.
        found: Known,
    },

    /// An installer image, where the options do not admit it.
    #[error(
        "this looks like {}; supported are qcow2 and raw with an MBR or GPT partition table; {}", found.name, found.advice
    )]
    InstallerImage {
        /// The kind of it.
        found: Known,
    },

    /// An image whose guest disk itself begins as an image does. Converted to raw, it would be opened as that.
    #[error(
        "the disk inside of the {container} image looks like {}, and may be opened as one once it is converted to \
         raw; take it out first: qemu-img convert -f {container} -O raw IMAGE INNER_IMAGE; then, with INNER_IMAGE, {}",
        found.name, found.advice
    )]
    ImageInside {
        /// The format of the outer image.
        container: Format,
        /// The format of the inner image.
        found: Known,
    },

    /// Neither a known format nor a partition table.
    #[error(
        "no partition table: expected MBR or GPT at the start of a raw image, and this is not qcow2 either ({found})"
    )]
    NoPartitionTable {
        /// The bytes that were found instead, in words.
        found: String,
    },

    /// A qcow2 image that is only the difference to another file.
    #[error(
        "the qcow2 image refers to the backing file {name}; flatten it first: \
         qemu-img convert -O qcow2 IMAGE FLAT_IMAGE"
    )]
    BackingFile {
        /// In quotes and escaped, fit to be shown.
        name: String,
    },

    /// A qcow2 image whose guest data lie in another file.
    #[error(
        "the qcow2 image keeps its data in the external data file {name}; bring both into one file first: \
         qemu-img convert -O qcow2 IMAGE WHOLE_IMAGE"
    )]
    ExternalDataFile {
        /// In quotes and escaped, fit to be shown; or `(unnamed)`.
        name: String,
    },

    /// A qcow2 image whose guest data cannot be read without a key.
    #[error(
        "the qcow2 image is encrypted ({method}); decrypt it first: qemu-img convert with --object secret"
    )]
    Encrypted {
        /// `AES`, `LUKS`.
        method: &'static str,
    },

    /// A qcow2 image that was not closed.
    #[error(
        "the qcow2 image is marked {mark}: {reason}; \
         repair it first: qemu-img check -r all IMAGE"
    )]
    NeedsRepair {
        /// `dirty` or `corrupt`, the name of the bit.
        mark: &'static str,
        /// The meaning of the bit.
        reason: &'static str,
    },

    /// The content ends before a part that it needs.
    #[error(
        "the image is truncated: {what} would end at byte {needed}, the content has {length} bytes"
    )]
    Truncated {
        /// The missing part.
        what: String,
        /// The offset at which that part would end.
        needed: u64,
        /// Bytes of the content.
        length: u64,
    },

    /// The length itself shows that something is missing.
    #[error(
        "the image is truncated: {length} bytes are not a whole number of sectors of 512 bytes"
    )]
    PartialSector {
        /// Bytes of the content.
        length: u64,
    },

    /// The image contradicts itself or the rules of its format.
    #[error("the {} is corrupt: {what}; {}", structure.name(), structure.advice())]
    Corrupt {
        /// The structure with the fault.
        structure: Structure,
        /// The value that was found, and the right one, in words.
        what: String,
    },

    /// A GPT for a disk that was larger. None of its partitions is cut.
    #[error(
        "the GPT partition table says that the disk has usable sectors up to {last_usable}, and it ends at sector \
         {last_sector}; no partition is cut, so fit the table to the disk: sgdisk -e IMAGE"
    )]
    GptBeyondDisk {
        /// The last sector that partitions may use.
        last_usable: u64,
        /// The last sector that is there.
        last_sector: u64,
    },

    /// A GPT whose primary table is damaged, and its backup is not.
    #[error(
        "the GPT partition table is corrupt: {what}; its backup at the end of the disk is sound, so write it anew from \
         that: sgdisk -e IMAGE"
    )]
    GptPrimaryDamaged {
        /// The damage.
        what: String,
    },

    /// Two copies of a GPT, both sound, with different partitions.
    #[error(
        "the backup of the GPT partition table at sector {lba} describes other partitions than the primary table; \
         write it anew from that: sgdisk -e IMAGE"
    )]
    GptBackupDiffers {
        /// The sector of its header.
        lba: u64,
    },

    /// The data of a compressed cluster do not decompress to what they should.
    #[error(
        "the compressed guest cluster {guest_cluster} of the qcow2 image is damaged: {what}; \
         qemu-img check does not see this, so make the image again from its source: \
         qemu-img convert -c -O qcow2 SOURCE IMAGE"
    )]
    DamagedCluster {
        /// Counted from the start of the disk.
        guest_cluster: u64,
        /// The value that was found, and the right one, in words.
        what: String,
    },

    /// Sound as far as can be told, with something in it that is not supported.
    #[error("the image is not supported: {what}")]
    Unsupported {
        /// The value that was found, and those that are supported, in words.
        what: String,
    },

    /// The caller no longer wanted an answer.
    #[error("the inspection was stopped")]
    Stopped,

    /// The content could not be read: the image may be as good as any.
    #[error("the image could not be read: {0}")]
    Io(#[from] io::Error),
}

impl FormatError {
    /// Whether the image is at fault, and not the reading of it.
    pub fn is_bad_image(&self) -> bool {
        !matches!(self, FormatError::Io(_) | FormatError::Stopped)
    }
}

/// The refusal of a qcow2 image with that fault in it.
pub(crate) fn corrupt_qcow2(what: String) -> FormatError {
    let structure = Structure::Qcow2;
    FormatError::Corrupt { structure, what }
}

/// The refusal of an MBR with that fault in it.
pub(crate) fn corrupt_mbr(what: String) -> FormatError {
    let structure = Structure::Mbr;
    FormatError::Corrupt { structure, what }
}

/// The refusal of a GPT with that fault in it.
pub(crate) fn corrupt_gpt(what: String) -> FormatError {
    let structure = Structure::Gpt;
    FormatError::Corrupt { structure, what }
}

/// Fails with [`FormatError::Truncated`] unless the area lies wholly inside a content of that length.
pub(crate) fn require_inside(
    offset: u64,
    size: u64,
    length: u64,
    what: impl FnOnce() -> String,
) -> Result<(), FormatError> {
    let needed = offset.saturating_add(size);
    if needed > length {
        return Err(FormatError::Truncated {
            what: what(),
            needed,
            length,
        });
    }
    Ok(())
}
