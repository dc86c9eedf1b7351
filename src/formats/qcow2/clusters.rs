//! What is known of each cluster of the file: how often the image says it is used, and for what it has been found in
//! use. Refcounts are read once, in order, so that lookups cost no reading whatever the order of the tables.

use super::super::error::require_inside;
use super::super::read_at::for_each_piece;
use super::super::{FormatError, ReadAt, bytes};
use super::header::Header;
use super::{corrupt, for_each_number};

/// One byte holds two clusters: 128 MiB of memory, 16 TiB of file with the usual clusters of 64 KiB.
const MAXIMUM_CLUSTERS: u64 = 2 * 128 * 1024 * 1024;

/// A refcount as far as it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refcount {
    Free,
    One,
    Many,
}

/// What a cluster is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    Metadata = 1,
    Data = 2,
    Compressed = 3,
}

/// Four bits for each cluster of the file: the lower two its refcount, the upper two its use.
#[derive(Debug)]
pub(super) struct ClusterMap {
    nibbles: Vec<u8>,
    cluster_bits: u32,
}

impl ClusterMap {
    /// Reads all refcounts, and notes the use of header, L1 table, refcount table and refcount blocks.
    pub(super) fn read<R: ReadAt + ?Sized>(
        content: &R,
        header: &Header,
    ) -> Result<ClusterMap, FormatError> {
        let length = content.len();
        let clusters = length.div_ceil(header.cluster_size());
        if clusters > MAXIMUM_CLUSTERS {
            return Err(FormatError::Unsupported {
                what: format!(
                    "a qcow2 file of {clusters} clusters, at most {MAXIMUM_CLUSTERS} are supported; \
                     convert it to larger clusters: qemu-img convert -O qcow2 -o cluster_size=2M"
                ),
            });
        }
        let bytes = usize::try_from(clusters.div_ceil(2)).unwrap_or(usize::MAX);
        let mut map = ClusterMap {
            nibbles: vec![0; bytes],
            cluster_bits: header.cluster_bits,
        };
        let cluster_size = header.cluster_size();
        let table_bytes = u64::from(header.refcount_table_clusters) * cluster_size;
        let per_block = (cluster_size * 8) >> header.refcount_order;
        let mut blocks = Vec::new();
        for_each_number(
            content,
            header.refcount_table_offset,
            table_bytes / 8,
            |index, block| {
                if block != 0 {
                    header.check_place(
                        &format!("the refcount block {index}"),
                        block,
                        cluster_size,
                        length,
                    )?;
                    // More blocks than the file has clusters would overlap: this bounds their number.
                    if blocks.len() as u64 >= clusters {
                        return Err(corrupt(
                            "the refcount table names more blocks than there are clusters"
                                .to_owned(),
                        ));
                    }
                    blocks.push((index, block));
                }
                Ok(())
            },
        )?;
        for (index, block) in &blocks {
            let first = index.saturating_mul(per_block);
            if first < clusters {
                map.read_block(content, header, *block, first)?;
            }
        }
        map.mark(0, cluster_size, Use::Metadata, || "the header".to_owned())?;
        let l1_bytes = u64::from(header.l1_entries) * 8;
        map.mark(header.l1_offset, l1_bytes, Use::Metadata, || {
            "the L1 table".to_owned()
        })?;
        map.mark(
            header.refcount_table_offset,
            table_bytes,
            Use::Metadata,
            || "the refcount table".to_owned(),
        )?;
        for (_, block) in blocks {
            map.mark(block, cluster_size, Use::Metadata, || {
                "a refcount block".to_owned()
            })?;
        }
        Ok(map)
    }

    fn read_block<R: ReadAt + ?Sized>(
        &mut self,
        content: &R,
        header: &Header,
        block: u64,
        first: u64,
    ) -> Result<(), FormatError> {
        require_inside(block, header.cluster_size(), content.len(), || {
            "a refcount block".to_owned()
        })?;
        let mut cluster = first;
        for_each_piece(content, block, header.cluster_size(), |piece| {
            let in_piece = ((piece.len() as u64) * 8) >> header.refcount_order;
            if piece.iter().any(|byte| *byte != 0) {
                for (index, number) in (cluster..cluster + in_piece).enumerate() {
                    let refcount = refcount_at(piece, index, header.refcount_order);
                    self.set_refcount(number, refcount);
                }
            }
            cluster += in_piece;
            Ok(())
        })
    }

