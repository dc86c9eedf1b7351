//! Rules for the tables of snapshots and of bitmaps.

use super::{CLUSTER, assert_accepted, assert_refused, put_extension};
use crate::test_support::Put;
use crate::test_support::qcow2_layout::{L1, REFCOUNT_BLOCK, SPARE};

fn put_refcount(image: &mut [u8], cluster: usize, refcount: u8) {
    image[REFCOUNT_BLOCK * CLUSTER + cluster * 2 + 1] = refcount;
}

#[test]
fn snapshots_must_be_inside_the_file() {
    fn with_snapshot(image: &mut Vec<u8>) {
        image.put_be32(60, 1);
        image.put_be64(64, image.len() as u64);
        let mut entry = vec![0; 72];
        entry.put_be64(0, (SPARE * CLUSTER) as u64);
        entry.put_be32(8, 32);
        entry.put_bytes(12, &[0, 1, 0, 3]);
        entry.put_be32(36, 16);
        entry.put_bytes(56, b"1abc");
        image.append(&mut entry);
        put_refcount(image, 8, 1);
    }
    assert_accepted(&[
        with_snapshot,
        |image| {
            with_snapshot(image);
            image.truncate(8 * CLUSTER + 60);
        },
        // Version 2 knows no sizes there.
        |image| {
            with_snapshot(image);
            image.put_be32(4, 2);
            image.put_be32(8 * CLUSTER + 36, 0);
        },
    ]);
    assert_refused(&[
        ("truncated: the entry of the snapshot 1", |image| {
            with_snapshot(image);
            image.truncate(8 * CLUSTER + 59);
        }),
        ("truncated: the snapshot table", |image| {
            with_snapshot(image);
            image.put_be32(60, 60_000);
        }),
        ("truncated: the entry of the snapshot 2", |image| {
            with_snapshot(image);
            image.put_be32(60, 2);
            image.resize(8 * CLUSTER + 90, 0);
        }),
        ("the snapshot table begins at 0x8", |image| {
            with_snapshot(image);
            image.put_be64(64, 8);
        }),
        ("the L1 table of the snapshot 1 begins at 0xe01", |image| {
            with_snapshot(image);
            image.put_be64(8 * CLUSTER, (SPARE * CLUSTER) as u64 + 1);
        }),
        ("truncated: the L1 table of the snapshot 1", |image| {
            with_snapshot(image);
            image.put_be64(8 * CLUSTER, 1 << 40);
        }),
        (
            "the snapshot 1 has 15 bytes of extra data, expected 16 at least",
            |image| {
                with_snapshot(image);
                image.put_be32(8 * CLUSTER + 36, 15);
            },
        ),
        ("the snapshot 1 has 1025 bytes of extra data", |image| {
            with_snapshot(image);
            image.put_be32(8 * CLUSTER + 36, 1025);
        }),
        (
            "the L1 table of the snapshot 1 uses the cluster at 0x600, which is in use already",
            |image| {
                with_snapshot(image);
                image.put_be64(8 * CLUSTER, (L1 * CLUSTER) as u64);
            },
        ),
    ]);
}

