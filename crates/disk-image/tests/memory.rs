//! A disk image of any size is inspected in 64 MiB. In a test of its own, since the allocator that counts is that of the
//! whole program.

use std::io;
use std::ops::Range;

use disk_image::{ReadAt, inspect};

/// A qcow2 image with clusters of 512 bytes, refcounts of one bit, and L2 tables that are all in holes.
struct LargeImage {
    clusters: u64,
    l2_tables: u64,
}

impl LargeImage {
    const CLUSTER: u64 = 512;

    /// Refcount table, refcount blocks, L1 table.
    fn areas(&self) -> [Range<u64>; 3] {
        let blocks = self.clusters.div_ceil(Self::CLUSTER * 8);
        let mut at = Self::CLUSTER;
        [blocks * 8, blocks * Self::CLUSTER, self.l2_tables * 8].map(|size| {
            let start = at;
            at += size.next_multiple_of(Self::CLUSTER);
            start..at
        })
    }

    fn number(&self, offset: u64) -> u64 {
        let [table, blocks, l1] = self.areas();
        if offset < Self::CLUSTER {
            return match offset {
                0 => u64::from_be_bytes(*b"QFI\xfb\0\0\0\x03"),
                16 => 9,
                24 => self.l2_tables * 64 * Self::CLUSTER,
                32 => self.l2_tables,
                40 => l1.start,
                48 => table.start,
                56 => ((table.end - table.start) / Self::CLUSTER) << 32,
                96 => 104,
                _ => 0,
            };
        }
        if table.contains(&offset) {
            let block = blocks.start + (offset - table.start) / 8 * Self::CLUSTER;
            return if block < blocks.end { block } else { 0 };
        }
        if blocks.contains(&offset) {
            return u64::MAX;
        }
        let index = (offset - l1.start) / 8;
        // From the last to the first, with gaps.
        if l1.contains(&offset) && index < self.l2_tables {
            (self.clusters - 1 - index * 7) * Self::CLUSTER
        } else {
            0
        }
    }
}

impl ReadAt for LargeImage {
    fn len(&self) -> u64 {
        self.clusters * Self::CLUSTER
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        assert_eq!((buffer.len() % 8, offset % 8), (0, 0));
        for (target, at) in buffer.chunks_exact_mut(8).zip((offset..).step_by(8)) {
            target.copy_from_slice(&self.number(at).to_be_bytes());
        }
        Ok(())
    }

    fn next_data(&self, offset: u64) -> Option<Range<u64>> {
        let [_, _, l1] = self.areas();
        (offset < l1.end).then_some(offset..l1.end)
    }
}

#[test]
fn a_qcow2_file_of_any_size_is_inspected_in_64_mib() {
    for (clusters, l2_tables) in [(12 << 20, 1200 << 10), (30 << 20, 4 << 20)] {
        let image = LargeImage {
            clusters,
            l2_tables,
        };
        let counted = allocation_counter::measure(|| {
            let found = inspect(&image).expect("a sound image");
            assert_eq!(found.virtual_size, l2_tables * 64 * LargeImage::CLUSTER);
        });
        assert!(counted.bytes_max > 40 << 20, "{counted:?}");
        assert!(counted.bytes_max <= 64 << 20, "{counted:?}");
    }
}
