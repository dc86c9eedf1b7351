//! Rules of refcounts, tables, snapshots and bitmaps.

use super::super::deflate::tests::compress;
use super::super::entries::{COMPRESSED, COPIED};
use super::super::l2_tables::Capacity;
use super::super::references::Limits;
use super::super::{Follower, check};
use super::{CLUSTER, CLUSTER_BITS, assert_accepted, assert_refused, refusal};
use crate::test_support::qcow2_layout::{DATA, L1, L2, REFCOUNT_BLOCK, REFCOUNT_TABLE, SPARE};
use crate::test_support::{Put, qcow2};
use crate::{FormatError, Stop, inspect};

fn put_l2(image: &mut Vec<u8>, index: usize, entry: u64) {
    image.put_be64(L2 * CLUSTER + index * 8, entry);
}

fn put_refcount(image: &mut [u8], cluster: usize, refcount: u8) {
    image[REFCOUNT_BLOCK * CLUSTER + cluster * 2 + 1] = refcount;
}

#[test]
fn refcounts_must_cover_what_is_used() {
    assert_refused(&[
        ("the refcount block 0 begins at 0x401", |image| {
            image.put_be64(REFCOUNT_TABLE * CLUSTER, 0x401)
        }),
        ("truncated: the refcount block 1 would end", |image| {
            image.put_be64(REFCOUNT_TABLE * CLUSTER + 8, 1 << 30);
        }),
        (
            "the refcount block 1 uses the cluster at 0x400, which is in use already",
            |image| {
                image.put_be64(
                    REFCOUNT_TABLE * CLUSTER + 8,
                    (REFCOUNT_BLOCK * CLUSTER) as u64,
                );
            },
        ),
        (
            "the header uses the cluster at 0x0, which is counted as free",
            |image| {
                image.put_be64(REFCOUNT_TABLE * CLUSTER, 0);
            },
        ),
        (
            "the L1 table uses the cluster at 0x600, which is counted as free",
            |image| put_refcount(image, L1, 0),
        ),
        (
            "the L2 table 0 uses the cluster at 0x800, which is counted as free",
            |image| put_refcount(image, L2, 0),
        ),
        (
            "the guest cluster 0 uses the cluster at 0xa00, which is counted as free",
            |image| {
                put_refcount(image, DATA, 0);
            },
        ),
        (
            "the guest cluster 0 at 0xa00 is marked as used once, and its refcount is not 1",
            |image| {
                put_refcount(image, DATA, 2);
            },
        ),
        ("the L2 table 0 at 0x800 is marked as used once", |image| {
            put_refcount(image, L2, 2)
        }),
    ]);
    assert_accepted(&[
        // Counted and not used: a leak, which loses nothing.
        |image| put_refcount(image, SPARE, 9),
        // Written by software that never sets the flag.
        |image| put_l2(image, 0, (DATA * CLUSTER) as u64),
        // Used twice, and counted twice.
        |image| {
            put_refcount(image, DATA, 2);
            put_l2(image, 0, (DATA * CLUSTER) as u64);
            put_l2(image, 5, (DATA * CLUSTER) as u64);
        },
    ]);
}

#[test]
fn every_width_of_refcounts_is_understood() {
    for order in 0..=6 {
        let mut image = qcow2(CLUSTER_BITS);
        image.put_be32(96, order);
        let width = 1usize << order;
        let block = REFCOUNT_BLOCK * CLUSTER;
        image[block..block + CLUSTER].fill(0);
        // The lowest bit of each refcount: big-endian numbers from 16 bits on, from the lowest bit below a byte.
        for cluster in 0..8 {
            let (byte, bit) = if width < 8 {
                (cluster * width / 8, cluster * width % 8)
            } else {
                (cluster * width / 8 + width / 8 - 1, 0)
            };
            image[block + byte] |= 1 << bit;
        }
        inspect(&image).unwrap_or_else(|error| panic!("order {order}: {error}"));
        let last_used = DATA + 1;
        let (byte, mask) = if width < 8 {
            (last_used * width / 8, 1u8 << (last_used * width % 8))
        } else {
            (last_used * width / 8 + width / 8 - 1, 1)
        };
        image[block + byte] &= !mask;
        let message = inspect(&image).unwrap_err().to_string();
        assert!(
            message.contains("counted as free"),
            "order {order}: {message}"
        );
    }
}

