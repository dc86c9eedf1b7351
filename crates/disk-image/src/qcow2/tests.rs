//! Rules of qcow2 images: one sound image, damaged in one way after the other.

use crate::inspect;
use crate::test_support::{Put, qcow2};

mod compressed;
mod counts;
mod side_tables;
mod tables;

const CLUSTER_BITS: u32 = 9;
const CLUSTER: usize = 1 << CLUSTER_BITS;

type Damage = fn(&mut Vec<u8>);

fn refusal(cluster_bits: u32, damage: Damage) -> String {
    let mut image = qcow2(cluster_bits);
    inspect(&image).unwrap();
    damage(&mut image);
    let error = inspect(&image).unwrap_err();
    assert!(error.is_bad_image(), "{error}");
    error.to_string()
}

fn assert_refused(cases: &[(&str, Damage)]) {
    for (number, (expected, damage)) in cases.iter().enumerate() {
        let message = refusal(CLUSTER_BITS, *damage);
        assert!(
            message.contains(expected),
            "case {number}: expected {expected:?} in {message:?}"
        );
    }
}

fn assert_accepted(cases: &[Damage]) {
    for (number, change) in cases.iter().enumerate() {
        let mut image = qcow2(CLUSTER_BITS);
        change(&mut image);
        if let Err(error) = inspect(&image) {
            panic!("case {number}: {error}");
        }
    }
}

fn put_extension(image: &mut Vec<u8>, kind: u32, data: &[u8]) {
    image.put_be32(112, kind);
    image.put_be32(116, data.len() as u32);
    image.put_bytes(120, data);
}

#[test]
fn every_cluster_size_of_qemu_is_accepted_and_the_virtual_size_read() {
    for cluster_bits in 9..=21 {
        let found = inspect(&qcow2(cluster_bits)).unwrap();
        assert_eq!(found.format, crate::Format::Qcow2);
        assert_eq!(found.virtual_size, 1 << 20);
    }
}

#[test]
fn numbers_of_the_header_that_break_the_rules_are_refused() {
    assert_refused(&[
        ("qcow2 of version 4, expected 2 or 3", |image| {
            image.put_be32(4, 4)
        }),
        ("a qcow image of version 1", |image| image.put_be32(4, 1)),
        ("clusters of 2^8 bytes", |image| image.put_be32(20, 8)),
        ("clusters of 2^22 bytes", |image| image.put_be32(20, 22)),
        ("a virtual size of 0 bytes", |image| image.put_be64(24, 0)),
        (
            "a virtual size of 1000 bytes, expected a multiple of 512",
            |image| image.put_be64(24, 1000),
        ),
        ("encrypted (AES)", |image| image.put_be32(32, 1)),
        ("encrypted (LUKS)", |image| image.put_be32(32, 2)),
        ("encrypted (by an unknown method)", |image| {
            image.put_be32(32, 3)
        }),
        ("expected at least 2048 for a virtual size", |image| {
            image.put_be64(24, 64 << 20)
        }),
        ("expected at least", |image| image.put_be64(24, !511)),
        ("an L1 table of 34359738360 bytes", |image| {
            image.put_be32(36, u32::MAX)
        }),
        (
            "the L1 table begins at 0x601, expected a multiple",
            |image| image.put_be64(40, 0x601),
        ),
        ("truncated: the L1 table would end at", |image| {
            image.put_be64(40, 1 << 40)
        }),
        ("the refcount table begins at 0x8", |image| {
            image.put_be64(48, 8)
        }),
        ("truncated: the refcount table would end at", |image| {
            image.put_be64(48, !511)
        }),
        ("no refcount table", |image| image.put_be32(56, 0)),
        ("a refcount table of 8389120 bytes", |image| {
            image.put_be32(56, 16385)
        }),
        ("65537 internal snapshots", |image| {
            image.put_be32(60, 65537)
        }),
        (
            "the snapshot table begins at 0x7, expected a multiple",
            |image| image.put_be64(64, 7),
        ),
        (
            "the snapshot table begins at 0x8000000000000000, expected 2^63 - 1 at most",
            |image| image.put_be64(64, 1 << 63),
        ),
        ("refcounts of 2^7 bits", |image| image.put_be32(96, 7)),
        ("a header of 96 bytes, expected 104 to 512", |image| {
            image.put_be32(100, 96)
        }),
        ("a header of 106 bytes", |image| image.put_be32(100, 106)),
        ("a header of 520 bytes", |image| image.put_be32(100, 520)),
    ]);
}

