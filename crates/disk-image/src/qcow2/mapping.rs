//! The L2 tables, which map the guest's disk to clusters of the file.

use std::collections::BTreeSet;

use super::clusters::{Refcount, Use, Window};
use super::compressed::{Descriptor, TableSet, TailClusters};
use super::entries::{COMPRESSED, COPIED, OFFSET, ZERO, for_each_l2_entry};
use super::header::Header;
use super::l2_tables::L2Table;
use super::tables::Tables;
use crate::error::{corrupt_qcow2, require_inside};
use crate::{FormatError, ReadAt};

const L2_RESERVED: u64 = 0x3f00_0000_0000_01fe;

/// The walk through L2 tables that notes what they use in a window of clusters.
pub(super) struct Walk<'a, R: ?Sized> {
    tables: &'a Tables<'a, R>,
    header: &'a Header,
    window: &'a mut Window,
    /// Active L2 tables with compressed clusters.
    with_compressed: &'a mut TableSet,
    tail: TailClusters,
    /// The compressed data that `tail` has seen: tables of snapshots share them with the active ones.
    in_tail: BTreeSet<u64>,
}

impl<'a, R: ReadAt + ?Sized> Walk<'a, R> {
    pub(super) fn new(
        tables: &'a Tables<'a, R>,
        header: &'a Header,
        window: &'a mut Window,
        with_compressed: &'a mut TableSet,
    ) -> Walk<'a, R> {
        Walk {
            tables,
            header,
            window,
            with_compressed,
            tail: TailClusters::default(),
            in_tail: BTreeSet::new(),
        }
    }

    /// Checks the tables and each of their entries. Those that turn out to be empty are noted as such.
    pub(super) fn check(&mut self, l2_tables: &mut [L2Table]) -> Result<(), FormatError> {
        let cluster_bits = self.header.cluster_bits;
        for table in l2_tables.iter() {
            let what = || format!("the L2 table {}", table.index());
            let offset = table.cluster() << cluster_bits;
            self.window
                .mark_one(offset, Use::Metadata, table.uses, what)?;
            if table.is_counted_once() {
                self.check_counted_once(offset, what)?;
            }
        }
        for table in l2_tables.iter_mut().filter(|table| !table.is_empty()) {
            if !self.check_table(*table)? {
                table.set_empty();
            }
        }
        Ok(())
    }

    /// Checks, after all tables, that the file was not cut behind its last data.
    pub(super) fn check_end(&self) -> Result<(), FormatError> {
        self.tail.check_end(self.tables.content)
    }

    /// Returns whether the table has any entry.
    fn check_table(&mut self, table: L2Table) -> Result<bool, FormatError> {
        let (tables, header) = (self.tables, self.header);
        let offset = table.cluster() << header.cluster_bits;
        let first = table.index().saturating_mul(header.l2_entries());
        for_each_l2_entry(tables, header, offset, |index, entry, subclusters| {
            self.check_l2_entry(table, first + index, entry, subclusters)
        })
    }

    fn check_l2_entry(
        &mut self,
        table: L2Table,
        guest_cluster: u64,
        entry: u64,
        subclusters: Option<u64>,
    ) -> Result<(), FormatError> {
        if entry == 0 && subclusters.unwrap_or(0) & 0xffff_ffff == 0 {
            return Ok(());
        }
        if entry & COMPRESSED != 0 {
            return self.check_compressed(table, guest_cluster, entry, subclusters);
        }
        if entry & L2_RESERVED != 0 {
            return Err(self.bad_entry(guest_cluster, entry, "has reserved bits set"));
        }
        if entry & ZERO != 0 && (self.header.version < 3 || subclusters.is_some()) {
            return Err(self.bad_entry(
                guest_cluster,
                entry,
                "has the zero flag, which version 2 and extended entries do not know",
            ));
        }
        let offset = entry & OFFSET;
        if let Some(bits) = subclusters
            && (bits & (bits >> 32) & 0xffff_ffff != 0 || (bits & 0xffff_ffff != 0 && offset == 0))
        {
            return Err(self.bad_entry(
                guest_cluster,
                entry,
                "has subclusters that are allocated and zero at once, or allocated nowhere",
            ));
        }
        if offset == 0 {
            if entry & COPIED != 0 {
                return Err(self.bad_entry(
                    guest_cluster,
                    entry,
                    "points to the header of the image",
                ));
            }
            return Ok(());
        }
        self.check_standard(table, guest_cluster, entry, offset, subclusters)
    }

    fn check_standard(
        &mut self,
        table: L2Table,
        guest_cluster: u64,
        entry: u64,
        offset: u64,
        subclusters: Option<u64>,
    ) -> Result<(), FormatError> {
        let cluster_size = self.header.cluster_size();
        if !offset.is_multiple_of(cluster_size) {
            return Err(self.bad_entry(
                guest_cluster,
                entry,
                "points into the midst of a cluster, expected its beginning",
            ));
        }
        let needed = self.needed_bytes(guest_cluster, entry, offset, subclusters);
        require_inside(offset, needed, self.tables.content.len(), || {
            format!("the data of the guest cluster {guest_cluster}")
        })?;
        // Only the part inside the file is counted, and one byte stands for the whole cluster.
        let what = || format!("the guest cluster {guest_cluster}");
        self.window.mark_one(offset, Use::Data, table.uses, what)?;
        // QEMU makes these flags right when a snapshot becomes the active state.
        if entry & COPIED != 0 && table.is_active() {
            self.check_counted_once(offset, what)?;
        }
        Ok(())
    }

    /// How many bytes of a standard cluster must be in the file: all of them, as QEMU writes whole clusters, but for
    /// three cases at its end. Subclusters without data may be missing. A cluster kept in reserve that reads as zeros
    /// only has to begin there. And preallocation ends the file exactly where the disk ends.
    fn needed_bytes(
        &self,
        guest_cluster: u64,
        entry: u64,
        offset: u64,
        subclusters: Option<u64>,
    ) -> u64 {
        let cluster_size = self.header.cluster_size();
        let guest_offset = guest_cluster.saturating_mul(cluster_size);
        let visible = self.header.virtual_size.saturating_sub(guest_offset);
        let needed = match subclusters {
            Some(bits) => {
                let allocated = (bits & 0xffff_ffff) as u32;
                let with_data = u64::from(32 - allocated.leading_zeros()) * (cluster_size / 32);
                with_data.min(visible)
            }
            None if entry & ZERO != 0 || visible == 0 => 0,
            None if offset.saturating_add(visible) == self.tables.content.len() => visible,
            None => cluster_size,
        };
        needed.max(1)
    }

    fn check_compressed(
        &mut self,
        table: L2Table,
        guest_cluster: u64,
        entry: u64,
        subclusters: Option<u64>,
    ) -> Result<(), FormatError> {
        if entry & COPIED != 0 {
            return Err(self.bad_entry(
                guest_cluster,
                entry,
                "is compressed and marked as writable in place",
            ));
        }
        if subclusters.is_some_and(|bits| bits != 0) {
            return Err(self.bad_entry(guest_cluster, entry, "is compressed and has subclusters"));
        }
        let Some(descriptor) = Descriptor::parse(entry, self.header.cluster_bits) else {
            return Err(self.bad_entry(guest_cluster, entry, "has reserved bits set"));
        };
        if table.is_active() {
            self.with_compressed.insert(table.index());
        }
        let length = self.tables.content.len();
        if descriptor.end() > length && self.in_tail.insert(entry) {
            let content = self.tables.content;
            self.tail
                .check_cluster(content, self.header, guest_cluster, descriptor)?;
        }
        let inside = descriptor
            .end()
            .min(length)
            .saturating_sub(descriptor.offset);
        let what = || format!("the compressed guest cluster {guest_cluster}");
        self.window
            .mark(descriptor.offset, inside, Use::Compressed, table.uses, what)
    }

    /// An entry that says "counted once" about a cluster counted otherwise would let a write destroy other data. The
    /// opposite is harmless, and some writers never set the flag.
    fn check_counted_once(
        &mut self,
        offset: u64,
        what: impl FnOnce() -> String,
    ) -> Result<(), FormatError> {
        match self.window.refcount(offset) {
            None | Some(Refcount::One) => Ok(()),
            Some(_) => Err(corrupt_qcow2(format!(
                "{} at {offset:#x} is marked as used once, and its refcount is not 1",
                what()
            ))),
        }
    }

    fn bad_entry(&self, guest_cluster: u64, entry: u64, what: &str) -> FormatError {
        corrupt_qcow2(format!(
            "the L2 entry {entry:#018x} of the guest cluster {guest_cluster} {what}"
        ))
    }
}
