//! Promises to users, tried with the images of real tools and with arbitrary bytes.

mod installers;
mod named;
mod probe;

use std::fs::File;
use std::path::Path;

use proptest::prelude::*;

use crate::test_support::{Put, gpt, installed, mbr, mbr_with_logical, qcow2, run, run_with};
use crate::{FileReader, Format, FormatError, Inspection, inspect};

fn inspect_file(path: &Path) -> Result<Inspection, FormatError> {
    inspect(&FileReader::new(File::open(path).unwrap()).unwrap())
}

/// 3 MiB and a bit: data that compress, data that do not, and holes.
fn write_source(path: &Path) {
    let mut source = vec![0; (3 << 20) + 1536];
    let mut state = 1u32;
    for chunk in source[..1 << 20].chunks_exact_mut(4) {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        chunk.copy_from_slice(&(state ^ (state >> 15)).to_be_bytes());
    }
    for (index, byte) in source[(3 << 19)..(2 << 20)].iter_mut().enumerate() {
        *byte = b"compress me "[index % 12];
    }
    source[(3 << 20)..].fill(7);
    std::fs::write(path, source).unwrap();
}

#[test]
fn images_of_qemu_are_accepted() {
    if !installed("images_of_qemu_are_accepted", &["qemu-img", "qemu-io"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write_source(&folder.join("source.raw"));
    let created: [&str; 16] = [
        "",
        "compat=0.10",
        "cluster_size=512",
        "cluster_size=512,compat=0.10",
        "cluster_size=2M",
        "lazy_refcounts=on",
        "preallocation=metadata",
        "preallocation=metadata,cluster_size=2M,compat=0.10",
        "preallocation=falloc",
        "preallocation=full,cluster_size=512",
        "refcount_bits=1,cluster_size=512",
        "refcount_bits=64,cluster_size=512",
        "extended_l2=on,cluster_size=16k",
        "extended_l2=on,cluster_size=2M",
        "extended_l2=on,preallocation=metadata",
        "compression_type=zstd",
    ];
    for options in created {
        let options = [options, "size=5243392"].join(",");
        let options = options.trim_start_matches(',');
        run(
            folder,
            &format!("qemu-img create -q -f qcow2 -o {options} image"),
        );
        let image = folder.join("image");
        let check = |when: &str| match inspect_file(&image) {
            Ok(found) => assert_eq!(
                (found.format, found.virtual_size),
                (Format::Qcow2, 5_243_392)
            ),
            Err(error) => panic!("{options}, {when}: {error}"),
        };
        check("new");
        let writes = [
            "write 0 512",
            "write 1M 1k",
            "write -z 2M 64k",
            "discard 1M 64k",
            "write 5242880 512",
        ];
        for write in writes {
            run_with(folder, &["qemu-io", "-f", "qcow2", "-c", write, "image"]);
            check(write);
        }
        if !options.contains("refcount_bits=1,") {
            run(folder, "qemu-img snapshot -q -c first image");
            run_with(
                folder,
                &["qemu-io", "-f", "qcow2", "-c", "write 3M 80k", "image"],
            );
            run(folder, "qemu-img snapshot -q -c second image");
            check("with snapshots");
            run(folder, "qemu-img snapshot -q -a first image");
            check("with a snapshot applied");
            run(folder, "qemu-img snapshot -q -d second image");
            check("with a snapshot deleted");
        }
        if !options.contains("compat=0.10") {
            run(folder, "qemu-img bitmap --add image one");
            run(folder, "qemu-img bitmap --add -g 512 image two");
            check("with bitmaps");
        }
    }
    let converted = [
        "",
        "-c",
        "-c -o cluster_size=512",
        "-c -o cluster_size=2M",
        "-c -o compression_type=zstd",
        "-c -o compression_type=zstd,cluster_size=512",
        "-c -o extended_l2=on",
        "-S 0 -o compat=0.10",
        "-W -o cluster_size=4k",
    ];
    for options in converted {
        run(
            folder,
            &format!("qemu-img convert -q -O qcow2 {options} source.raw image"),
        );
        let found = inspect_file(&folder.join("image"))
            .unwrap_or_else(|error| panic!("{options}: {error}"));
        assert_eq!(found.virtual_size, (3 << 20) + 1536, "{options}");
    }
}

#[test]
fn a_file_that_ends_inside_of_a_sector_of_compressed_data_is_whole() {
    if !installed(
        "a_file_that_ends_inside_of_a_sector_of_compressed_data_is_whole",
        &["qemu-img", "qemu-io"],
    ) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let image = folder.join("image");
    for options in [
        "compression_type=zlib",
        "compression_type=zstd",
        "compression_type=zlib,cluster_size=2M",
    ] {
        run(
            folder,
            &format!("qemu-img create -q -f qcow2 -o {options} image 8M"),
        );
        for write in ["write -c -P 1 0 2M", "write -c -P 2 2M 2M"] {
            run_with(folder, &["qemu-io", "-f", "qcow2", "-c", write, "image"]);
        }
        let length = std::fs::metadata(&image).unwrap().len();
        assert_ne!(
            length % 512,
            0,
            "{options}: this write was to end inside of a sector"
        );
        inspect_file(&image).unwrap_or_else(|error| panic!("{options}: {error}"));
        File::options()
            .write(true)
            .open(&image)
            .unwrap()
            .set_len(length - 1)
            .unwrap();
        assert!(
            matches!(inspect_file(&image), Err(FormatError::Truncated { .. })),
            "{options}"
        );
    }
}

#[test]
fn images_of_qemu_that_were_cut_are_refused() {
    if !installed("images_of_qemu_that_were_cut_are_refused", &["qemu-img"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write_source(&folder.join("source.raw"));
    for options in [
        "",
        "-c",
        "-c -o compression_type=zstd",
        "-S 0 -o cluster_size=512",
        "-o compat=0.10",
    ] {
        run(
            folder,
            &format!("qemu-img convert -q -O qcow2 {options} source.raw image"),
        );
        let image = std::fs::read(folder.join("image")).unwrap();
        inspect(&image).unwrap();
        for length in [image.len() / 2, image.len() - 512, image.len() - 1] {
            let result = inspect(&image[..length]);
            assert!(
                matches!(result, Err(FormatError::Truncated { .. })),
                "{options}, {length} of {}: {result:?}",
                image.len()
            );
        }
    }
}

#[test]
fn images_of_qemu_that_need_more_than_themselves_are_refused() {
    if !installed(
        "images_of_qemu_that_need_more_than_themselves_are_refused",
        &["qemu-img"],
    ) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    run(folder, "qemu-img create -q -f qcow2 base.qcow2 1M");
    let cases: [(&str, &[&str]); 5] = [
        (
            "refers to the backing file \"base.qcow2\"",
            &["qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 image"],
        ),
        (
            "refers to the backing file \"/absent\"",
            &[
                "qemu-img create -q -f qcow2 image 1M",
                "qemu-img rebase -q -u -b /absent -F raw image",
            ],
        ),
        (
            "the external data file \"data.raw\"",
            &["qemu-img create -q -f qcow2 -o data_file=data.raw image 1M"],
        ),
        (
            "the external data file \"data.raw\"",
            &["qemu-img create -q -f qcow2 -o data_file=data.raw,data_file_raw=on image 1M"],
        ),
        (
            "encrypted (LUKS)",
            &[
                "qemu-img create -q --object secret,id=key,data=word -f qcow2 \
               -o encrypt.format=luks,encrypt.key-secret=key,encrypt.iter-time=10 image 1M",
            ],
        ),
    ];
    for (expected, commands) in cases {
        for command in commands {
            run(folder, command);
        }
        let message = inspect_file(&folder.join("image")).unwrap_err().to_string();
        assert!(
            message.contains(expected),
            "expected {expected:?} in {message:?}"
        );
    }
    run(
        folder,
        "qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 image",
    );
    run(folder, "qemu-img convert -O qcow2 image flat.qcow2");
    inspect_file(&folder.join("flat.qcow2")).unwrap();
}

#[test]
fn other_disk_images_are_named() {
    if !installed("other_disk_images_are_named", &["qemu-img"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    // A real partition table inside does not help: a fixed VHD is the raw disk with a footer.
    std::fs::write(folder.join("source.raw"), mbr(8192, &[(0, 0x83, 1, 8000)])).unwrap();
    let cases = [
        ("a VMDK image", "vmdk"),
        ("a VMDK image", "vmdk -o subformat=streamOptimized"),
        ("a VDI image", "vdi"),
        ("a VHD image", "vpc"),
        ("a VHD image", "vpc -o subformat=fixed"),
        ("a VHDX image", "vhdx"),
        ("a QED image", "qed"),
        ("a Parallels image", "parallels"),
        ("a qcow image of version 1", "qcow"),
    ];
    for (expected, format) in cases {
        run(
            folder,
            &format!("qemu-img convert -f raw -O {format} source.raw image"),
        );
        let error = inspect_file(&folder.join("image")).unwrap_err();
        let message =
            format!("this looks like {expected}; supported are qcow2 and raw with an MBR or GPT");
        assert!(error.to_string().starts_with(&message), "{format}: {error}");
    }
}

#[test]
fn partition_tables_of_sfdisk_are_accepted() {
    if !installed("partition_tables_of_sfdisk_are_accepted", &["sfdisk"]) {
        return;
    }
    let scripts = [
        "label: dos\n,,L",
        "label: dos\n,1M,L,*\n,1M,S\n,1M,7\n,,c",
        "label: dos\n,2M,L\n,,E",
        "label: dos\n,2M,L\n,,E\n,1M,L\n,1M,L\n,1M,L",
        "label: gpt",
        "label: gpt\n,2M\n,,U",
        "label: gpt\ntable-length: 8\n,2M\n,,U",
    ];
    let folder = tempfile::tempdir().unwrap();
    for script in scripts {
        let path = folder.path().join("image");
        File::create(&path).unwrap().set_len(16 << 20).unwrap();
        std::fs::write(folder.path().join("script"), format!("{script}\n")).unwrap();
        run_with(
            folder.path(),
            &["sh", "-c", "sfdisk --no-tell-kernel -q image < script"],
        );
        let found = inspect_file(&path).unwrap_or_else(|error| panic!("{script:?}: {error}"));
        assert_eq!((found.format, found.virtual_size), (Format::Raw, 16 << 20));
    }
}

#[test]
fn what_is_no_disk_image_is_named_where_it_is_known() {
    let at = |offset: usize, signature: &[u8]| {
        let mut content = vec![0; 70_000];
        content.put_bytes(offset, signature);
        content
    };
    let mut fat = at(54, b"FAT12   ");
    fat.put_bytes(510, &[0x55, 0xAA]);
    // Boot code in the place of the table.
    fat.put_bytes(446, b"Non-system disk, press any key");
    let cases = [
        (vec![], "the content is empty"),
        (
            vec![1; 511],
            "the content has 511 bytes, less than one sector",
        ),
        (
            b"\x1f\x8b\x08\0".to_vec(),
            "this looks like a file compressed with gzip",
        ),
        (at(0, b"\xfd7zXZ\0"), "a file compressed with xz"),
        (at(0, b"\x28\xb5\x2f\xfd"), "a file compressed with zstd"),
        (at(0, b"BZh91AY"), "a file compressed with bzip2"),
        (at(0, b"PK\x03\x04"), "a zip archive"),
        (at(257, b"ustar"), "a tar archive"),
        (at(32769, b"CD001"), "an installer image"),
        (at(69_488, b"koly"), "an Apple DMG image"),
        (at(0, b"LUKS\xba\xbe"), "a LUKS encrypted volume"),
        (at(1080, b"\x53\xef"), "an ext2, ext3 or ext4 file system"),
        (fat, "a FAT file system without a partition table"),
        (
            at(100, b"anything"),
            "no partition table: expected MBR or GPT",
        ),
    ];
    for (content, expected) in cases {
        let error = inspect(&content).unwrap_err();
        assert!(error.is_bad_image());
        let message = error.to_string();
        assert!(
            message.contains(expected),
            "expected {expected:?} in {message:?}"
        );
    }
}

#[test]
fn a_disk_that_cannot_be_read_is_not_called_a_bad_image() {
    struct Broken;
    impl crate::ReadAt for Broken {
        fn len(&self) -> u64 {
            1 << 20
        }
        fn read_exact_at(&self, _: &mut [u8], _: u64) -> std::io::Result<()> {
            Err(std::io::Error::other("the disk is on fire"))
        }
    }
    let error = inspect(&Broken).unwrap_err();
    assert!(!error.is_bad_image());
    assert!(error.to_string().contains("the disk is on fire"));
}

#[test]
fn names_of_formats_read_back() {
    for format in [Format::Qcow2, Format::Raw] {
        assert_eq!(Format::from_name(format.as_str()), Some(format));
    }
    assert_eq!(Format::from_name("vmdk"), None);
    assert_eq!(Format::Raw.file_extension(), "img");
}

fn extended_qcow2() -> Vec<u8> {
    let mut image = qcow2(14);
    image.put_be64(72, 16);
    image.put_be64((4 << 14) + 8, 0xffff_ffff);
    image.put_be64((4 << 14) + 24, 0xffff_ffff);
    image
}

/// Sound images, and the areas of each where numbers stand that lead elsewhere.
fn samples() -> Vec<(Vec<u8>, Vec<std::ops::Range<usize>>)> {
    let tables = |cluster: usize| {
        let places = [0, cluster, 2 * cluster, 3 * cluster, 4 * cluster];
        places.map(|start| start..start + 128).to_vec()
    };
    vec![
        (qcow2(9), tables(512)),
        (qcow2(16), tables(65536)),
        (extended_qcow2(), tables(16384)),
        (
            mbr_with_logical(),
            vec![
                446..512,
                50 * 512 + 446..51 * 512,
                100 * 512 + 446..101 * 512,
            ],
        ),
        (
            gpt(512, 200, &[(40, 99)]),
            vec![446..512, 512..604, 1024..1152],
        ),
    ]
}

/// Bytes by which the supported formats are recognised, with their offsets; the first entry has none.
const MAGICS: &[(usize, &[u8])] = &[
    (0, b""),
    (0, b"QFI\xfb\0\0\0\x02"),
    (0, b"QFI\xfb\0\0\0\x03"),
    (510, &[0x55, 0xAA]),
];

proptest! {
    #[test]
    fn any_bytes_end_in_an_answer(
        mut content in proptest::collection::vec(0u8.., 0..3000),
        (offset, magic) in proptest::sample::select(MAGICS),
    ) {
        for (byte, of_magic) in content.iter_mut().skip(offset).zip(magic) {
            *byte = *of_magic;
        }
        if let Ok(found) = inspect(&content) {
            prop_assert!(found.virtual_size > 0 && found.virtual_size.is_multiple_of(512));
        }
    }

    #[test]
    fn damaged_images_end_in_an_answer(
        sample in 0..samples().len(),
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u64>(), 0u32..64, 1usize..9), 1..6),
        cut in proptest::option::weighted(0.2, any::<proptest::sample::Index>()),
    ) {
        let (mut image, areas) = samples().swap_remove(sample);
        let places: Vec<usize> = areas.into_iter().flatten().collect();
        for (place, value, shift, width) in changes {
            let at = places[place.index(places.len())];
            let value = (value >> shift).to_be_bytes();
            let end = (at + width).min(image.len());
            image[at..end].copy_from_slice(&value[8 - (end - at)..]);
        }
        if let Some(cut) = cut {
            let length = cut.index(image.len());
            image.truncate(length);
        }
        match inspect(&image) {
            Ok(found) => prop_assert!(found.virtual_size > 0 && found.virtual_size.is_multiple_of(512)),
            Err(error) => prop_assert!(error.is_bad_image(), "{error}"),
        }
    }
}
