//! Refcounts against uses: an image that counts a cluster lower than it is used loses data at QEMU's next write, and
//! one that counts it higher only wastes space.

use std::path::Path;

use super::super::entries::COMPRESSED;
use super::super::l2_tables::Capacity;
use super::super::references::Limits;
use super::super::{Follower, check};
use super::tables::DEFLATE;
use super::{CLUSTER, CLUSTER_BITS};
use crate::test_support::qcow2_layout::{DATA, L1, L2, REFCOUNT_BLOCK, SPARE};
use crate::test_support::{Put, installed, qcow2, run, run_with};
use crate::{FileReader, FormatError, ReadAt, Stop, inspect};

fn be(image: &[u8], at: usize, width: usize) -> u64 {
    image[at..at + width]
        .iter()
        .fold(0, |number, byte| number << 8 | u64::from(*byte))
}

fn inspect_within(image: &[u8], limits: Limits) -> Result<u64, FormatError> {
    let follower = Follower::new(Stop::never(), u64::MAX);
    check(image, follower, limits).map(|(virtual_size, _)| virtual_size)
}

/// The verdict, which must be the same however little is looked at together.
fn verdict(image: &[u8]) -> Result<u64, String> {
    let usual = inspect_within(image, Limits::USUAL).map_err(|error| error.to_string());
    for (window, gathered) in [(8, 1), (16, 3), (64, 1000), (1 << 20, 2)] {
        let l2_tables = Capacity {
            gathered,
            ..Capacity::USUAL
        };
        let small = inspect_within(image, Limits { window, l2_tables });
        assert_eq!(
            usual.is_ok(),
            small.is_ok(),
            "{window}: {usual:?} {small:?}"
        );
    }
    usual
}

/// A change to an image with a part that uses a cluster so many times, counted as often as is said.
type Sharing = fn(&mut Vec<u8>, counted: u64);

/// Refcounts of 64 bits, 1 for each cluster.
fn wide() -> Vec<u8> {
    let mut image = qcow2(CLUSTER_BITS);
    image.put_be32(96, 6);
    for cluster in 0..CLUSTER / 8 {
        let count = u64::from(cluster < 8);
        image.put_be64(REFCOUNT_BLOCK * CLUSTER + cluster * 8, count);
    }
    image
}

fn count(image: &mut Vec<u8>, cluster: usize, counted: u64) {
    image.put_be64(REFCOUNT_BLOCK * CLUSTER + cluster * 8, counted);
}

fn l2(image: &mut Vec<u8>, index: usize, entry: u64) {
    image.put_be64(L2 * CLUSTER + index * 8, entry);
}

/// A snapshot with an L1 table at cluster 8 that shares the L2 table, and the snapshot table at cluster 9.
fn add_snapshots(image: &mut Vec<u8>, number: usize) {
    image.put_be32(60, number as u32);
    image.put_be64(64, image.len() as u64);
    let table_clusters = (number * 56).div_ceil(CLUSTER);
    let first_l1 = image.len() / CLUSTER + table_clusters;
    let mut table = vec![0; number * 56];
    for index in 0..number {
        table.put_be64(index * 56, ((first_l1 + index) * CLUSTER) as u64);
        table.put_be32(index * 56 + 8, 1);
        table.put_be32(index * 56 + 36, 16);
    }
    table.resize(table_clusters * CLUSTER, 0);
    image.extend(table);
    for _ in 0..number {
        image.extend(((L2 * CLUSTER) as u64).to_be_bytes());
        image.resize(image.len().next_multiple_of(CLUSTER), 0);
    }
    for cluster in 8..image.len() / CLUSTER {
        count(image, cluster, 1);
    }
    count(image, L2, number as u64 + 1);
    // Nothing that is shared may be written in place.
    let l1 = be(image, L1 * CLUSTER, 8) & !(1 << 63);
    image.put_be64(L1 * CLUSTER, l1);
    for index in 0..64 {
        let entry = be(image, L2 * CLUSTER + index * 8, 8) & !(1 << 63);
        l2(image, index, entry);
        let cluster = (entry & !COMPRESSED) as usize / CLUSTER;
        if cluster != 0 {
            count(image, cluster, number as u64 + 1);
        }
    }
}