#[test]
fn feature_bits_are_known_or_refused_by_name() {
    assert_refused(&[
        (
            "marked dirty: it was not closed after writing, or is still open; repair it first: qemu-img check -r all",
            |image| image.put_be64(72, 1),
        ),
        ("marked corrupt", |image| image.put_be64(72, 2)),
        ("external data file (unnamed)", |image| {
            image.put_be64(72, 4)
        }),
        ("contradict each other", |image| image.put_be64(72, 8)),
        ("contradict each other", |image| image[104] = 1),
        (
            "compressed by the method 7, expected 0 (zlib) or 1 (zstd)",
            |image| {
                image.put_be64(72, 8);
                image[104] = 7;
            },
        ),
        ("extended L2 entries with clusters of 512 bytes", |image| {
            image.put_be64(72, 16)
        }),
        (
            "unknown incompatible features of qcow2: bit 5, bit 63",
            |image| image.put_be64(72, 1 << 63 | 32),
        ),
        (
            "unknown incompatible features of qcow2: bit 40 \"warp\\ndrive\"",
            |image| {
                image.put_be64(72, 1 << 40);
                let mut entry = [0; 48];
                entry[1] = 40;
                entry[2..12].copy_from_slice(b"warp\ndrive");
                put_extension(image, 0x6803_f857, &entry);
            },
        ),
        ("no bitmaps extension", |image| image.put_be64(88, 1)),
        ("no external data file", |image| image.put_be64(88, 2)),
    ]);
    assert_accepted(&[
        |image| {
            image.put_be64(72, 8);
            image[104] = 1;
        },
        // Compatible and autoclear features may be ignored, and lazy refcounts are one of them.
        |image| image.put_be64(80, u64::MAX),
        |image| image.put_be64(88, 1 << 20),
    ]);
}

#[test]
fn references_to_other_files_are_refused_and_their_names_shown_escaped() {
    assert_refused(&[
        (
            "refers to the backing file \"base.qcow2\"; flatten it first: qemu-img convert -O qcow2",
            |image| {
                image.put_be64(8, 200);
                image.put_be32(16, 10);
                image.put_bytes(200, b"base.qcow2");
            },
        ),
        ("the backing file (unnamed)", |image| image.put_be64(8, 200)),
        ("the backing file (unnamed)", |image| {
            image.put_be64(8, 500);
            image.put_be32(16, 100);
        }),
        ("the backing file (unnamed)", |image| {
            image.put_be64(8, u64::MAX);
            image.put_be32(16, u32::MAX);
        }),
        (r#"the backing file "\u{1b}[2J\xff""#, |image| {
            image.put_be64(8, 200);
            image.put_be32(16, 5);
            image.put_bytes(200, b"\x1b[2J\xff");
        }),
        ("external data file \"disk.raw\"", |image| {
            put_extension(image, 0x4441_5441, b"disk.raw");
        }),
    ]);
    assert_accepted(&[
        // The format of a backing file without a backing file, and an unknown extension.
        |image| put_extension(image, 0xe279_2aca, b"qcow2"),
        |image| put_extension(image, 0x1234_5678, b"anything"),
        |image| image.put_be32(16, 99),
    ]);
}

#[test]
fn extensions_must_fit_into_the_first_cluster() {
    assert_refused(&[
        ("does not fit into the first cluster", |image| {
            put_extension(image, 0x1234_5678, b"");
            image.put_be32(116, u32::MAX);
        }),
        (
            "the name of the backing file's format has 16 bytes, expected 15 at most",
            |image| put_extension(image, 0xe279_2aca, b"sixteen-is-large"),
        ),
        (
            "it has a header of encryption, and is not encrypted",
            |image| put_extension(image, 0x0537_be77, &[0; 16]),
        ),
        ("the bitmaps extension has 8 bytes", |image| {
            put_extension(image, 0x2385_2875, &[0; 8])
        }),
    ]);
    assert_accepted(&[|image| put_extension(image, 0xe279_2aca, b"fifteen-is-well")]);
    // Without an end mark the extensions go up to the end of the cluster.
    assert_accepted(&[|image| put_extension(image, 0x1234_5678, &[7; 392])]);
}
