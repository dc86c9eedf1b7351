//! Sizes that compressed clusters must decompress to, and that each is decompressed once, as it arrives where that can be.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{Rng as _, RngCore as _, SeedableRng as _};

use super::super::deflate::tests::{compress, empty_blocks};
use super::super::entries::{COMPRESSED, COPIED};
use super::super::follower::{Decompressed, Follower};
use super::super::references::Limits;
use crate::test_support::{Put, installed, run};
use crate::{FormatError, Stop, inspect};

/// An image by hand: its clusters are compressed and stand one behind the other, the first for the first cluster of
/// the guest, and so on.
struct Image {
    cluster_bits: u32,
    zstd: bool,
    streams: Vec<Vec<u8>>,
    /// Sectors taken from the number that the data of each cluster have.
    missing_sectors: u64,
    /// Whether the L2 table stands behind the data.
    table_last: bool,
    /// How many clusters of the guest have the same data.
    uses: usize,
}

impl Image {
    fn new(cluster_bits: u32, streams: Vec<Vec<u8>>) -> Image {
        Image {
            cluster_bits,
            zstd: false,
            streams,
            missing_sectors: 0,
            table_last: false,
            uses: 1,
        }
    }

    fn build(&self) -> Vec<u8> {
        let cluster = 1usize << self.cluster_bits;
        let stored: usize = self.streams.iter().map(Vec::len).sum();
        let data_clusters = stored.div_ceil(cluster).max(1);
        let guest_clusters = self.streams.len() * self.uses;
        assert!(guest_clusters <= cluster / 8 && data_clusters + 5 <= cluster / 2);
        let (l2, data) = if self.table_last {
            (4 + data_clusters, 4)
        } else {
            (4, 5)
        };
        let mut image = vec![0; (data_clusters + 5) * cluster];
        image.put_bytes(0, b"QFI\xfb");
        image.put_be32(4, 3);
        image.put_be32(20, self.cluster_bits);
        image.put_be64(24, (guest_clusters * cluster) as u64);
        image.put_be32(36, 1);
        image.put_be64(40, 3 * cluster as u64);
        image.put_be64(48, cluster as u64);
        image.put_be32(56, 1);
        image.put_be64(72, u64::from(self.zstd) << 3);
        image.put_be32(96, 4);
        image.put_be32(100, 112);
        image[104] = u8::from(self.zstd);
        image.put_be64(cluster, 2 * cluster as u64);
        for index in 0..data_clusters + 5 {
            let is_data = (data..data + data_clusters).contains(&index);
            let refcount = if is_data { [0x7F, 0xFF] } else { [0, 1] };
            image.put_bytes(2 * cluster + index * 2, &refcount);
        }
        image.put_be64(3 * cluster, (l2 * cluster) as u64 | COPIED);
        let mut at = data * cluster;
        let sector_bits = self.cluster_bits - 8;
        for (index, stream) in self.streams.iter().enumerate() {
            image.put_bytes(at, stream);
            let sectors = ((at + stream.len() - 1) / 512 - at / 512) as u64 - self.missing_sectors;
            let entry = COMPRESSED | sectors << (62 - sector_bits) | at as u64;
            for number in 0..self.uses {
                image.put_be64(l2 * cluster + (index * self.uses + number) * 8, entry);
            }
            at += stream.len();
        }
        image
    }
}

/// Inspects an image that arrives in pieces of those sizes, over and over; pieces of zeros as holes.
fn followed(image: &[u8], pieces: &[usize], stop: Stop) -> Result<Decompressed, FormatError> {
    let mut follower = Follower::new(stop, u64::MAX);
    let (mut rest, mut sizes) = (image, pieces.iter().cycle());
    while !rest.is_empty() {
        let size = (*sizes.next().unwrap()).min(rest.len());
        let (piece, after) = rest.split_at(size);
        if piece.iter().all(|byte| *byte == 0) {
            follower.zeros(piece.len() as u64);
        } else {
            follower.data(piece);
        }
        rest = after;
    }
    super::super::check(&image.to_vec(), follower, Limits::USUAL)
        .map(|(_, decompressed)| decompressed)
}

fn text(length: usize, seed: usize) -> Vec<u8> {
    let words = ["disk ", "image ", "cluster ", "sector ", "table "];
    let mut random = StdRng::seed_from_u64(seed as u64);
    let text = std::iter::repeat_with(|| words[random.random_range(0..5)].bytes());
    text.flatten().take(length).collect()
}