#[test]
fn a_cluster_that_is_used_more_often_than_it_is_counted_is_refused() {
    let cases: [(&str, u64, Sharing); 7] = [
        ("three entries at one cluster", 3, |image, counted| {
            for index in 2..5 {
                l2(image, index, (SPARE * CLUSTER) as u64);
            }
            count(image, SPARE, counted);
        }),
        ("sixty entries at one cluster", 60, |image, counted| {
            for index in 2..62 {
                l2(image, index, (SPARE * CLUSTER) as u64);
            }
            count(image, SPARE, counted);
        }),
        ("reserved and zero", 2, |image, counted| {
            l2(image, 2, (SPARE * CLUSTER) as u64 | 1);
            l2(image, 9, (SPARE * CLUSTER) as u64 | 1);
            count(image, SPARE, counted);
        }),
        ("eight compressed in one", 8, |image, counted| {
            for index in 0..8 {
                let start = SPARE * CLUSTER + index * 60;
                l2(image, 2 + index, COMPRESSED | start as u64);
                image.put_bytes(start, &DEFLATE);
            }
            count(image, SPARE, counted);
        }),
        (
            "compressed over two clusters, twice",
            2,
            |image, counted| {
                // 300 bytes before the end of one cluster, and one sector more: into the next.
                let start = ((SPARE + 1) * CLUSTER - 300) as u64;
                image.resize(10 * CLUSTER, 0);
                image.put_bytes(start as usize, &DEFLATE);
                count(image, 8, counted);
                count(image, SPARE, 2);
                for index in 2..4 {
                    l2(image, index, COMPRESSED | 1 << 61 | start);
                }
            },
        ),
        ("an L2 table of three snapshots", 4, |image, counted| {
            add_snapshots(image, 3);
            count(image, L2, counted);
        }),
        (
            "data behind the table of three snapshots",
            4,
            |image, counted| {
                add_snapshots(image, 3);
                count(image, L2, 4);
                count(image, DATA, counted);
            },
        ),
    ];
    for (name, uses, share) in cases {
        for (counted, accepted) in [
            (uses, true),
            (uses + 1, true),
            (u64::MAX, true),
            (u64::from(u32::MAX) + 1, true),
            (uses - 1, false),
            (1, false),
            (0, false),
        ] {
            let mut image = wide();
            share(&mut image, counted);
            let found = verdict(&image);
            assert_eq!(
                found.is_ok(),
                accepted,
                "{name}, counted {counted}: {found:?}"
            );
        }
    }
}

#[test]
fn hundreds_of_snapshots_that_share_everything_are_counted_exactly() {
    for (counted, accepted) in [(300, false), (301, true), (302, true), (45, false)] {
        let mut image = wide();
        // Refcounts for more clusters.
        image.resize(8 * CLUSTER, 0);
        for block in 1..16 {
            image.put_be64(CLUSTER + block * 8, image.len() as u64);
            image.resize(image.len() + CLUSTER, 0);
        }
        for cluster in 0..image.len() / CLUSTER {
            set_refcount(&mut image, cluster, 1);
        }
        let start = image.len();
        let number = 300;
        let table_clusters = (number * 56usize).div_ceil(CLUSTER);
        let mut table = vec![0; table_clusters * CLUSTER];
        for index in 0..number {
            let l1 = start + (table_clusters + index) * CLUSTER;
            table.put_be64(index * 56, l1 as u64);
            table.put_be32(index * 56 + 8, 1);
            table.put_be32(index * 56 + 36, 16);
        }
        image.extend(table);
        for _ in 0..number {
            image.extend(((L2 * CLUSTER) as u64).to_be_bytes());
            image.resize(image.len() + CLUSTER - 8, 0);
        }
        image.put_be32(60, number as u32);
        image.put_be64(64, start as u64);
        image.put_be64(L1 * CLUSTER, (L2 * CLUSTER) as u64);
        for cluster in start / CLUSTER..image.len() / CLUSTER {
            set_refcount(&mut image, cluster, 1);
        }
        for (index, cluster) in [DATA, DATA + 1].into_iter().enumerate() {
            l2(&mut image, index, (cluster * CLUSTER) as u64);
            set_refcount(&mut image, cluster, 301);
        }
        set_refcount(&mut image, L2, 301);
        set_refcount(&mut image, DATA + 1, counted);
        let found = verdict(&image);
        assert_eq!(found.is_ok(), accepted, "{counted}: {found:?}");
    }
}

