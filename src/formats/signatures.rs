//! Signatures of formats that are not supported, so that a refusal can name what was sent.

use super::read_at::read_up_to;
use super::{FormatError, ReadAt};

/// Bytes that stand at an offset from the start.
struct Signature {
    offset: u64,
    bytes: &'static [u8],
    name: &'static str,
}

const fn at(offset: u64, bytes: &'static [u8], name: &'static str) -> Signature {
    Signature {
        offset,
        bytes,
        name,
    }
}

/// Disk images of other kinds. They are refused even where the bytes could pass for a partition table as well: what
/// two programs read differently is not safe.
const DISK_IMAGES: &[Signature] = &[
    at(0, b"KDMV", "a VMDK image"),
    at(0, b"COWD", "a VMDK image"),
    at(0, b"SE Sparse", "a VMDK image"),
    at(
        0,
        b"# Disk DescriptorFile",
        "the descriptor of a VMDK image",
    ),
    at(0, b"conectix", "a VHD image"),
    at(0, b"vhdxfile", "a VHDX image"),
    at(64, b"\x7f\x10\xda\xbe", "a VDI image"),
    at(0, b"QED\0", "a QED image"),
    at(0, b"QFI\xfb\0\0\0\x01", "a qcow image of version 1"),
    at(0, b"WithoutFreeSpace", "a Parallels image"),
    at(0, b"WithouFreSpacExt", "a Parallels image"),
    at(0, b"LUKS\xba\xbe", "a LUKS encrypted volume"),
];

/// Disk images known by the first bytes of their last 512.
const FOOTERS: &[(&[u8], &str)] = &[
    (b"conectix", "a VHD image"),
    (b"koly", "an Apple DMG image"),
];

/// Everything else, asked only once no partition table was found. Longer signatures first.
const OTHERS: &[Signature] = &[
    at(0, b"\xfd7zXZ\0", "a file compressed with xz"),
    at(0, b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    at(0, b"Rar!\x1a\x07", "a RAR archive"),
    at(0, b"\x28\xb5\x2f\xfd", "a file compressed with zstd"),
    at(0, b"\x04\x22\x4d\x18", "a file compressed with lz4"),
    at(0, b"PK\x03\x04", "a zip archive"),
    at(0, b"LZIP", "a file compressed with lzip"),
    at(0, b"\x1f\x8b\x08", "a file compressed with gzip"),
    at(0, b"BZh", "a file compressed with bzip2"),
    at(257, b"ustar", "a tar archive (an OVA is one)"),
    at(
        32769,
        b"CD001",
        "an ISO 9660 image without a partition table",
    ),
    at(
        0,
        b"hsqs",
        "a SquashFS file system without a partition table",
    ),
    at(0, b"XFSB", "an XFS file system without a partition table"),
    at(
        3,
        b"NTFS    ",
        "an NTFS file system without a partition table",
    ),
    at(
        3,
        b"EXFAT   ",
        "an exFAT file system without a partition table",
    ),
    at(54, b"FAT1", "a FAT file system without a partition table"),
    at(82, b"FAT32", "a FAT file system without a partition table"),
    at(
        536,
        b"LVM2 001",
        "an LVM physical volume without a partition table",
    ),
    at(
        65600,
        b"_BHRfS_M",
        "a Btrfs file system without a partition table",
    ),
    at(
        1080,
        b"\x53\xef",
        "an ext2, ext3 or ext4 file system without a partition table",
    ),
    at(0, b"\x7fELF", "an ELF program"),
    at(0, b"<!DOCTYPE", "an HTML page"),
    at(0, b"<!doctype", "an HTML page"),
    at(0, b"<html", "an HTML page"),
    at(0, b"<?xml", "an XML document"),
];

/// The name of another disk image format, or none.
pub(super) fn other_disk_image<R: ReadAt + ?Sized>(
    content: &R,
) -> Result<Option<&'static str>, FormatError> {
    if let Some(name) = first_match(content, DISK_IMAGES)? {
        return Ok(Some(name));
    }
    // The footer of a VHD may have been written as 511 bytes by old software.
    for size in [512, 511] {
        let Some(offset) = content.len().checked_sub(size) else {
            continue;
        };
        let footer = read_up_to(content, offset, 8)?;
        for (bytes, name) in FOOTERS {
            if footer.starts_with(bytes) {
                return Ok(Some(name));
            }
        }
    }
    Ok(None)
}

/// The name of anything else that is known: compressed files, archives, file systems without a partition table.
pub(super) fn other_content<R: ReadAt + ?Sized>(
    content: &R,
) -> Result<Option<&'static str>, FormatError> {
    first_match(content, OTHERS)
}

fn first_match<R: ReadAt + ?Sized>(
    content: &R,
    signatures: &[Signature],
) -> Result<Option<&'static str>, FormatError> {
    for signature in signatures {
        if signature.offset >= content.len() {
            continue;
        }
        let found = read_up_to(content, signature.offset, signature.bytes.len())?;
        if found == signature.bytes {
            return Ok(Some(signature.name));
        }
    }
    Ok(None)
}
