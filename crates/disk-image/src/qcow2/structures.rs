//! The structures of an image that have a place of their own, each in clusters that nothing else uses.

use std::fmt;

use super::clusters::{Use, Window};
use super::header::Header;
use crate::FormatError;
use crate::error::corrupt_qcow2;

/// The kind of a structure. Snapshots and bitmaps are numbered from one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Header,
    L1,
    RefcountTable,
    SnapshotTable,
    SnapshotL1(u32),
    BitmapDirectory,
    BitmapTable(u32),
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kind::Header => formatter.write_str("the header"),
            Kind::L1 => formatter.write_str("the L1 table"),
            Kind::RefcountTable => formatter.write_str("the refcount table"),
            Kind::SnapshotTable => formatter.write_str("the snapshot table"),
            Kind::SnapshotL1(number) => write!(formatter, "the L1 table of the snapshot {number}"),
            Kind::BitmapDirectory => formatter.write_str("the bitmap directory"),
            Kind::BitmapTable(number) => write!(formatter, "the table of the bitmap {number}"),
        }
    }
}

/// A structure and its place, which begins at a cluster and lies inside the file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Structure {
    pub(super) kind: Kind,
    pub(super) offset: u64,
    /// In bytes. May be 0: such a one is nowhere.
    pub(super) size: u64,
}

/// All structures that the header leads to, but for what the tables among them refer to.
#[derive(Debug)]
pub(super) struct Structures(Vec<Structure>);

impl Structures {
    /// Adds those of the header itself to the others, which come from it.
    ///
    /// Errors: two that overlap. Seen before any table is walked, so that none is walked again under many names.
    pub(super) fn new(
        header: &Header,
        others: impl IntoIterator<Item = Structure>,
    ) -> Result<Structures, FormatError> {
        let own = [
            (Kind::Header, 0, header.cluster_size()),
            (Kind::L1, header.l1_offset, header.l1_bytes()),
            (
                Kind::RefcountTable,
                header.refcount_table_offset,
                header.refcount_table_bytes(),
            ),
        ]
        .map(|(kind, offset, size)| Structure { kind, offset, size });
        let all: Vec<Structure> = own.into_iter().chain(others).collect();
        refuse_overlaps(&all, header)?;
        Ok(Structures(all))
    }

    /// The active L1 table, then those of the snapshots: place and number of entries.
    pub(super) fn l1_tables(&self) -> impl Iterator<Item = &Structure> {
        let is_l1 = |structure: &&Structure| {
            matches!(structure.kind, Kind::L1 | Kind::SnapshotL1(_)) && structure.size > 0
        };
        self.0.iter().filter(is_l1)
    }

    pub(super) fn bitmap_tables(&self) -> impl Iterator<Item = (u32, &Structure)> {
        self.0.iter().filter_map(|structure| match structure.kind {
            Kind::BitmapTable(number) => Some((number, structure)),
            _ => None,
        })
    }

    /// Notes the use of each.
    pub(super) fn mark(&self, window: &mut Window) -> Result<(), FormatError> {
        for structure in &self.0 {
            let Structure { kind, offset, size } = *structure;
            window.mark(offset, size, Use::Metadata, 1, || kind.to_string())?;
        }
        Ok(())
    }
}

fn refuse_overlaps(all: &[Structure], header: &Header) -> Result<(), FormatError> {
    let mut order: Vec<&Structure> = all.iter().filter(|structure| structure.size > 0).collect();
    // Stable, so that of two at one place the later is the intruder.
    order.sort_by_key(|structure| structure.offset);
    let mut free_from = 0;
    for structure in order {
        if structure.offset < free_from {
            return Err(corrupt_qcow2(format!(
                "{} uses the cluster at {:#x}, which is in use already",
                structure.kind, structure.offset
            )));
        }
        let end = structure.offset.saturating_add(structure.size);
        free_from = end.next_multiple_of(header.cluster_size());
    }
    Ok(())
}
