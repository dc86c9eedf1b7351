//! The two levels of tables that map the guest's disk to clusters of the file.

use super::super::error::require_inside;
use super::super::{FormatError, ReadAt};
use super::clusters::{ClusterMap, Refcount, Use};
use super::compressed::{Descriptor, TailClusters};
use super::header::Header;
use super::{corrupt, for_each_number};

const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
const L1_RESERVED: u64 = 0x7f00_0000_0000_01ff;
const L2_RESERVED: u64 = 0x3f00_0000_0000_01fe;
/// The refcount of what the entry points to is exactly one: it may be written in place.
const COPIED: u64 = 1 << 63;
const COMPRESSED: u64 = 1 << 62;
const ZERO: u64 = 1;

/// Walks the active tables and checks each entry.
pub(super) fn check<R: ReadAt + ?Sized>(
    content: &R,
    header: &Header,
    map: &mut ClusterMap,
) -> Result<(), FormatError> {
    let mut walk = Walk {
        content,
        header,
        map,
        tail: TailClusters::default(),
    };
    let entries = u64::from(header.l1_entries);
    for_each_number(content, header.l1_offset, entries, |index, entry| {
        walk.check_l1_entry(index, entry)
    })?;
    walk.tail.check_end(content.len())
}

struct Walk<'a, R: ?Sized> {
    content: &'a R,
    header: &'a Header,
    map: &'a mut ClusterMap,
    tail: TailClusters,
}

impl<R: ReadAt + ?Sized> Walk<'_, R> {
    fn check_l1_entry(&mut self, index: u64, entry: u64) -> Result<(), FormatError> {
        if entry & L1_RESERVED != 0 {
            return Err(corrupt(format!(
                "the L1 entry {index} is {entry:#018x}, with reserved bits set"
            )));
        }
        let table = entry & OFFSET;
        if table == 0 {
            if entry & COPIED != 0 {
                return Err(corrupt(format!(
                    "the L1 entry {index} points to the header of the image"
                )));
            }
            return Ok(());
        }
        let what = format!("the L2 table {index}");
        let cluster_size = self.header.cluster_size();
        self.header
            .check_place(&what, table, cluster_size, self.content.len())?;
        let what = || what.clone();
        self.map.mark(table, cluster_size, Use::Metadata, what)?;
        self.check_copied(entry, table, what)?;

        let first_guest_cluster = index.saturating_mul(self.header.l2_entries());
        let mut guest_cluster = first_guest_cluster;
        let content = self.content;
        if self.header.extended_l2 {
            let mut descriptor = 0;
            for_each_number(content, table, cluster_size / 8, |position, number| {
                if position.is_multiple_of(2) {
                    descriptor = number;
                    return Ok(());
                }
                self.check_l2_entry(guest_cluster, descriptor, Some(number))?;
                guest_cluster += 1;
                Ok(())
            })
        } else {
            for_each_number(content, table, cluster_size / 8, |_, number| {
                self.check_l2_entry(guest_cluster, number, None)?;
                guest_cluster += 1;
                Ok(())
            })
        }
    }

    fn check_l2_entry(
        &mut self,
        guest_cluster: u64,
        entry: u64,
        subclusters: Option<u64>,
    ) -> Result<(), FormatError> {
        if entry == 0 && subclusters.unwrap_or(0) & 0xffff_ffff == 0 {
            return Ok(());
        }
        if entry & COMPRESSED != 0 {
            return self.check_compressed(guest_cluster, entry, subclusters);
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
        self.check_standard(guest_cluster, entry, offset, subclusters)
    }

    fn check_standard(
        &mut self,
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
        require_inside(offset, needed, self.content.len(), || {
            format!("the data of the guest cluster {guest_cluster}")
        })?;
        // Only the part inside the file can be in the map, and one byte stands for the whole cluster.
        let what = || format!("the guest cluster {guest_cluster}");
        self.map.mark_one(offset, Use::Data, what)?;
        self.check_copied(entry, offset, what)
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
            None if offset.saturating_add(visible) == self.content.len() => visible,
            None => cluster_size,
        };
        needed.max(1)
    }

    fn check_compressed(
        &mut self,
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
        let length = self.content.len();
        if descriptor.end() > length {
            self.tail
                .check_cluster(self.content, self.header, guest_cluster, descriptor)?;
        }
        let inside = descriptor
            .end()
            .min(length)
            .saturating_sub(descriptor.offset);
        let what = || format!("the compressed guest cluster {guest_cluster}");
        self.map
            .mark(descriptor.offset, inside, Use::Compressed, what)
    }

    /// An entry that says "counted once" about a cluster counted otherwise would let a write destroy other data. The
    /// opposite is harmless, and some writers never set the flag.
    fn check_copied(
        &self,
        entry: u64,
        offset: u64,
        what: impl FnOnce() -> String,
    ) -> Result<(), FormatError> {
        if entry & COPIED != 0 && self.map.refcount(offset) != Refcount::One {
            return Err(corrupt(format!(
                "{} at {offset:#x} is marked as used once, and its refcount is not 1",
                what()
            )));
        }
        Ok(())
    }

    fn bad_entry(&self, guest_cluster: u64, entry: u64, what: &str) -> FormatError {
        corrupt(format!(
            "the L2 entry {entry:#018x} of the guest cluster {guest_cluster} {what}"
        ))
    }
}