#[test]
fn bitmaps_must_be_sound_where_they_are_marked_as_consistent() {
    const DIRECTORY: usize = 8 * CLUSTER;
    const TABLE: usize = 9 * CLUSTER;
    fn with_bitmap(image: &mut Vec<u8>) {
        image.put_be64(88, 1);
        let mut extension = vec![0; 24];
        extension.put_be32(0, 1);
        extension.put_be64(8, 32);
        extension.put_be64(16, DIRECTORY as u64);
        put_extension(image, 0x2385_2875, &extension);
        image.resize(TABLE + CLUSTER, 0);
        image.put_be64(DIRECTORY, TABLE as u64);
        image.put_be32(DIRECTORY + 8, 2);
        // Not saved: with any size of the table.
        image.put_bytes(DIRECTORY + 15, &[1, 1, 16, 0, 4]);
        image.put_bytes(DIRECTORY + 24, b"name");
        image.put_be64(TABLE, (SPARE * CLUSTER) as u64);
        image.put_be64(TABLE + 8, 1);
        put_refcount(image, 8, 1);
        put_refcount(image, 9, 1);
    }
    fn with_two(image: &mut Vec<u8>, second: &[u8; 4]) {
        with_bitmap(image);
        image.put_be32(120, 2);
        image.put_be64(128, 64);
        let first = image[DIRECTORY..DIRECTORY + 24].to_vec();
        image.put_bytes(DIRECTORY + 32, &first);
        image.put_bytes(DIRECTORY + 56, second);
        image.resize(TABLE + 2 * CLUSTER, 0);
        image.put_be64(DIRECTORY + 32, (TABLE + CLUSTER) as u64);
        put_refcount(image, 10, 1);
    }
    assert_accepted(&[
        with_bitmap,
        |image| {
            with_bitmap(image);
            image.put_be64(88, 0);
            image.put_be64(DIRECTORY, u64::MAX);
            image.put_be32(124, 1);
        },
        |image| with_two(image, b"nama"),
        // 2048 bits fill half of a cluster.
        |image| {
            with_bitmap(image);
            image.put_be32(DIRECTORY + 8, 1);
            image.put_bytes(DIRECTORY + 15, &[2, 1, 9]);
        },
        |image| {
            with_bitmap(image);
            image.put_be32(DIRECTORY + 8, 1);
            image.put_bytes(DIRECTORY + 15, &[0, 1, 31]);
        },
    ]);
    assert_refused(&[
        ("it has two bitmaps extensions", |image| {
            with_bitmap(image);
            let extension = image[112..144].to_vec();
            image.put_bytes(144, &extension);
        }),
        ("the bitmap 1 has the type 0, expected 1", |image| {
            with_bitmap(image);
            image[DIRECTORY + 16] = 0;
        }),
        ("the bitmap 1 has the type 2, expected 1", |image| {
            with_bitmap(image);
            image[DIRECTORY + 16] = 2;
        }),
        ("the bitmap 1 has a granularity of 2^8 bytes", |image| {
            with_bitmap(image);
            image[DIRECTORY + 17] = 8;
        }),
        ("the bitmap 1 has a granularity of 2^32 bytes", |image| {
            with_bitmap(image);
            image[DIRECTORY + 17] = 32;
        }),
        ("the bitmap 1 has the flags 0x5", |image| {
            with_bitmap(image);
            image[DIRECTORY + 15] = 5;
        }),
        ("the bitmap 1 has the flags 0x80000001", |image| {
            with_bitmap(image);
            image[DIRECTORY + 12] = 0x80;
        }),
        ("the bitmap 1 has 4 bytes of extra data", |image| {
            with_bitmap(image);
            image[DIRECTORY + 23] = 4;
            image[DIRECTORY + 19] = 0;
        }),
        ("the bitmap 1 has a name of 1024 bytes", |image| {
            with_bitmap(image);
            image.put_bytes(DIRECTORY + 18, &[4, 0]);
            image.put_be64(128, 1048);
            image.resize(DIRECTORY + 4 * CLUSTER, 0);
        }),
        ("the bitmap 1 has its table at the header", |image| {
            with_bitmap(image);
            image.put_be64(DIRECTORY, 0);
        }),
        (
            "the bitmap 1 has a table of 0 entries, expected 1 to",
            |image| {
                with_bitmap(image);
                image.put_be32(DIRECTORY + 8, 0);
            },
        ),
        (
            "the bitmap 1 has a table of 0 entries, expected 1 to 1",
            |image| {
                with_bitmap(image);
                image.put_be32(DIRECTORY + 8, 0);
                image[DIRECTORY + 15] = 0;
            },
        ),
        (
            "the bitmap 1 has a table of 2 entries, expected 1 to 1",
            |image| {
                with_bitmap(image);
                image[DIRECTORY + 15] = 2;
            },
        ),
        (
            "the bitmap 2 has the name \"name\" of another one",
            |image| with_two(image, b"name"),
        ),
        ("the bitmap 2 has the name \"na\" of another one", |image| {
            with_two(image, b"na\0x");
            image.put_bytes(DIRECTORY + 24, b"na\0y");
        }),
        (
            "the table of the bitmap 2 uses the cluster at 0x1200, which is in use already",
            |image| {
                with_two(image, b"nama");
                image.put_be64(DIRECTORY + 32, TABLE as u64);
            },
        ),
        (
            "the reserved field of the bitmaps extension is 0x00000001",
            |image| {
                with_bitmap(image);
                image.put_be32(124, 1);
            },
        ),
    ]);
    assert_refused(&[
        ("a directory of 0 bitmaps", |image| {
            with_bitmap(image);
            image.put_be32(120, 0);
        }),
        ("the bitmap directory begins at", |image| {
            with_bitmap(image);
            image.put_be64(136, 7);
        }),
        (
            "the bitmap directory has 40 bytes, and its entries only 32",
            |image| {
                with_bitmap(image);
                image.put_be64(128, 40);
            },
        ),
        (
            "the directory entry of the bitmap 1 goes beyond the directory",
            |image| {
                with_bitmap(image);
                image.put_be32(DIRECTORY + 20, u32::MAX);
            },
        ),
        ("truncated: the table of the bitmap 1", |image| {
            with_bitmap(image);
            image.put_be32(DIRECTORY + 8, 1 << 20);
        }),
        (
            "the entry 1 of the bitmap 1 is 0x0000000000000003",
            |image| {
                with_bitmap(image);
                image.put_be64(TABLE + 8, 3);
            },
        ),
        ("truncated: the cluster 0 of the bitmap 1", |image| {
            with_bitmap(image);
            image.put_be64(TABLE, 1 << 30);
        }),
    ]);
}