    fn set_refcount(&mut self, cluster: u64, refcount: u64) {
        let shift = (cluster % 2) * 4;
        let slot = usize::try_from(cluster / 2)
            .ok()
            .and_then(|index| self.nibbles.get_mut(index));
        // Refcounts of clusters beyond the end of the file are of no interest: nothing may be there.
        if let Some(slot) = slot {
            *slot |= (refcount.min(2) as u8) << shift;
        }
    }

    fn nibble(&self, cluster: u64) -> u8 {
        let byte = usize::try_from(cluster / 2)
            .ok()
            .and_then(|index| self.nibbles.get(index));
        byte.map_or(0, |byte| (byte >> ((cluster % 2) * 4)) & 0xF)
    }

    /// The refcount of the cluster that holds the offset; free beyond the end of the file.
    pub(super) fn refcount(&self, offset: u64) -> Refcount {
        match self.nibble(offset >> self.cluster_bits) & 3 {
            0 => Refcount::Free,
            1 => Refcount::One,
            _ => Refcount::Many,
        }
    }

    /// Notes the use of all clusters that an area touches. `what` names the owner in errors.
    ///
    /// Errors: a cluster that the image counts as free, or that is in use already and counted once only. Metadata
    /// share a cluster with nothing, and compressed data only with each other.
    pub(super) fn mark(
        &mut self,
        offset: u64,
        size: u64,
        usage: Use,
        what: impl Fn() -> String,
    ) -> Result<(), FormatError> {
        let Some(last_byte) = size
            .checked_sub(1)
            .map(|beyond| offset.saturating_add(beyond))
        else {
            return Ok(());
        };
        for cluster in (offset >> self.cluster_bits)..=(last_byte >> self.cluster_bits) {
            self.mark_one(cluster << self.cluster_bits, usage, &what)?;
        }
        Ok(())
    }

    /// As [`ClusterMap::mark`], for the one cluster that holds the offset.
    pub(super) fn mark_one(
        &mut self,
        offset: u64,
        usage: Use,
        what: impl FnOnce() -> String,
    ) -> Result<(), FormatError> {
        let cluster = offset >> self.cluster_bits;
        let nibble = self.nibble(cluster);
        let (refcount, found_use) = (nibble & 3, nibble >> 2);
        if refcount == 0 {
            return Err(corrupt(format!(
                "{} uses the cluster at {offset:#x}, which is counted as free",
                what()
            )));
        }
        let rightly_shared = refcount >= 2 && usage != Use::Metadata && found_use == usage as u8;
        if found_use != 0 && !rightly_shared {
            return Err(corrupt(format!(
                "{} uses the cluster at {offset:#x}, which is in use already",
                what()
            )));
        }
        let slot = usize::try_from(cluster / 2)
            .ok()
            .and_then(|index| self.nibbles.get_mut(index));
        if let Some(slot) = slot {
            *slot |= ((usage as u8) << 2) << ((cluster % 2) * 4);
        }
        Ok(())
    }
}

/// The refcount of that index in (a part of) a block. Widths below a byte begin at its least significant bit.
fn refcount_at(block: &[u8], index: usize, order: u32) -> u64 {
    match order {
        0..=2 => {
            let per_byte = 8 >> order;
            let byte = block.get(index / per_byte).copied().unwrap_or(0);
            let width = 1 << order;
            u64::from(byte >> ((index % per_byte) * width)) & ((1 << width) - 1)
        }
        3 => u64::from(block.get(index).copied().unwrap_or(0)),
        4 => u64::from(bytes::be_u16(block, index * 2)),
        5 => u64::from(bytes::be_u32(block, index * 4)),
        _ => bytes::be_u64(block, index * 8),
    }
}