fn noise(length: usize) -> Vec<u8> {
    let mut noise = vec![0; length];
    StdRng::seed_from_u64(1).fill_bytes(&mut noise);
    noise
}

/// The offsets at which the compressed data of the image's clusters begin.
fn data_offsets(image: &[u8]) -> Vec<usize> {
    let number = |at: usize| u64::from_be_bytes(image[at..at + 8].try_into().unwrap()) & !COPIED;
    let (cluster, sector_bits) = (1usize << image[23], u32::from(image[23]) - 8);
    let (l1_entries, l1) = (number(32) as u32 as usize, number(40) as usize);
    let tables = (0..l1_entries).map(|index| number(l1 + index * 8) as usize);
    let entries = tables
        .filter(|table| *table != 0)
        .flat_map(|table| (table..table + cluster).step_by(8).map(number));
    let data = entries.filter(|entry| entry & COMPRESSED != 0);
    data.map(|entry| (entry & ((1 << (62 - sector_bits)) - 1)) as usize)
        .collect()
}

fn zstd(data: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; zstd_safe::compress_bound(data.len())];
    let length = zstd_safe::compress(&mut frame[..], data, 3).unwrap();
    frame.truncate(length);
    frame
}

/// The refusal of an image, which is the same whether it was followed or not.
fn refusal(image: &[u8]) -> String {
    let whole = inspect(&image.to_vec()).unwrap_err();
    assert!(whole.is_bad_image());
    for pieces in [&[image.len()][..], &[1000], &[1, 65536]] {
        let error = followed(image, pieces, Stop::never()).unwrap_err();
        assert_eq!(error.to_string(), whole.to_string());
    }
    whole.to_string()
}

#[test]
fn every_kind_of_damage_to_a_compressed_cluster_is_refused_and_named() {
    const SIZE: usize = 4096;
    let good = || vec![compress(&text(SIZE, 0)), compress(&text(SIZE, 1))];
    let with = |second: Vec<u8>| Image::new(12, vec![good().remove(0), second]);
    let mut zeroed = compress(&text(SIZE, 1));
    let length = zeroed.len();
    zeroed[20..length - 20].fill(0);
    let cut = compress(&noise(SIZE));
    let cases = [
        (
            with(zeroed),
            "damaged: expected zlib data, as the header says, that give exactly 4096 bytes",
        ),
        (with(vec![0; 300]), "they are invalid after 0 bytes"),
        (with(compress(&text(SIZE - 1, 1))), "they give 4095 bytes"),
        (with(compress(&text(SIZE + 1, 1))), "they give more"),
        (with(zstd(&text(SIZE, 1))), "they are zstd data"),
        (
            Image {
                missing_sectors: 2,
                ..Image::new(12, vec![cut.clone(), cut])
            },
            "they end within the stream",
        ),
        (
            Image {
                zstd: true,
                ..Image::new(12, vec![zstd(&text(SIZE, 0)), compress(&text(SIZE, 1))])
            },
            "expected zstd data, as the header says, that give exactly 4096 bytes; they are zlib data",
        ),
        (
            Image {
                zstd: true,
                ..Image::new(12, vec![zstd(&text(SIZE, 0)), zstd(&text(SIZE - 1, 1))])
            },
            "they give 4095 bytes",
        ),
        (
            Image {
                zstd: true,
                ..Image::new(12, vec![zstd(&text(SIZE, 0)), zstd(&text(SIZE + 1, 1))])
            },
            "they give more",
        ),
        (
            with(empty_blocks(1, 3000).bytes),
            "they have more than 7 blocks",
        ),
    ];
    for (image, expected) in cases {
        let message = refusal(&image.build());
        assert!(
            message.contains(expected),
            "expected {expected:?} in {message:?}"
        );
        for words in [
            "compressed guest cluster",
            "qemu-img convert -c -O qcow2 SOURCE IMAGE",
        ] {
            assert!(message.contains(words), "expected {words:?} in {message:?}");
        }
    }
    let message = refusal(&with(vec![0; 300]).build());
    assert!(
        message.contains("the compressed guest cluster 1 "),
        "{message}"
    );
}

#[test]
fn what_follows_the_data_in_their_last_sector_is_no_concern() {
    for zstd_data in [false, true] {
        let streams = (0..6).map(|seed| {
            let text = text(4096, seed);
            let mut stream = if zstd_data {
                zstd(&text)
            } else {
                compress(&text)
            };
            stream.extend([0xA5; 40]);
            stream
        });
        let image = Image {
            zstd: zstd_data,
            ..Image::new(12, streams.collect())
        };
        inspect(&image.build()).unwrap();
    }
}