#[test]
fn what_snapshots_refer_to_must_be_sound() {
    let snapshot_l1 = 9 * CLUSTER;
    for (change, expected) in [
        (
            (|image, at| image.put_be64(at, (L2 * CLUSTER) as u64 | 1)) as fn(&mut Vec<u8>, usize),
            "the L1 entry 0 of the snapshot 1 is 0x0000000000000801, with reserved bits set",
        ),
        (
            |image, at| image.put_be64(at, 1 << 40),
            "truncated: the L2 table 0 of the snapshot 1",
        ),
        (
            |image, at| image.put_be64(at, (DATA * CLUSTER) as u64),
            "uses the cluster at 0xa00, which is in use already",
        ),
        (
            // Zero bytes are a table without entries, one that nothing counts.
            |image, at| {
                image.put_be64(at, (SPARE * CLUSTER) as u64);
                count(image, SPARE, 0);
            },
            "uses the cluster at 0xe00, which is counted as free",
        ),
    ] {
        let mut image = wide();
        add_snapshots(&mut image, 1);
        inspect(&image).unwrap();
        change(&mut image, snapshot_l1);
        let message = verdict(&image).unwrap_err();
        assert!(message.contains(expected), "{message}");
    }
    // Its own L2 table, with a reserved bit in an entry.
    let mut image = wide();
    add_snapshots(&mut image, 1);
    image.put_be64(snapshot_l1, (SPARE * CLUSTER) as u64);
    inspect(&image).unwrap();
    image.put_be64(SPARE * CLUSTER, 4);
    assert!(verdict(&image).unwrap_err().contains("reserved bits set"));
}

/// The refcount of a cluster, as the tables of the image say.
fn refcount_place(image: &[u8], cluster: usize) -> Option<(usize, usize, u32)> {
    let cluster_size = 1usize << be(image, 20, 4);
    let order = if be(image, 4, 4) == 2 {
        4
    } else {
        be(image, 96, 4)
    };
    let per_block = (cluster_size * 8) >> order;
    let entry = be(image, 48, 8) as usize + cluster / per_block * 8;
    let block = be(image, entry, 8) as usize;
    let bit = (cluster % per_block) << order;
    (block != 0).then_some((block + bit / 8, bit % 8, order as u32))
}

fn refcount(image: &[u8], cluster: usize) -> u64 {
    match refcount_place(image, cluster) {
        None => 0,
        Some((at, bit, order @ 0..3)) => u64::from(image[at] >> bit) & ((1 << (1 << order)) - 1),
        Some((at, _, order)) => be(image, at, 1 << (order - 3)),
    }
}

fn set_refcount(image: &mut [u8], cluster: usize, counted: u64) {
    match refcount_place(image, cluster).unwrap() {
        (at, bit, order @ 0..3) => {
            let mask = ((1u8 << (1 << order)) - 1) << bit;
            image[at] = image[at] & !mask | (counted as u8) << bit;
        }
        (at, _, order) => {
            let width = 1usize << (order - 3);
            image[at..at + width].copy_from_slice(&counted.to_be_bytes()[8 - width..]);
        }
    }
}

