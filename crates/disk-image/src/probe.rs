//! Disk images of other formats, recognised as QEMU, libvirt and VirtualBox recognise them: by the first bytes, or by
//! a trailer.
//!
//! A raw disk whose first bytes pass for another format is dangerous: a program that guesses the format reads a
//! different disk, and some formats name further files, which that program then opens on its own host. Versions of
//! QEMU differ in how many bytes they look at (512 or 2048) and in what they skip, so the rules here are wider than
//! those of any version, and look at the first 64 KiB.

use crate::error::Known;
use crate::read_at::read_up_to;
use crate::{FormatError, ReadAt};

/// How many bytes from the start are looked at.
pub(crate) const HEAD: usize = 64 * 1024;

/// A format with the first bytes that give it away. Version numbers that follow are not looked at: a version that is
/// unknown today may be known to the next reader.
struct Magic {
    offset: usize,
    bytes: &'static [u8],
    known: Known,
}

const fn magic(bytes: &'static [u8], known: Known) -> Magic {
    magic_at(0, bytes, known)
}

const fn magic_at(offset: usize, bytes: &'static [u8], known: Known) -> Magic {
    Magic {
        offset,
        bytes,
        known,
    }
}

const VMDK: Known = Known::new(
    "a VMDK image",
    "convert it first: qemu-img convert -f vmdk -O qcow2 IMAGE NEW_IMAGE",
);
const VMDK_DESCRIPTOR: Known = Known::new(
    "the descriptor of a VMDK image",
    "convert the image that it describes: qemu-img convert -f vmdk -O qcow2 DESCRIPTOR NEW_IMAGE",
);
const VHD: Known = Known::new(
    "a VHD image",
    "convert it first: qemu-img convert -f vpc -O qcow2 IMAGE NEW_IMAGE",
);
const DMG: Known = Known::new(
    "an Apple DMG image",
    "convert it first: qemu-img convert -f dmg -O qcow2 IMAGE NEW_IMAGE",
);
const VDI: Known = Known::new(
    "a VDI image",
    "convert it first: qemu-img convert -f vdi -O qcow2 IMAGE NEW_IMAGE",
);
const PARALLELS: Known = Known::new(
    "a Parallels image",
    "convert it first: qemu-img convert -f parallels -O qcow2 IMAGE NEW_IMAGE",
);
const CLOOP: Known = Known::new(
    "a cloop image",
    "convert it first: qemu-img convert -f cloop -O qcow2 IMAGE NEW_IMAGE",
);

const MAGICS: &[Magic] = &[
    magic(
        b"QFI\xfb\0\0\0\x01",
        Known::new(
            "a qcow image of version 1",
            "convert it first: qemu-img convert -f qcow -O qcow2 IMAGE NEW_IMAGE",
        ),
    ),
    magic(
        b"QFI\xfb",
        Known::new(
            "a qcow2 image",
            "convert it first: qemu-img convert -f qcow2 -O qcow2 IMAGE NEW_IMAGE",
        ),
    ),
    magic(b"KDMV", VMDK),
    magic(b"COWD", VMDK),
    magic(b"SE Sparse", VMDK),
    magic(b"\xbe\xba\xfe\xca\0\0\0\0", VMDK),
    magic(b"conectix", VHD),
    magic(
        b"vhdxfile",
        Known::new(
            "a VHDX image",
            "convert it first: qemu-img convert -f vhdx -O qcow2 IMAGE NEW_IMAGE",
        ),
    ),
    magic_at(64, b"\x7f\x10\xda\xbe", VDI),
    magic(
        b"QED\0",
        Known::new(
            "a QED image",
            "convert it first: qemu-img convert -f qed -O qcow2 IMAGE NEW_IMAGE",
        ),
    ),
    magic(b"WithoutFreeSpace", PARALLELS),
    magic(b"WithouFreSpacExt", PARALLELS),
    magic(
        b"LUKS\xba\xbe",
        Known::new(
            "a LUKS encrypted volume",
            "decrypt it first: cryptsetup open IMAGE NAME, then qemu-img convert -f raw -O qcow2 /dev/mapper/NAME \
             NEW_IMAGE",
        ),
    ),
    magic(
        b"Bochs Virtual HD Image",
        Known::new(
            "a Bochs image",
            "convert it first: qemu-img convert -f bochs -O qcow2 IMAGE NEW_IMAGE",
        ),
    ),
    magic(b"#!/bin/sh\n#V", CLOOP),
    // Old QEMU and User Mode Linux.
    magic(
        b"OOOM",
        Known::new(
            "a COW image",
            "convert it first: qemu-img convert -f cow -O qcow2 IMAGE NEW_IMAGE (QEMU 2.1 or older)",
        ),
    ),
    magic(
        b"MOOO",
        Known::new(
            "a COW image",
            "merge it with its backing file first: uml_moo IMAGE NEW_IMAGE",
        ),
    ),
];