#[test]
fn entries_of_the_tables_must_be_sound() {
    assert_refused(&[
        (
            "the L1 entry 1 is 0x0000000000000001, with reserved bits set",
            |image| {
                image.put_be64(L1 * CLUSTER + 8, 1);
            },
        ),
        ("the L1 entry 1 points to the header", |image| {
            image.put_be64(L1 * CLUSTER + 8, COPIED)
        }),
        ("truncated: the L2 table 1 would end", |image| {
            image.put_be64(L1 * CLUSTER + 8, 1 << 20)
        }),
        (
            "the L2 table 1 uses the cluster at 0x800, which is in use already",
            |image| {
                image.put_be64(L1 * CLUSTER + 8, (L2 * CLUSTER) as u64);
            },
        ),
        (
            "the L2 table 1 uses the cluster at 0x600, which is in use already",
            |image| {
                image.put_be64(L1 * CLUSTER + 8, (L1 * CLUSTER) as u64 | COPIED);
            },
        ),
        ("of the guest cluster 3 has reserved bits set", |image| {
            put_l2(image, 3, 2)
        }),
        ("of the guest cluster 3 has reserved bits set", |image| {
            put_l2(image, 3, 1 << 56)
        }),
        ("points to the header", |image| put_l2(image, 3, COPIED)),
        (
            "truncated: the data of the guest cluster 3 would end at byte 1049088",
            |image| put_l2(image, 3, 1 << 20),
        ),
        (
            "the guest cluster 3 uses the cluster at 0xa00, which is in use already",
            |image| {
                put_l2(image, 3, (DATA * CLUSTER) as u64 | COPIED);
            },
        ),
        (
            "the guest cluster 3 uses the cluster at 0x400, which is in use already",
            |image| {
                put_l2(image, 3, (REFCOUNT_BLOCK * CLUSTER) as u64 | COPIED);
            },
        ),
        ("has the zero flag", |image| {
            image.put_be32(4, 2);
            put_l2(image, 3, 1);
        }),
        ("is compressed and marked as writable", |image| {
            put_l2(image, 3, COMPRESSED | COPIED | (SPARE * CLUSTER) as u64);
        }),
        (
            "truncated: the data of the compressed guest cluster 3",
            |image| {
                put_l2(image, 3, COMPRESSED | (8 * CLUSTER) as u64);
            },
        ),
        (
            "the compressed guest cluster 3 uses the cluster at 0xa00, which is in use already",
            |image| {
                put_l2(image, 3, COMPRESSED | ((DATA * CLUSTER) as u64 + 17));
            },
        ),
        ("of the guest cluster 3 has reserved bits set", |image| {
            put_l2(image, 3, COMPRESSED | 1 << 57)
        }),
    ]);
    assert_accepted(&[
        |image| put_l2(image, 3, 1),
        |image| put_l2(image, 3, (SPARE * CLUSTER) as u64 | COPIED | 1),
        |image| {
            put_l2(image, 3, COMPRESSED | ((SPARE * CLUSTER) as u64 + 17));
            image.put_bytes(SPARE * CLUSTER + 17, &DEFLATE);
        },
        |image| image.put_be32(4, 2),
    ]);
    let message = refusal(10, |image| image.put_be64(L2 * 1024, 5 * 1024 + 512));
    assert!(
        message.contains("points into the midst of a cluster"),
        "{message}"
    );
}

