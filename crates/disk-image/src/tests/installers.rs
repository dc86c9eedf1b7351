//! Installer images are answered alike, whatever partition table they have.

use crate::test_support::{Put, gpt, installed, mbr, run, run_with};
use crate::{FormatError, Inspection, Options, inspect, inspect_with};

/// Sectors of an image with room for a volume of 100 blocks.
const SECTORS: usize = 512;

/// Puts the descriptor of an ISO 9660 volume of so many blocks into an image.
fn put_iso(image: &mut Vec<u8>, blocks: u32) {
    image.put_bytes(32_768, b"\x01CD001\x01");
    image.put_le32(32_768 + 80, blocks);
    image.put_bytes(32_768 + 128, &[0, 8]);
}

fn allowed(image: &Vec<u8>) -> Result<Inspection, FormatError> {
    let options = Options {
        allow_installer_images: true,
    };
    inspect_with(image, options)
}

fn assert_refused(image: &Vec<u8>, name: &str, what: &str) {
    let error = inspect(image).expect_err(what);
    assert!(
        matches!(error, FormatError::InstallerImage { .. }),
        "{what}"
    );
    let message = error.to_string();
    for expected in [
        &*format!("this looks like an installer image ({name}), not an installed disk"),
        "remove that: wipefs -a -t iso9660,udf IMAGE",
    ] {
        assert!(message.contains(expected), "{what}: {message}");
    }
    let found = allowed(image).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_eq!(found.virtual_size, image.len() as u64);
    assert!(found.notes[0].contains("an installer image"), "{what}");
}

#[test]
fn an_installer_image_is_refused_by_name_with_any_table_and_admitted_by_the_option() {
    let tables = [
        ("no table", vec![0; SECTORS * 512]),
        ("an MBR", mbr(SECTORS, &[(0x80, 0x17, 64, 400)])),
        // As isohybrid makes it: the partition begins where the table is.
        ("an MBR of isohybrid", mbr(SECTORS, &[(0x80, 0x17, 0, 500)])),
        ("a GPT", gpt(512, SECTORS, &[(64, 400)])),
        (
            "a cut GPT",
            gpt(512, 2 * SECTORS, &[(64, 900)])[..SECTORS * 512].to_vec(),
        ),
    ];
    for (what, table) in tables {
        let mut iso = table.clone();
        put_iso(&mut iso, 100);
        assert_refused(&iso, "ISO 9660", what);
        let mut udf = table.clone();
        udf.put_bytes(32_769, b"BEA01");
        udf.put_bytes(34_817, b"NSR03");
        assert_refused(&udf, "UDF", what);
        let mut bridge = iso.clone();
        for (block, id) in [(1, b"CD001"), (2, b"BEA01"), (3, b"NSR02"), (4, b"TEA01")] {
            bridge.put_bytes(32_769 + block * 2048, id);
        }
        assert_refused(&bridge, "ISO 9660 and UDF", what);
        // What is left when only the first descriptor was wiped.
        let mut offset = table.clone();
        offset.put_bytes(65_537, b"CD001");
        assert_refused(&offset, "ISO 9660", what);
    }
}

#[test]
fn an_installer_image_that_was_cut_is_refused_even_where_such_are_allowed() {
    let mut iso = mbr(SECTORS, &[(0x80, 0x17, 64, 400)]);
    put_iso(&mut iso, 129);
    let message = allowed(&iso).unwrap_err().to_string();
    assert!(
        message.contains("truncated: the volume of the installer image would end at byte 264192"),
        "{message}"
    );
}

#[test]
fn what_is_no_installer_image_is_judged_as_ever_where_such_are_allowed() {
    assert!(allowed(&vec![0; SECTORS * 512]).is_err());
    let disk = mbr(SECTORS, &[(0x80, 0x83, 64, 400)]);
    assert_eq!(allowed(&disk).unwrap(), inspect(&disk).unwrap());
}

#[test]
fn installer_images_of_real_tools_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    std::fs::create_dir(folder.join("files")).unwrap();
    std::fs::write(folder.join("files/kernel"), vec![7; 300_000]).unwrap();
    std::fs::write(folder.join("esp"), vec![0; 1 << 20]).unwrap();
    let test = "installer_images_of_real_tools_are_refused_by_name";
    if installed(test, &["xorriso"]) {
        for options in [
            "",
            "-partition_offset 16",
            "-partition_offset 16 -appended_part_as_gpt -append_partition 2 0xef esp",
            "-append_partition 2 0xef esp",
            "-appended_part_as_gpt -append_partition 2 0xef esp",
            "-J -joliet-long -R -iso-level 3",
            "-chrp-boot-part",
        ] {
            run(
                folder,
                &format!("xorriso -as mkisofs -quiet -o image {options} files"),
            );
            let image = std::fs::read(folder.join("image")).unwrap();
            assert_refused(&image, "ISO 9660", options);
        }
    }
    if installed(test, &["genisoimage"]) {
        run(folder, "genisoimage -quiet -udf -o image files");
        let image = std::fs::read(folder.join("image")).unwrap();
        assert_refused(&image, "ISO 9660 and UDF", "genisoimage -udf");
    }
    if installed(test, &["xorriso", "wipefs", "sfdisk"]) {
        // An installed disk that was an installer once, and the command that the refusal names.
        run(folder, "xorriso -as mkisofs -quiet -o image files");
        run(folder, "truncate -s 4M image");
        run_with(
            folder,
            &[
                "sh",
                "-c",
                "printf 'label: dos\\n2048,,L\\n' | sfdisk -q --wipe never image",
            ],
        );
        assert!(inspect(&std::fs::read(folder.join("image")).unwrap()).is_err());
        run(folder, "wipefs -q -a -t iso9660,udf image");
        inspect(&std::fs::read(folder.join("image")).unwrap()).unwrap();
    }
}
