//! A refusal says what was sent, and names the command that makes an image of it.

use std::path::Path;

use crate::inspect;
use crate::test_support::{Put, installed, mbr, run_with};

const SIZE: usize = 256 * 1024;

fn at(offset: usize, bytes: &[u8]) -> Vec<u8> {
    let mut content = vec![0; SIZE];
    content.put_bytes(offset, bytes);
    content
}

fn assert_named(content: &[u8], name: &str, command: &str) {
    let error = inspect(content).unwrap_err();
    assert!(error.is_bad_image());
    let message = error.to_string();
    assert!(
        message.contains(&format!("this looks like {name}")),
        "expected {name:?} in {message:?}"
    );
    assert!(
        message.contains(command),
        "expected {command:?} in {message:?}"
    );
}

#[test]
fn files_that_are_compressed_or_packed_are_named_with_the_command_that_opens_them() {
    let lzma = b"\x5d\0\0\x80\0\xff\xff\xff\xff\xff\xff\xff\xff\0";
    let known_size = b"\x5d\0\0\x60\0\0\0\x10\0\0\0\0\0\0";
    let pzstd = b"\x50\x2a\x4d\x18\x04\0\0\0\x10\0\0\0\x28\xb5\x2f\xfd";
    let lz4 = b"\x5f\x2a\x4d\x18\x01\0\0\0\x10\x04\x22\x4d\x18";
    let cases: [(&[u8], &str, &str); 23] = [
        (b"\xfd7zXZ\0", "a file compressed with xz", "xz -d FILE"),
        (lzma, "a file compressed with lzma", "xz -d --format=lzma"),
        (known_size, "a file compressed with lzma", "xz -d"),
        (
            b"\x28\xb5\x2f\xfd",
            "a file compressed with zstd",
            "zstd -d",
        ),
        (pzstd, "a file compressed with pzstd (zstd)", "zstd -d"),
        (b"\x04\x22\x4d\x18", "a file compressed with lz4", "lz4 -d"),
        (lz4, "a file compressed with lz4", "lz4 -d"),
        (b"BZh91AY", "a file compressed with bzip2", "bzip2 -d"),
        (b"\x1f\x8b\x08\0", "a file compressed with gzip", "gzip -d"),
        (b"LZIP\x01", "a file compressed with lzip", "lzip -d"),
        (
            b"\x89LZO\0\r\n\x1a\n",
            "a file compressed with lzop",
            "lzop -d",
        ),
        (b"PK\x03\x04", "a zip archive", "unzip FILE"),
        (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "7z x FILE"),
        (b"Rar!\x1a\x07\x01\0", "a RAR archive", "unrar x"),
        (b"070701", "a cpio archive", "cpio -id"),
        (b"MSWIM\0\0\0", "a WIM archive", "wimapply"),
        (b"VMA\0\0\0\0\x01", "a VMA archive", "vma extract FILE"),
        (
            b"\x3a\xff\x26\xed\x01\0\0\0",
            "an Android sparse image",
            "simg2img FILE",
        ),
        (b"{\"code\": 5}", "a JSON document", "head -c"),
        (b" \r\n[{\"a\": 1}]", "a JSON document", "head -c"),
        (b"<!DOCTYPE html>", "an HTML page", "head -c"),
        (b"partclone-image", "a Partclone image", "partclone.restore"),
        (
            b"EVF\x09\x0d\x0a\xff\0",
            "an EnCase (EWF) image",
            "ewfexport",
        ),
    ];
    for (start, name, command) in cases {
        assert_named(&at(0, start), name, command);
    }
    assert_named(&at(257, b"ustar\0"), "a tar archive", "tar -xf FILE");
    // Shorter than a sector.
    assert_named(b"{\"error\": 404}", "a JSON document", "head -c");
    assert_named(b"\x1f\x8b\x08\0", "a file compressed with gzip", "gzip -d");
}