#[test]
fn extended_entries_must_be_sound() {
    const BITS: u32 = 14;
    const SIZE: usize = 1 << BITS;
    let data = (DATA * SIZE) as u64;
    let extended = |descriptor: u64, subclusters: u64| {
        let mut image = qcow2(BITS);
        image.put_be64(72, 16);
        image.put_be64(L2 * SIZE, descriptor);
        image.put_be64(L2 * SIZE + 8, subclusters);
        if descriptor & COMPRESSED != 0 {
            image.put_bytes(DATA * SIZE, &compress(&[1; SIZE]));
        }
        inspect(&image).map_err(|error| error.to_string())
    };
    for (descriptor, subclusters) in [
        (data | COPIED, 0xffff_ffff),
        (data | COPIED, 1),
        (data | COPIED, 0xffff_0000_0000_ffff),
        (0, 0xffff_ffff_0000_0000),
        (0, 0),
        (data | COMPRESSED, 0),
    ] {
        extended(descriptor, subclusters).unwrap();
    }
    for (descriptor, subclusters, expected) in [
        (data | COPIED, 0x1_0000_0001, "allocated and zero at once"),
        (0, 1, "allocated nowhere"),
        (data | COPIED | 1, 1, "zero flag"),
        (data | COMPRESSED, 1, "is compressed and has subclusters"),
    ] {
        let message = extended(descriptor, subclusters).unwrap_err();
        assert!(message.contains(expected), "{message}");
    }
    // Only subclusters with data must be in the file: here the first of the last cluster, and 511 bytes of it.
    let mut image = qcow2(BITS);
    image.put_be64(72, 16);
    image.put_be64(L2 * SIZE, (SPARE * SIZE) as u64 | COPIED);
    image.put_be64(L2 * SIZE + 8, 1);
    image.truncate(SPARE * SIZE + 512);
    inspect(&image).unwrap();
    image.truncate(SPARE * SIZE + 511);
    assert!(matches!(
        inspect(&image),
        Err(FormatError::Truncated { .. })
    ));
}

#[test]
fn a_cut_that_takes_what_is_needed_is_found_wherever_it_is() {
    let image = qcow2(CLUSTER_BITS);
    let needed = (DATA + 2) * CLUSTER;
    for length in 4..needed {
        let error = inspect(&image[..length]).unwrap_err();
        assert!(
            matches!(error, FormatError::Truncated { .. }),
            "{length}: {error}"
        );
    }
    inspect(&image[..needed]).unwrap();
}

#[test]
fn the_last_cluster_of_the_disk_may_end_where_the_disk_ends() {
    const BITS: u32 = 12;
    const SIZE: usize = 1 << BITS;
    let mut image = qcow2(BITS);
    image.put_be64(24, (SIZE + 512) as u64);
    for (length, accepted) in [
        (SIZE, true),
        (512, true),
        (513, false),
        (4095, false),
        (511, false),
    ] {
        let result = inspect(&image[..(DATA + 1) * SIZE + length]);
        assert_eq!(result.is_ok(), accepted, "{length}: {result:?}");
    }
}

/// 512 bytes, as zlib compresses them.
pub(super) const DEFLATE: [u8; 8] = [0x4b, 0x4c, 0x1c, 0x05, 0x23, 0x19, 0x00, 0x00];

#[test]
fn compressed_data_may_end_the_file_inside_of_a_sector_and_not_be_cut() {
    let start = SPARE * CLUSTER;
    let mut image = qcow2(CLUSTER_BITS);
    put_l2(&mut image, 3, COMPRESSED | start as u64);
    put_l2(&mut image, 4, COMPRESSED | (start + 8) as u64);
    put_refcount(&mut image, SPARE, 2);
    image.put_bytes(start, &DEFLATE);
    image.put_bytes(start + 8, &DEFLATE);
    for (length, accepted) in [
        (512, true),
        (511, false),
        (17, false),
        (16, true),
        (15, false),
        (8, false),
    ] {
        let result = inspect(&image[..start + length]);
        assert_eq!(result.is_ok(), accepted, "{length}: {result:?}");
    }
    // The second is discarded: its data may end the file all the same.
    let mut discarded = image.clone();
    put_l2(&mut discarded, 4, 0);
    put_refcount(&mut discarded, SPARE, 1);
    for (length, accepted) in [(512, true), (16, true), (8, true), (7, false)] {
        let result = inspect(&discarded[..start + length]);
        assert_eq!(result.is_ok(), accepted, "{length}: {result:?}");
    }
    // Counted once, used twice.
    put_refcount(&mut image, SPARE, 1);
    assert!(
        inspect(&image)
            .unwrap_err()
            .to_string()
            .contains("in use already")
    );
}

#[test]
fn an_image_with_more_l2_tables_than_are_kept_is_refused_with_a_way_out() {
    let none = Capacity {
        tables: 0,
        ..Capacity::USUAL
    };
    let limits = Limits {
        l2_tables: none,
        ..Limits::USUAL
    };
    let error = check(
        &qcow2(CLUSTER_BITS),
        Follower::new(Stop::never(), u64::MAX),
        limits,
    )
    .unwrap_err();
    assert!(
        matches!(&error, FormatError::Unsupported { what } if what.contains("cluster_size=2M")),
        "{error:?}"
    );
}
