//! Signatures of what is no disk image, so that a refusal can name what was sent and the command that helps.

use crate::error::Known;
use crate::read_at::read_up_to;
use crate::superblocks::{self, BAD_DOWNLOAD, WHOLE_DISK};
use crate::{FormatError, ReadAt};

/// Bytes that stand at an offset from the start.
struct Signature {
    offset: u64,
    bytes: &'static [u8],
    known: Known,
}

const fn at(
    offset: u64,
    bytes: &'static [u8],
    name: &'static str,
    advice: &'static str,
) -> Signature {
    Signature {
        offset,
        bytes,
        known: Known::new(name, advice),
    }
}

/// A file system or a volume that fills the whole disk.
const fn volume(offset: u64, bytes: &'static [u8], name: &'static str) -> Signature {
    at(offset, bytes, name, WHOLE_DISK)
}

const NOT_A_DISK: &str = "see what it is: file FILE";

/// Asked only once no partition table was found. Longer signatures first.
const SIGNATURES: &[Signature] = &[
    at(
        0,
        b"\xfd7zXZ\0",
        "a file compressed with xz",
        "decompress it first: xz -d FILE",
    ),
    at(
        0,
        b"\x89LZO\0\r\n\x1a\n",
        "a file compressed with lzop",
        "decompress it first: lzop -d FILE",
    ),
    at(
        0,
        b"7z\xbc\xaf\x27\x1c",
        "a 7z archive",
        "unpack it first: 7z x FILE",
    ),
    at(
        0,
        b"Rar!\x1a\x07",
        "a RAR archive",
        "unpack it first: unrar x FILE",
    ),
    at(
        0,
        b"MSWIM\0\0\0",
        "a WIM archive (Windows setup files)",
        "it has files and no disk; install Windows from it, or apply it to a partition: wimapply FILE 1 /dev/PARTITION",
    ),
    at(
        0,
        b"WLPWM\0\0\0",
        "a WIM archive (Windows setup files)",
        "it has files and no disk; apply it to a partition: wimapply FILE 1 /dev/PARTITION",
    ),
    at(
        0,
        b"VMA\0",
        "a VMA archive (a Proxmox backup)",
        "unpack it first: vma extract FILE FOLDER",
    ),
    at(
        0,
        b"\x3a\xff\x26\xed",
        "an Android sparse image",
        "convert it first: simg2img FILE RAW_IMAGE",
    ),
    at(
        0,
        b"partclone-image",
        "a Partclone image of a partition",
        "restore it to a disk first: partclone.restore -s FILE -o /dev/PARTITION",
    ),
    at(
        0,
        b"EVF\x09\x0d\x0a\xff\0",
        "an EnCase (EWF) image",
        "convert it first: ewfexport -f raw -t RAW_IMAGE FILE",
    ),
    at(
        0,
        b"AFF10\r\n\0",
        "an AFF image",
        "convert it first: affconvert -r FILE",
    ),
    at(
        0,
        b"\x28\xb5\x2f\xfd",
        "a file compressed with zstd",
        "decompress it first: zstd -d FILE",
    ),
    at(
        0,
        b"\x04\x22\x4d\x18",
        "a file compressed with lz4",
        "decompress it first: lz4 -d FILE",
    ),
    at(
        0,
        b"\x02\x21\x4c\x18",
        "a file compressed with lz4",
        "decompress it first: lz4 -d FILE",
    ),
    at(
        0,
        b"PK\x03\x04",
        "a zip archive",
        "unpack it first: unzip FILE",
    ),
    at(
        0,
        b"LZIP",
        "a file compressed with lzip",
        "decompress it first: lzip -d FILE",
    ),
    at(
        0,
        b"MSCF\0\0\0\0",
        "a cabinet archive",
        "unpack it first: cabextract FILE",
    ),
    at(
        0,
        b"!<arch>\n",
        "an ar archive or a Debian package",
        "unpack it first: ar x FILE",
    ),
    at(
        0,
        b"\xed\xab\xee\xdb",
        "an RPM package",
        "unpack it first: rpm2archive FILE",
    ),
    at(
        0,
        b"07070",
        "a cpio archive",
        "unpack it first: cpio -id < FILE",
    ),
    at(
        0,
        b"\x1f\x8b\x08",
        "a file compressed with gzip",
        "decompress it first: gzip -d FILE",
    ),
    at(
        0,
        b"BZh",
        "a file compressed with bzip2",
        "decompress it first: bzip2 -d FILE",
    ),
    at(
        0,
        b"\x1f\x9d",
        "a file compressed with compress",
        "decompress it first: uncompress FILE",
    ),
    at(
        257,
        b"ustar",
        "a tar archive (an OVA is one)",
        "unpack it first: tar -xf FILE; then convert the disk that was in it: qemu-img convert -O qcow2 DISK NEW_IMAGE",
    ),
    volume(
        0,
        b"hsqs",
        "a SquashFS file system without a partition table",
    ),
    volume(
        0,
        b"sqsh",
        "a SquashFS file system without a partition table",
    ),
    volume(
        0,
        b"\x45\x3d\xcd\x28",
        "a cramfs file system without a partition table",
    ),
    volume(0, b"XFSB", "an XFS file system without a partition table"),
    volume(
        3,
        b"NTFS    ",
        "an NTFS file system without a partition table",
    ),
    volume(
        3,
        b"EXFAT   ",
        "an exFAT file system without a partition table",
    ),
    volume(
        3,
        b"-FVE-FS-",
        "a BitLocker encrypted volume without a partition table",
    ),
    volume(
        3,
        b"ReFS\0\0\0\0",
        "a ReFS file system without a partition table",
    ),
    volume(32, b"NXSB", "an APFS file system without a partition table"),
    volume(54, b"FAT1", "a FAT file system without a partition table"),
    volume(82, b"FAT32", "a FAT file system without a partition table"),
    volume(
        1024,
        b"H+\0\x04",
        "an HFS+ file system without a partition table",
    ),
    volume(
        1024,
        b"HX\0\x05",
        "an HFS+ file system without a partition table",
    ),
    volume(
        1024,
        b"\x10\x20\xf5\xf2",
        "an F2FS file system without a partition table",
    ),
    volume(
        1024,
        b"\xe2\xe1\xf5\xe0",
        "an EROFS file system without a partition table",
    ),
    volume(
        1080,
        b"\x53\xef",
        "an ext2, ext3 or ext4 file system without a partition table",
    ),
    volume(
        32768,
        b"JFS1",
        "a JFS file system without a partition table",
    ),
    volume(
        65588,
        b"ReIsEr",
        "a ReiserFS file system without a partition table",
    ),
    volume(
        65600,
        b"_BHRfS_M",
        "a Btrfs file system without a partition table",
    ),
    volume(
        0,
        b"ER\x02\0",
        "a disk with an Apple partition map, which no desktop here boots from",
    ),
    at(0, b"\x7fELF", "an ELF program", NOT_A_DISK),
    at(0, b"MZ", "a Windows program", NOT_A_DISK),
    at(0, b"%PDF-", "a PDF document", NOT_A_DISK),
    at(0, b"#!", "a script", NOT_A_DISK),
    at(0, b"<!DOCTYPE", "an HTML page", BAD_DOWNLOAD),
    at(0, b"<!doctype", "an HTML page", BAD_DOWNLOAD),
    at(0, b"<html", "an HTML page", BAD_DOWNLOAD),
    at(0, b"<?xml", "an XML document", BAD_DOWNLOAD),
];

/// Anything that is known besides disk images: compressed files, archives, file systems without a partition table.
pub(crate) fn other_content<R: ReadAt + ?Sized>(content: &R) -> Result<Option<Known>, FormatError> {
    for signature in SIGNATURES {
        if signature.offset >= content.len() {
            continue;
        }
        let found = read_up_to(content, signature.offset, signature.bytes.len())?;
        if found == signature.bytes {
            return Ok(Some(signature.known));
        }
    }
    superblocks::find(content)
}
