//! No raw image is accepted that QEMU takes for another format, with QEMU itself as the judge.

use std::path::Path;
use std::process::Command;

use proptest::prelude::*;

use crate::test_support::{Put, gpt, installed, mbr, qcow2, qcow2_layout};
use crate::{Format, FormatError, inspect};

/// Boot code ends here, and the partition table begins.
const BOOT_CODE: usize = 446;

const DESCRIPTOR: &[u8] =
    b"version=1\nCID=fffffffe\nparentCID=ffffffff\ncreateType=\"monolithicFlat\"\n\
                            RW 8 FLAT \"/etc/passwd\" 0\n";

/// The first bytes of images of all formats that QEMU probes, or once did.
fn heads() -> Vec<Vec<u8>> {
    let mut vdi = vec![0; 68];
    vdi.put_bytes(64, b"\x7f\x10\xda\xbe");
    let mut old_vdi = vec![0; 68];
    old_vdi.put_bytes(0, b"<<< innotek VirtualBox Disk Image >>>\n");
    let mut bochs = vec![0; 72];
    bochs.put_bytes(0, b"Bochs Virtual HD Image");
    bochs.put_bytes(32, b"Redolog");
    bochs.put_bytes(48, b"Growing");
    bochs.put_le32(64, 0x0002_0000);
    let mut heads = vec![vdi, old_vdi, bochs];
    let plain: [&[u8]; 16] = [
        b"KDMV\x01\0\0\0",
        b"COWD\x01\0\0\0",
        b"conectix\0\0\0\x02",
        b"vhdxfile",
        b"QED\0",
        b"QFI\xfb\0\0\0\x01",
        b"QFI\xfb\0\0\0\x02",
        b"QFI\xfb\0\0\0\x03",
        b"WithoutFreeSpace\x02\0\0\0",
        b"WithouFreSpacExt\x02\0\0\0",
        b"LUKS\xba\xbe\0\x01",
        b"LUKS\xba\xbe\0\x02",
        b"#!/bin/sh\n#V2.0 Format\nmodprobe cloop file=$0 && mount -r -t iso9660 /dev/cloop $1\n",
        b"OOOM\0\0\0\x02",
        b"SE Sparse",
        b"<<< Oracle VM VirtualBox Disk Image >>>\n",
    ];
    heads.extend(plain.map(<[u8]>::to_vec));
    for before in [
        "",
        "\n",
        "\n\n",
        "\r\n",
        " \n",
        "   \r\n",
        "\t\n",
        "#\n",
        "# comment\r\n",
        "# Disk DescriptorFile\n",
        "#\0\n",
        "#a\rb\n",
        "#\r#\n \n \r\n\n#\n",
        "\u{feff}",
        " ",
        " # comment\n",
    ] {
        heads.push([before.as_bytes(), DESCRIPTOR].concat());
    }
    for first in [
        "version=2\n",
        "version=3\r\n",
        "Version = 1\n",
        "encoding=\"UTF-8\"\nversion=1\n",
        "CID=fffffffe\nversion=1\n",
        "createType=\"monolithicFlat\"\nversion=1\n",
    ] {
        heads.push(first.as_bytes().to_vec());
    }
    heads
}

/// A sound disk with an MBR that begins with those bytes.
fn disk(head: &[u8]) -> Vec<u8> {
    let mut disk = mbr(2048, &[(0x80, 0x83, 64, 1984)]);
    let head = &head[..head.len().min(BOOT_CODE)];
    disk.put_bytes(0, head);
    disk
}

/// Whether QEMU, asked for no format, takes the file for anything but raw. It opens no image that is damaged, which a
/// raw one never is.
fn qemu_recognises(folder: &Path, content: &[u8]) -> bool {
    let path = folder.join("image");
    std::fs::write(&path, content).unwrap();
    let output = Command::new("qemu-img")
        .args(["info", "--output=json"])
        .arg(&path)
        .output()
        .unwrap();
    !output.status.success()
        || !String::from_utf8_lossy(&output.stdout).contains("\"format\": \"raw\"")
}

fn is_raw(content: &[u8]) -> bool {
    inspect(content).is_ok_and(|found| found.format == Format::Raw)
}

#[test]
fn a_sound_disk_that_begins_like_another_format_is_refused_by_name() {
    for head in heads() {
        let shown = String::from_utf8_lossy(&head).into_owned();
        let mut with_gpt = gpt(512, 2048, &[(40, 99)]);
        with_gpt.put_bytes(0, &head[..head.len().min(BOOT_CODE)]);
        for disk in [disk(&head), with_gpt] {
            let error = inspect(&disk).expect_err(&shown);
            if !head.starts_with(b"QFI\xfb") {
                assert!(
                    matches!(error, FormatError::Unrecognized { .. }),
                    "{shown:?}: {error}"
                );
            }
        }
    }
}

#[test]
fn a_disk_inside_of_qcow2_that_begins_like_another_format_is_refused_by_name() {
    for head in heads() {
        let mut image = qcow2(16);
        image.put_bytes(qcow2_layout::DATA << 16, &head);
        let error = inspect(&image).unwrap_err();
        assert!(
            matches!(
                error,
                FormatError::ImageInside {
                    container: Format::Qcow2,
                    ..
                }
            ),
            "{:?}: {error}",
            String::from_utf8_lossy(&head)
        );
        let message = error.to_string();
        assert!(
            message.starts_with("the disk inside of the qcow2 image looks like "),
            "{message}"
        );
        let command = "take it out first: qemu-img convert -f qcow2 -O raw IMAGE INNER_IMAGE; ";
        assert!(message.contains(command), "{message}");
    }
}