#[test]
fn each_cluster_is_decompressed_once_as_it_arrives_or_at_the_end() {
    let streams: Vec<_> = (0..300).map(|seed| compress(&text(4096, seed))).collect();
    for (table_last, expected) in [
        (
            false,
            Decompressed {
                early: 300,
                late: 0,
            },
        ),
        (
            true,
            Decompressed {
                early: 0,
                late: 300,
            },
        ),
    ] {
        let image = Image {
            table_last,
            ..Image::new(12, streams.clone())
        };
        let image = image.build();
        for pieces in [&[usize::MAX][..], &[1], &[4096], &[5, 100_000]] {
            let found = followed(&image, pieces, Stop::never()).unwrap();
            assert_eq!(found, expected, "{pieces:?}");
        }
        // Clusters that did not pass by are checked at the end.
        for length in [0, 100, 4096 * 4, image.len() - 1] {
            let mut follower = Follower::new(Stop::never(), u64::MAX);
            follower.data(&image[..length]);
            let (_, found) = super::super::check(&image, follower, Limits::USUAL).unwrap();
            assert_eq!(
                found,
                Decompressed {
                    early: 0,
                    late: 300
                }
            );
        }
    }
}

#[test]
fn data_that_many_clusters_share_are_decompressed_once() {
    let streams: Vec<_> = (0..2).map(|seed| compress(&text(4096, seed))).collect();
    for table_last in [false, true] {
        let image = Image {
            table_last,
            uses: 250,
            ..Image::new(12, streams.clone())
        };
        let found = followed(&image.build(), &[1000], Stop::never()).unwrap();
        assert_eq!(found.early + found.late, 2);
    }
}

#[test]
fn clusters_that_the_guest_cannot_see_and_disks_that_are_refused_are_not_decompressed() {
    let streams: Vec<_> = (0..20).map(|seed| compress(&text(4096, seed))).collect();
    let mut image = Image::new(12, streams).build();
    let mut follower = Follower::new(Stop::never(), 20 * 4096 - 1);
    follower.data(&image);
    assert!(follower.is_idle());
    let (_, found) = super::super::check(&image, follower, Limits::USUAL).unwrap();
    assert_eq!(found, Decompressed::default());
    image.put_be64(24, 3 * 4096);
    let found = followed(&image, &[1000], Stop::never()).unwrap();
    assert_eq!(found, Decompressed { early: 3, late: 0 });
}

#[test]
fn decompression_ends_soon_after_it_is_told_to_stop() {
    let streams: Vec<_> = (0..400).map(|seed| compress(&text(4096, seed))).collect();
    for table_last in [false, true] {
        let image = Image {
            table_last,
            ..Image::new(12, streams.clone())
        };
        let asked = Arc::new(AtomicU64::new(0));
        let counter = asked.clone();
        let stop = Stop::when(move || counter.fetch_add(1, Ordering::SeqCst) >= 50);
        let error = followed(&image.build(), &[1000], stop).unwrap_err();
        assert!(matches!(error, FormatError::Stopped), "{error}");
        assert!(!error.is_bad_image());
        // Asked before each cluster, by two threads.
        assert!(asked.load(Ordering::SeqCst) <= 52);
    }
}

#[test]
fn bytes_of_no_interest_are_not_kept() {
    let mut raw = Follower::new(Stop::never(), u64::MAX);
    raw.data(&[0; 100]);
    assert!(raw.is_idle());
    let mut qcow2 = Follower::new(Stop::never(), u64::MAX);
    qcow2.data(&Image::new(12, vec![compress(&text(4096, 0))]).build());
    // A terabyte of zeros costs nothing.
    qcow2.zeros(1 << 40);
    assert!(!qcow2.is_idle());
}