/// The name of the disk image format that the first bytes of a disk pass for, or none.
pub(crate) fn head(head: &[u8]) -> Option<Known> {
    if let Some(known) = first_of(MAGICS, head) {
        return Some(known);
    }
    if is_vdi_text(head) {
        return Some(VDI);
    }
    is_vmdk_descriptor(head).then_some(VMDK_DESCRIPTOR)
}

fn first_of<'a>(magics: impl IntoIterator<Item = &'a Magic>, head: &[u8]) -> Option<Known> {
    let mut found = magics.into_iter().filter(|magic| {
        let place = head.get(magic.offset..).unwrap_or_default();
        place.starts_with(magic.bytes)
    });
    found.next().map(|magic| magic.known)
}

/// The format that a qcow2 image passes for as well, by bytes that come after those of qcow2, or none.
pub(crate) fn beside_qcow2<R: ReadAt + ?Sized>(content: &R) -> Result<Option<Known>, FormatError> {
    let head = read_up_to(content, 0, HEAD)?;
    let others = MAGICS.iter().filter(|magic| magic.offset > 0);
    Ok(first_of(others, &head))
}

/// The name of another disk image format, by its first bytes or its trailer, or none.
pub(crate) fn disk_image<R: ReadAt + ?Sized>(content: &R) -> Result<Option<Known>, FormatError> {
    match head(&read_up_to(content, 0, HEAD)?) {
        Some(known) => Ok(Some(known)),
        None => trailer(content),
    }
}

fn trailer<R: ReadAt + ?Sized>(content: &R) -> Result<Option<Known>, FormatError> {
    // The footer of a VHD may have been written as 511 bytes by old software.
    for size in [512, 511] {
        if let Some(offset) = content.len().checked_sub(size)
            && read_up_to(content, offset, 8)? == b"conectix"
        {
            return Ok(Some(VHD));
        }
    }
    // The trailer of a DMG has 512 bytes, and the length of the file need not be a whole number of sectors: QEMU
    // looks for it from any byte of the sector before the last on.
    let end = content.len().next_multiple_of(512);
    let start = end.saturating_sub(1024);
    let tail = read_up_to(content, start, 1024)?;
    let searched = tail.get(..tail.len().min(516)).unwrap_or_default();
    let found = searched.windows(4).any(|window| window == b"koly");
    Ok(found.then_some(DMG))
}

/// Whether a disk begins with the text of a VDI image, by which old versions knew one.
fn is_vdi_text(head: &[u8]) -> bool {
    let text = head.get(..64.min(head.len())).unwrap_or_default();
    text.starts_with(b"<<< ") && contains(text, b"Disk Image >>>")
}

/// Whether a disk begins with the text that describes a VMDK image: after comments and blank lines, a line that
/// assigns one of the keys of the header.
///
/// Most readers end a line at a line feed, some at a carriage return too, and where a comment ends decides what comes
/// after it: text that passes in either way counts.
fn is_vmdk_descriptor(head: &[u8]) -> bool {
    let text = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head);
    let is_end = |byte: &u8| matches!(byte, b'\n' | b'\r');
    is_vmdk_text(text.split(|byte| *byte == b'\n')) || is_vmdk_text(text.split(is_end))
}

fn is_vmdk_text<'a>(lines: impl Iterator<Item = &'a [u8]>) -> bool {
    const KEYS: [&[u8]; 8] = [
        b"version",
        b"encoding",
        b"cid",
        b"parentcid",
        b"isnativesnapshot",
        b"createtype",
        b"parentfilenamehint",
        b"objectid",
    ];
    for line in lines.map(<[u8]>::trim_ascii_start) {
        if line.is_empty() {
            continue;
        }
        let Some(comment) = line.strip_prefix(b"#") else {
            return KEYS.iter().any(|key| {
                starts_with_ignoring_case(line, key)
                    && line
                        .get(key.len()..)
                        .is_some_and(|rest| rest.trim_ascii_start().starts_with(b"="))
            });
        };
        if starts_with_ignoring_case(comment.trim_ascii_start(), b"disk descriptorfile") {
            return true;
        }
    }
    false
}

fn starts_with_ignoring_case(text: &[u8], lower: &[u8]) -> bool {
    text.get(..lower.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(lower))
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}