#[test]
fn text_that_describes_another_disk_is_found_after_long_comments() {
    // Beyond what QEMU 7.2 looks at; within what others do.
    let comment = format!("{}\n", "#".repeat(63 * 1024));
    let mut disk = disk(b"");
    disk.put_bytes(0, comment.as_bytes());
    disk.put_bytes(comment.len(), DESCRIPTOR);
    disk.put_bytes(510, &[0x55, 0xAA]);
    let error = inspect(&disk).unwrap_err();
    assert!(
        error.to_string().contains("the descriptor of a VMDK image"),
        "{error}"
    );
}

#[test]
fn a_qcow2_image_that_passes_for_another_format_as_well_is_refused() {
    // The offset of a table of snapshots that has no entries is where a VDI image has its signature, and QEMU takes
    // the image for one.
    let mut image = qcow2(16);
    image.put_bytes(64, b"\x7f\x10\xda\xbe");
    let error = inspect(&image).unwrap_err().to_string();
    assert!(error.contains("passes for that of a VDI image"), "{error}");
}

#[test]
fn disks_with_boot_code_are_accepted() {
    // The first instructions of GRUB, of Windows, of SYSLINUX and of LILO, an empty disk, and text in the code.
    let heads: [&[u8]; 7] = [
        b"\xeb\x63\x90\0\0",
        b"\x33\xc0\x8e\xd0\xbc\0\x7c\x8e",
        b"\xfa\x31\xc0\x8e\xd8",
        b"\xfa\xeb\x21\x01\xb4\x01LILO",
        b"",
        b"\xeb\x0eversion=1\nCID=fffffffe\n",
        b"\0\nversion=1\n",
    ];
    for head in heads {
        assert!(is_raw(&disk(head)), "{head:?}");
        let mut image = qcow2(16);
        image[qcow2_layout::DATA << 16..][..1 << 16].fill(0);
        image.put_bytes(qcow2_layout::DATA << 16, head);
        inspect(&image).unwrap();
    }
    // Nothing where the disk begins.
    let mut image = qcow2(16);
    image.put_be64(qcow2_layout::L2 << 16, 0);
    inspect(&image).unwrap();
}

#[test]
fn trailers_are_found_where_readers_look_for_them() {
    for (trailer, name, places) in [
        (&b"koly"[..], "an Apple DMG image", [512, 513, 700, 1023]),
        (b"conectix", "a VHD image", [512, 512, 511, 511]),
    ] {
        for place in places {
            let mut disk = disk(b"");
            let at = disk.len() - place;
            disk.put_bytes(at, trailer);
            let error = inspect(&disk).unwrap_err().to_string();
            assert!(error.contains(name), "{place}: {error}");
        }
    }
    // A DMG file need not be a whole number of sectors.
    for extra in [1, 100, 511] {
        let mut disk = [disk(b""), vec![0; extra]].concat();
        let at = disk.len() - 512;
        disk.put_bytes(at, b"koly");
        let error = inspect(&disk).unwrap_err().to_string();
        assert!(error.contains("an Apple DMG image"), "{extra}: {error}");
    }
}

#[test]
fn what_qemu_takes_for_another_format_is_never_accepted_as_raw() {
    let test = "what_qemu_takes_for_another_format_is_never_accepted_as_raw";
    if !installed(test, &["qemu-img"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut recognised = 0;
    for head in heads() {
        let disk = disk(&head);
        if qemu_recognises(folder.path(), &disk) {
            recognised += 1;
            assert!(!is_raw(&disk), "{:?}", String::from_utf8_lossy(&head));
        }
    }
    // Else the judge sees nothing.
    assert!(recognised >= 20, "{recognised}");
    assert!(!qemu_recognises(folder.path(), &disk(b"\xeb\x63\x90")));

    let pieces: Vec<&[u8]> = vec![
        b"version=1\n",
        b"version=2\r\n",
        b"version=3",
        b"version=",
        b"#",
        b"# Disk",
        b" ",
        b"\n",
        b"\r",
        b"\r\n",
        b"\t",
        b"\0",
        b"\x0b",
        b"x",
        b"=",
        b"CID=0\n",
    ];
    let text = prop::collection::vec(prop::sample::select(pieces), 1..8)
        .prop_map(|pieces| pieces.concat());
    let damaged = (
        prop::sample::select(heads()),
        prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
        prop::option::of(any::<prop::sample::Index>()),
    )
        .prop_map(|(mut head, changes, inserted)| {
            for (place, value) in changes {
                let at = place.index(head.len());
                head[at] = value;
            }
            if let Some(place) = inserted {
                head.insert(place.index(head.len()), b' ');
            }
            head
        });
    let config = ProptestConfig::with_cases(400);
    proptest!(config, |(head in prop_oneof![text, damaged])| {
        let disk = disk(&head);
        if is_raw(&disk) {
            prop_assert!(!qemu_recognises(folder.path(), &disk));
        }
    });
}