#[test]
fn compressed_images_of_qemu_are_decompressed_as_they_arrive() {
    let test = "compressed_images_of_qemu_are_decompressed_as_they_arrive";
    if !installed(test, &["qemu-img"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let mut source = text(5 << 20, 5);
    source[1 << 20..2 << 20].fill(0);
    std::fs::write(folder.join("source"), &source).unwrap();
    for options in [
        "compression_type=zlib",
        "compression_type=zstd",
        "compression_type=zlib,cluster_size=512",
        "compression_type=zstd,cluster_size=512",
        "compression_type=zlib,cluster_size=4k",
        "compression_type=zstd,cluster_size=4k",
        "compression_type=zlib,cluster_size=2M",
        "compression_type=zstd,cluster_size=2M",
        "compression_type=zlib,extended_l2=on",
        "compression_type=zstd,extended_l2=on",
        "compat=0.10",
    ] {
        run(
            folder,
            &format!("qemu-img convert -q -f raw -c -O qcow2 -o {options} source image"),
        );
        let image = std::fs::read(folder.join("image")).unwrap();
        let found = followed(&image, &[30_000, 1 << 20], Stop::never());
        let found = found.unwrap_or_else(|error| panic!("{options}: {error}"));
        // Data may begin in the rest of a cluster that was there before their table.
        assert!(found.early > 20 * found.late, "{options}: {found:?}");
        assert_eq!(
            followed(&image, &[image.len()], Stop::never()).unwrap(),
            found
        );
        let mut follower = Follower::new(Stop::never(), u64::MAX);
        follower.data(&image[..1000]);
        let (_, alone) = super::super::check(&image, follower, Limits::USUAL).unwrap();
        assert_eq!(
            alone,
            Decompressed {
                early: 0,
                late: found.early + found.late
            },
            "{options}"
        );

        // Zeros over the data of one cluster; and the other method in the header.
        let mut zeroed = image.clone();
        let data = data_offsets(&image);
        zeroed[data[data.len() / 2]..][..60].fill(0);
        let message = refusal(&zeroed);
        assert!(
            message.contains(" is damaged: expected z"),
            "{options}: {message}"
        );
        if options != "compat=0.10" {
            let mut other = image;
            other[104] ^= 1;
            other[79] ^= 8;
            let message = refusal(&other);
            let found = if options.contains("zstd") {
                "they are zstd"
            } else {
                "they are zlib"
            };
            assert!(message.contains(found), "{options}: {message}");
        }
    }
}

#[test]
fn qemu_reads_what_is_accepted_of_the_finer_points() {
    let test = "qemu_reads_what_is_accepted_of_the_finer_points";
    if !installed(test, &["qemu-img"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    // The same noise again, 20,000 bytes further: beyond the window that the format names.
    let mut far = vec![0; 1 << 16];
    far[..20_000].copy_from_slice(&noise(20_000));
    far.copy_within(..20_000, 20_000);
    let stream = compress(&far);
    assert!(stream.len() < 25_000);
    let mut frames = zstd(&far[..100]);
    frames.extend([0x53, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, 9]);
    frames.extend(zstd(&[]));
    frames.extend(zstd(&far[100..]));
    let mut flushed = empty_blocks(0, 3).bytes;
    flushed.extend(compress(&far));
    for (zstd, streams) in [(false, vec![stream, flushed]), (true, vec![frames; 2])] {
        let image = Image {
            zstd,
            ..Image::new(16, streams)
        };
        let image = image.build();
        inspect(&image).unwrap();
        std::fs::write(folder.join("image"), image).unwrap();
        run(folder, "qemu-img convert -f qcow2 -O raw image out");
        let out = std::fs::read(folder.join("out")).unwrap();
        assert!(out == [far.clone(), far.clone()].concat());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn an_image_that_is_followed_has_the_same_answer(
        kinds in proptest::collection::vec((0usize..4000, 0u8..6), 1..40),
        pieces in proptest::collection::vec(1usize..20_000, 1..5),
        zstd_data: bool,
        table_last: bool,
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..3),
    ) {
        let streams = kinds.iter().map(|(seed, kind)| {
            let length = 4096 + usize::from(*kind == 0 && *seed < 200);
            if zstd_data { zstd(&text(length, *seed)) } else { compress(&text(length, *seed)) }
        });
        let image = Image {
            zstd: zstd_data,
            table_last,
            ..Image::new(12, streams.collect())
        };
        let mut image = image.build();
        for (place, value) in changes {
            let place = place.index(image.len());
            image[place] = value;
        }
        let alone = inspect(&image);
        let followed = followed(&image, &pieces, Stop::never());
        match (&alone, &followed) {
            (Ok(_), Ok(_)) => {}
            (Err(FormatError::DamagedCluster { .. }), Err(FormatError::DamagedCluster { .. })) => {}
            (Err(alone), Err(followed)) => {
                prop_assert_eq!(alone.to_string(), followed.to_string());
            }
            _ => prop_assert!(false, "{alone:?} {followed:?}"),
        }
    }
}