/// Lowers and raises each refcount of an image that QEMU finds free of faults.
fn assert_counted_exactly(path: &Path, options: &str) {
    run_with(
        path.parent().unwrap(),
        &["qemu-img", "check", "-q", "image"],
    );
    let mut image = std::fs::read(path).unwrap();
    verdict(&image).unwrap_or_else(|error| panic!("{options}: {error}"));
    let cluster_size = 1usize << be(&image, 20, 4);
    let order = if be(&image, 4, 4) == 2 {
        4
    } else {
        be(&image, 96, 4)
    };
    let largest = u64::MAX >> (64 - (1 << order));
    for cluster in 0..image.len().div_ceil(cluster_size) {
        let counted = refcount(&image, cluster);
        if counted > 0 {
            set_refcount(&mut image, cluster, counted - 1);
            let found = inspect(&image).map_err(|error| error.to_string());
            let message = found.expect_err(&format!("{options}: {cluster} is counted too low"));
            assert!(
                message.contains("counted") || message.contains("in use already"),
                "{options}, {cluster}: {message}"
            );
        }
        if counted < largest {
            set_refcount(&mut image, cluster, counted + 1);
            if let Err(error) = inspect(&image) {
                let message = error.to_string();
                assert!(
                    message.contains("marked as used once"),
                    "{options}, {cluster}: {message}"
                );
            }
        }
        set_refcount(&mut image, cluster, counted);
    }
}

