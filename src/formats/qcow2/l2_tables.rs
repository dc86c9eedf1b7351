//! Which clusters are L2 tables, and how many entries of L1 tables refer to each: snapshots share them with the
//! active table. Each table is walked once, whatever refers to it, so that time is bounded by what is in the file.

use super::super::{FormatError, ReadAt};
use super::corrupt;
use super::header::Header;
use super::structures::{Kind, Structures};
use super::tables::Tables;

const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
const RESERVED: u64 = 0x7f00_0000_0000_01ff;
const COPIED: u64 = 1 << 63;

/// An L2 table: 16 bytes, as there may be millions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct L2Table {
    /// The number of its cluster.
    pub(super) cluster: u64,
    /// Entries of L1 tables that refer to it.
    pub(super) uses: u32,
    /// The index in the L1 table (the active one's, if that is among them) in the lower bits, and flags.
    index_and_flags: u32,
}

/// The active L1 table refers to it.
const ACTIVE: u32 = 1 << 31;
/// That entry says that the table is counted once.
const COUNTED_ONCE: u32 = 1 << 30;
/// It was read, and no entry of it refers to anything.
const EMPTY: u32 = 1 << 29;

impl L2Table {
    pub(super) fn index(self) -> u64 {
        u64::from(self.index_and_flags & (EMPTY - 1))
    }

    pub(super) fn is_active(self) -> bool {
        self.index_and_flags & ACTIVE != 0
    }

    pub(super) fn is_counted_once(self) -> bool {
        self.index_and_flags & COUNTED_ONCE != 0
    }

    pub(super) fn is_empty(self) -> bool {
        self.index_and_flags & EMPTY != 0
    }

    pub(super) fn set_empty(&mut self) {
        self.index_and_flags |= EMPTY;
    }
}

/// Some of the L2 tables of an image: all whose clusters are in a range, in their order.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct L2Tables {
    pub(super) tables: Vec<L2Table>,
    /// The first cluster that was not looked at; None where these are all from the beginning of the range.
    pub(super) next: Option<u64>,
}

impl L2Tables {
    /// Reads all L1 tables, and keeps the L2 tables from that cluster on, as many as may be kept at once.
    ///
    /// Errors: an entry that breaks the rules, or a table that two entries of the active L1 table name.
    pub(super) fn read<R: ReadAt + ?Sized>(
        tables: &Tables<'_, R>,
        header: &Header,
        structures: &Structures,
        from: u64,
        capacity: usize,
    ) -> Result<L2Tables, FormatError> {
        let entries: u64 = structures.l1_tables().map(|l1| l1.size / 8).sum();
        let mut found =
            Vec::with_capacity(usize::try_from(entries).map_or(capacity, |all| all.min(capacity)));
        let mut next = None;
        let length = tables.content.len();
        for l1 in structures.l1_tables() {
            let (active, suffix) = match l1.kind {
                Kind::SnapshotL1(number) => (false, format!(" of the snapshot {number}")),
                _ => (true, String::new()),
            };
            tables.for_each_entry(l1.offset, l1.size / 8, |index, [entry]| {
                if entry & RESERVED != 0 {
                    return Err(corrupt(format!(
                        "the L1 entry {index}{suffix} is {entry:#018x}, with reserved bits set"
                    )));
                }
                let offset = entry & OFFSET;
                if offset == 0 {
                    return Err(corrupt(format!(
                        "the L1 entry {index}{suffix} points to the header of the image"
                    )));
                }
                let what = format_args!("the L2 table {index}{suffix}");
                header.check_place(what, offset, header.cluster_size(), length)?;
                let cluster = offset >> header.cluster_bits;
                if cluster < from || next.is_some_and(|next| cluster >= next) {
                    return Ok(());
                }
                let mut flags = if active { ACTIVE } else { 0 };
                if active && entry & COPIED != 0 {
                    flags |= COUNTED_ONCE;
                }
                found.push(L2Table {
                    cluster,
                    uses: 1,
                    // An L1 table has 2^22 entries at most.
                    index_and_flags: (index as u32 & (EMPTY - 1)) | flags,
                });
                if found.len() >= capacity {
                    merge(&mut found, header)?;
                    let half = capacity / 2;
                    if let Some(table) = found.get(half) {
                        next = Some(table.cluster);
                        found.truncate(half);
                    }
                }
                Ok(())
            })?;
        }
        merge(&mut found, header)?;
        Ok(L2Tables {
            tables: found,
            next,
        })
    }
}

/// Sorts, and makes one of those at one place.
fn merge(found: &mut Vec<L2Table>, header: &Header) -> Result<(), FormatError> {
    // Of equals the active comes first.
    found.sort_unstable_by_key(|table| (table.cluster, !table.is_active(), table.index()));
    let mut twice = None;
    found.dedup_by(|table, first| {
        let same = table.cluster == first.cluster;
        if same {
            first.uses = first.uses.saturating_add(table.uses);
            if table.is_active() && twice.is_none() {
                twice = Some(*table);
            }
        }
        same
    });
    match twice {
        Some(table) => Err(corrupt(format!(
            "the L2 table {} uses the cluster at {:#x}, which is in use already",
            table.index(),
            table.cluster << header.cluster_bits
        ))),
        None => Ok(()),
    }
}