#[test]
fn volumes_that_fill_a_whole_disk_are_named_wherever_their_label_is() {
    let whole_disk = "qemu-img convert -f raw -O qcow2 /dev/DISK";
    for sector in 0..4 {
        let mut disk = at(sector * 512, b"LABELONE");
        disk.put_bytes(sector * 512 + 24, b"LVM2 001");
        assert_named(&disk, "an LVM physical volume", whole_disk);
    }
    let magic = b"\xfc\x4e\x2b\xa9";
    // The versions 1.1, 1.2, 1.0 and 0.90.
    for place in [0, 4096, SIZE - 8192, SIZE - 65_536] {
        assert_named(
            &at(place, magic),
            "a member of a Linux software RAID",
            whole_disk,
        );
    }
    // Of a machine with the other byte order, on a disk that is no multiple of 64 KiB.
    let mut disk = at(SIZE - 65_536, b"\xa9\x2b\x4e\xfc");
    disk.resize(SIZE + 10 * 512, 0);
    assert_named(&disk, "a member of a Linux software RAID", whole_disk);
    for page in [4096, 8192, 16_384, 65_536] {
        for signature in [b"SWAPSPACE2", b"SWAP-SPACE"] {
            assert_named(&at(page - 10, signature), "a Linux swap area", whole_disk);
        }
    }
    for (offset, bytes, name) in [
        (3, &b"NTFS    "[..], "an NTFS file system"),
        (3, b"-FVE-FS-", "a BitLocker encrypted volume"),
        (32, b"NXSB", "an APFS file system"),
        (1024, b"H+\0\x04", "an HFS+ file system"),
        (1080, b"\x53\xef", "an ext2, ext3 or ext4 file system"),
        (65_600, b"_BHRfS_M", "a Btrfs file system"),
        (0, b"XFSB", "an XFS file system"),
    ] {
        assert_named(&at(offset, bytes), name, whole_disk);
    }
}

#[test]
fn a_bsd_disklabel_without_a_partition_table_is_named() {
    let label = |offset: usize| {
        let mut disk = at(offset, b"\x57\x45\x56\x82");
        disk.put_bytes(offset + 132, b"\x57\x45\x56\x82");
        disk
    };
    for offset in [64, 512] {
        assert_named(&label(offset), "a disk with a BSD disklabel", "MBR or GPT");
    }
    // FreeBSD's boot code has a table with one entry that begins at the table itself.
    let mut disk = mbr(
        SIZE / 512,
        &[
            (0, 0, 0, 0),
            (0, 0, 0, 0),
            (0, 0, 0, 0),
            (0x80, 165, 0, 50_000),
        ],
    );
    disk.put_bytes(512, b"\x57\x45\x56\x82");
    disk.put_bytes(644, b"\x57\x45\x56\x82");
    assert_named(&disk, "a disk with a BSD disklabel", "MBR or GPT");
}

#[test]
fn disk_images_of_other_formats_are_named_with_the_command_that_converts_them() {
    for (start, name, format) in [
        (&b"KDMV"[..], "a VMDK image", "vmdk"),
        (
            b"# Disk DescriptorFile\n",
            "the descriptor of a VMDK",
            "vmdk",
        ),
        (b"conectix", "a VHD image", "vpc"),
        (b"vhdxfile", "a VHDX image", "vhdx"),
        (b"QED\0", "a QED image", "qed"),
        (b"QFI\xfb\0\0\0\x01", "a qcow image of version 1", "qcow"),
        (b"WithouFreSpacExt", "a Parallels image", "parallels"),
        (b"Bochs Virtual HD Image", "a Bochs image", "bochs"),
        (b"#!/bin/sh\n#V2.0 Format\n", "a cloop image", "cloop"),
    ] {
        let command = format!("qemu-img convert -f {format} -O qcow2");
        assert_named(&at(0, start), name, &command);
    }
    let luks = at(0, b"LUKS\xba\xbe\0\x02");
    assert_named(&luks, "a LUKS encrypted volume", "cryptsetup open IMAGE");
}

#[test]
fn what_real_tools_make_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let test = "what_real_tools_make_is_named";
    let named = |tool: &str, command: &str, name: &str, advice: &str| {
        if !installed(test, &[tool]) {
            return;
        }
        std::fs::write(folder.join("disk"), mbr(2048, &[(0, 0x83, 64, 1984)])).unwrap();
        let path: &Path = &folder.join("made");
        let _ = std::fs::remove_file(path);
        run_with(folder, &["sh", "-c", command]);
        assert_named(&std::fs::read(path).unwrap(), name, advice);
    };
    named(
        "gzip",
        "gzip < disk > made",
        "a file compressed with gzip",
        "gzip -d",
    );
    named(
        "xz",
        "xz < disk > made",
        "a file compressed with xz",
        "xz -d",
    );
    named(
        "xz",
        "xz --format=lzma < disk > made",
        "a file compressed with lzma",
        "xz -d",
    );
    named(
        "zstd",
        "zstd < disk > made",
        "a file compressed with zstd",
        "zstd -d",
    );
    named(
        "pzstd",
        "pzstd -q -c disk > made",
        "a file compressed with pzstd",
        "zstd -d",
    );
    named("tar", "tar -cf made disk", "a tar archive", "tar -xf");
    for page in [4096, 65_536] {
        let command = format!("truncate -s 2M made && mkswap -p {page} made");
        named("mkswap", &command, "a Linux swap area", "qemu-img convert");
    }
    named(
        "mkfs.ext4",
        "truncate -s 2M made && mkfs.ext4 -q -F made",
        "an ext2, ext3 or ext4 file system",
        "qemu-img convert",
    );
}