#[test]
fn every_refcount_of_an_image_of_qemu_is_held_against_the_uses() {
    const TEST: &str = "every_refcount_of_an_image_of_qemu_is_held_against_the_uses";
    if !installed(TEST, &["qemu-img", "qemu-io"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let image = folder.join("image");
    let io = |commands: &[&str]| {
        let mut command = vec!["qemu-io", "-f", "qcow2"];
        for one in commands {
            command.extend(["-c", one]);
        }
        command.push("image");
        run_with(folder, &command);
    };
    for options in [
        "cluster_size=512",
        "cluster_size=512,compat=0.10",
        "cluster_size=512,refcount_bits=1",
        "cluster_size=512,refcount_bits=2",
        "cluster_size=1k,refcount_bits=4",
        "cluster_size=1k,refcount_bits=8",
        "cluster_size=2k,refcount_bits=32",
        "cluster_size=4k,refcount_bits=64,lazy_refcounts=on",
        "cluster_size=16k,extended_l2=on",
        "cluster_size=4k,compression_type=zstd",
        "cluster_size=4k,preallocation=metadata",
        "cluster_size=64k",
    ] {
        run(
            folder,
            &format!("qemu-img create -q -f qcow2 -o {options},size=1000448 image"),
        );
        io(&[
            "write -P 1 0 20k",
            "write -P 2 300k 9k",
            "write -z 100k 30k",
        ]);
        if !options.contains("preallocation") {
            io(&["write -c -P 3 512k 64k", "write -c -P 4 640k 64k"]);
        }
        assert_counted_exactly(&image, options);
        // Compressed clusters share a cluster until its refcount is full, which leaves nothing for a snapshot.
        let narrow = ["=1", "=2", "=4", "=8"].map(|bits| format!("refcount_bits{bits}"));
        if !narrow.iter().any(|bits| options.ends_with(bits)) {
            run(folder, "qemu-img snapshot -q -c first image");
            assert_counted_exactly(&image, options);
            io(&["write -P 6 2k 3k", "write -P 7 513k 5k", "discard 300k 4k"]);
            run(folder, "qemu-img snapshot -q -c second image");
            assert_counted_exactly(&image, options);
            io(&["write -P 8 700k 10k"]);
            run(folder, "qemu-img snapshot -q -a first image");
            assert_counted_exactly(&image, options);
            run(folder, "qemu-img snapshot -q -d second image");
            assert_counted_exactly(&image, options);
        }
        if !options.contains("compat=0.10") {
            run(folder, "qemu-img resize -q image 1200640");
            assert_counted_exactly(&image, options);
            run(folder, "qemu-img bitmap --add image one");
            run(folder, "qemu-img bitmap --add -g 512 image two");
            io(&["write -P 5 310k 5k"]);
            assert_counted_exactly(&image, options);
        }
    }
}

#[test]
fn tables_in_holes_are_not_read() {
    /// An image of 4 TiB, of which only what stands here was ever written.
    struct Sparse(Vec<(u64, Vec<u8>)>);
    const LENGTH: u64 = 4 << 40;
    impl ReadAt for Sparse {
        fn len(&self) -> u64 {
            LENGTH
        }
        fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> std::io::Result<()> {
            buffer.fill(0);
            let mut read = false;
            for (start, bytes) in &self.0 {
                for (target, at) in buffer.iter_mut().zip(offset..) {
                    let index = at.checked_sub(*start).map(|index| index as usize);
                    if let Some(byte) = index.and_then(|index| bytes.get(index)) {
                        (*target, read) = (*byte, true);
                    }
                }
            }
            // The start of the guest's disk is looked up entry by entry.
            let entry = buffer.len() == 8;
            assert!(
                read || entry || offset == 0,
                "a hole was read at {offset:#x}"
            );
            Ok(())
        }
        fn next_data(&self, offset: u64) -> Option<std::ops::Range<u64>> {
            self.0
                .iter()
                .map(|(start, bytes)| *start..*start + bytes.len() as u64)
                .find(|data| data.end > offset)
                .map(|data| data.start.max(offset)..data.end)
        }
    }
    const SIZE: u64 = 2 << 20;
    let entries = 2000u64;
    let mut header = vec![0; SIZE as usize];
    header.put_bytes(0, b"QFI\xfb");
    header.put_be32(4, 3);
    header.put_be32(20, 21);
    header.put_be64(24, 1 << 40);
    header.put_be32(36, entries as u32);
    header.put_be64(40, 3 * SIZE);
    header.put_be64(48, SIZE);
    header.put_be32(56, 1);
    header.put_be32(96, 4);
    header.put_be32(100, 104);
    let l1 = (0..entries).flat_map(|index| ((1000 + index) * SIZE).to_be_bytes());
    let content = Sparse(vec![
        (0, header),
        (SIZE, (2 * SIZE).to_be_bytes().to_vec()),
        (2 * SIZE, [0, 1].repeat(1 << 20)),
        (3 * SIZE, l1.collect()),
    ]);
    inspect(&content).unwrap();
}

#[test]
fn a_file_whose_tables_are_in_holes_is_looked_at_as_if_they_were_zeros() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image");
    const SIZE: usize = 1 << 16;
    let mut image = qcow2(16);
    let tables = 3000;
    image.put_be64(24, (tables as u64) << 29);
    image.put_be32(36, tables as u32);
    for index in 1..tables {
        image.put_be64(L1 * SIZE + index * 8, ((8 + index) * SIZE) as u64);
        image.put_bytes(REFCOUNT_BLOCK * SIZE + (8 + index) * 2, &[0, 1]);
    }
    std::fs::write(&path, &image).unwrap();
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    file.set_len(((8 + tables) * SIZE) as u64).unwrap();
    let open = || FileReader::new(std::fs::File::open(&path).unwrap()).unwrap();
    inspect(&open()).unwrap();
    // The last table names a cluster beyond the end.
    let last = ((8 + tables - 1) * SIZE + 512) as u64;
    std::os::unix::fs::FileExt::write_all_at(&file, &(1u64 << 40).to_be_bytes(), last).unwrap();
    assert!(
        inspect(&open())
            .unwrap_err()
            .to_string()
            .contains("truncated")
    );
}
