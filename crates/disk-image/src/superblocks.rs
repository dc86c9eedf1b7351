//! Formats that are known by more than bytes at one offset: labels that may stand at several, and formats whose first
//! bytes say too little.

use crate::error::Known;
use crate::read_at::read_up_to;
use crate::{FormatError, ReadAt, bytes};

const SECTOR: u64 = 512;

/// The advice for what is found where a partition table is due.
pub(crate) const WHOLE_DISK: &str = "make an image of the whole disk, not of a partition: \
     qemu-img convert -f raw -O qcow2 /dev/DISK NEW_IMAGE";
/// The advice for a document in the place of an image.
pub(crate) const BAD_DOWNLOAD: &str =
    "a download may have brought the page of an error in its place: head -c 1000 FILE";

const LVM: Known = Known::new(
    "an LVM physical volume without a partition table",
    WHOLE_DISK,
);
const MD: Known = Known::new("a member of a Linux software RAID (md)", WHOLE_DISK);
const SWAP: Known = Known::new("a Linux swap area", WHOLE_DISK);
const BSD: Known = Known::new(
    "a disk with a BSD disklabel and no partition table",
    "put the system on a disk with an MBR or GPT, as its installer does unless told otherwise",
);
const SUN: Known = Known::new(
    "a disk with a Sun disklabel and no partition table",
    "put the system on a disk with an MBR or GPT",
);
const PZSTD: Known = Known::new(
    "a file compressed with pzstd (zstd)",
    "decompress it first: zstd -d FILE",
);
const LZ4: Known = Known::new(
    "a file compressed with lz4",
    "decompress it first: lz4 -d FILE",
);
const SKIPPABLE: Known = Known::new(
    "a file compressed with zstd or lz4",
    "decompress it first: zstd -d FILE or lz4 -d FILE",
);
const LZMA: Known = Known::new(
    "a file compressed with lzma",
    "decompress it first: xz -d --format=lzma FILE",
);
const JSON: Known = Known::new("a JSON document", BAD_DOWNLOAD);

/// The first of them that is there.
pub(crate) fn find<R: ReadAt + ?Sized>(content: &R) -> Result<Option<Known>, FormatError> {
    let start = read_up_to(content, 0, 4096)?;
    let found = if has_lvm_label(&start) {
        Some(LVM)
    } else if has_bsd_label(&start) {
        Some(BSD)
    } else if bytes::be_u16(&start, 508) == 0xDABE {
        Some(SUN)
    } else if has_md_superblock(content)? {
        Some(MD)
    } else if has_swap_signature(content)? {
        Some(SWAP)
    } else if let Some(known) = skippable_frames(content)? {
        Some(known)
    } else if is_lzma(&start) {
        Some(LZMA)
    } else if is_json(&start) {
        Some(JSON)
    } else {
        None
    };
    Ok(found)
}

/// LVM writes its label into the second sector, and finds it in any of the first four.
fn has_lvm_label(start: &[u8]) -> bool {
    (0..4).any(|sector| {
        let label = start.get(sector * 512..).unwrap_or_default();
        label.starts_with(b"LABELONE")
            && label
                .get(24..)
                .is_some_and(|kind| kind.starts_with(b"LVM2 001"))
    })
}

/// The label of FreeBSD, NetBSD and OpenBSD has its magic number twice. It stands in the second sector, on some
/// machines in the first.
fn has_bsd_label(start: &[u8]) -> bool {
    const MAGIC: u32 = 0x8256_4557;
    [0, 64, 128, 512].iter().any(|at| {
        [bytes::le_u32, bytes::be_u32]
            .iter()
            .any(|read| read(start, *at) == MAGIC && read(start, at + 132) == MAGIC)
    })
}

/// The superblock of md is at the end in the versions 0.90 and 1.0, at the start in 1.1, and 4 KiB from it in 1.2.
fn has_md_superblock<R: ReadAt + ?Sized>(content: &R) -> Result<bool, FormatError> {
    const MAGIC: [u8; 4] = [0xfc, 0x4e, 0x2b, 0xa9];
    const RESERVED: u64 = 64 * 1024;
    let length = content.len();
    let old = (length / RESERVED * RESERVED).checked_sub(RESERVED);
    let at_end = (length / SECTOR)
        .checked_sub(16)
        .map(|sector| sector / 8 * 8 * SECTOR);
    for offset in [Some(0), Some(4096), at_end, old].into_iter().flatten() {
        let found = read_up_to(content, offset, 4)?;
        // The oldest version is written in the byte order of its machine.
        if found == MAGIC || found.iter().rev().eq(&MAGIC) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The signature of swap stands at the end of the first page, whose size depends on the machine; that of a hibernated
/// system too.
fn has_swap_signature<R: ReadAt + ?Sized>(content: &R) -> Result<bool, FormatError> {
    const SIGNATURES: [&[u8]; 6] = [
        b"SWAPSPACE2",
        b"SWAP-SPACE",
        b"S1SUSPEND\0",
        b"S2SUSPEND\0",
        b"ULSUSPEND\0",
        b"LINHIB0001",
    ];
    for page in [4096, 8192, 16_384, 32_768, 65_536] {
        let found = read_up_to(content, page - 10, 10)?;
        if SIGNATURES.contains(&found.as_slice()) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// A frame that decompressors pass over, as pzstd writes before each of its own, tells what follows it.
fn skippable_frames<R: ReadAt + ?Sized>(content: &R) -> Result<Option<Known>, FormatError> {
    const MOST: usize = 16;
    let mut at = 0;
    for number in 0..MOST {
        let frame = read_up_to(content, at, 8)?;
        match bytes::le_u32(&frame, 0) {
            0x184D_2A50..=0x184D_2A5F => at += 8 + u64::from(bytes::le_u32(&frame, 4)),
            _ if number == 0 => return Ok(None),
            0xFD2F_B528 => return Ok(Some(PZSTD)),
            0x184D_2204 => return Ok(Some(LZ4)),
            _ => break,
        }
    }
    Ok(Some(SKIPPABLE))
}

/// The header of an .lzma file: properties, the size of the dictionary, and the size of the content or all ones.
fn is_lzma(start: &[u8]) -> bool {
    let properties = start.first().copied().unwrap_or(u8::MAX);
    let dictionary = bytes::le_u32(start, 1);
    let size = bytes::le_u64(start, 5);
    let half = dictionary & dictionary.wrapping_sub(1);
    let is_usual = dictionary >= 4096 && (half == 0 || half == dictionary / 3 * 2);
    start.len() >= 13
        && properties < 9 * 5 * 5
        && is_usual
        && (size == u64::MAX || (1..1 << 38).contains(&size))
}

/// The beginning of an object or of a list, followed by what may stand in it.
fn is_json(start: &[u8]) -> bool {
    let text = start.strip_prefix(b"\xef\xbb\xbf").unwrap_or(start);
    let mut characters = text.iter().filter(|byte| !byte.is_ascii_whitespace());
    match characters.next() {
        Some(b'{') => matches!(characters.next(), Some(b'"' | b'}')),
        Some(b'[') => matches!(
            characters.next(),
            Some(b'"' | b'{' | b'[' | b']' | b'-' | b'0'..=b'9' | b't' | b'f' | b'n')
        ),
        _ => false,
    }
}
