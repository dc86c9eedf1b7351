//! Which clusters are L2 tables, and how many entries of L1 tables refer to each: snapshots share them with the
//! active table. Each table is walked once, whatever refers to it, so that time is bounded by what is in the file.

use super::entries::{COPIED, OFFSET};
use super::header::Header;
use super::structures::{Kind, Structures};
use super::tables::Tables;
use crate::error::corrupt_qcow2;
use crate::{FormatError, ReadAt};

const RESERVED: u64 = 0x7f00_0000_0000_01ff;

/// An L2 table: 12 bytes, as there may be millions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct L2Table {
    /// The number of its cluster: a file has [`super::references::MAXIMUM_CLUSTERS`] at most.
    cluster: u32,
    /// Entries of L1 tables that refer to it.
    pub(super) uses: u32,
    /// The index in the L1 table (the active one's, if that is among them) in the lower bits, and flags.
    index_and_flags: u32,
}

/// The active L1 table refers to it.
const ACTIVE: u32 = 1 << 31;
/// That entry says that the table is counted once.
const COUNTED_ONCE: u32 = 1 << 30;
/// The table was read, and no entry of it refers to anything.
const EMPTY: u32 = 1 << 29;

impl L2Table {
    /// The number of its cluster.
    pub(super) fn cluster(self) -> u64 {
        u64::from(self.cluster)
    }

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

    /// A number that sorts by cluster; of equals the active comes first, then the lower index.
    fn order(&self) -> u64 {
        let inactive = u64::from(!self.is_active()) << 31;
        u64::from(self.cluster) << 32 | inactive | self.index()
    }
}

/// How many tables are kept, and how many entries of L1 tables are gathered beside them before they are looked up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Capacity {
    pub(super) tables: usize,
    pub(super) gathered: usize,
}

impl Capacity {
    /// As many tables as an L1 table may have in QEMU: 48 MiB, and 3 MiB of entries.
    pub(super) const USUAL: Capacity = Capacity {
        tables: 4 << 20,
        gathered: 256 << 10,
    };
}

/// Reads all L1 tables, and returns the L2 tables that they refer to, in the order of their clusters.
///
/// Errors: an entry that breaks the rules, a table that two entries of the active L1 table name, or too many tables.
pub(super) fn read<R: ReadAt + ?Sized>(
    tables: &Tables<'_, R>,
    header: &Header,
    structures: &Structures,
    capacity: Capacity,
) -> Result<Vec<L2Table>, FormatError> {
    // Room for all at once: a vector that grows has its elements twice for a while.
    let entries = structures.l1_tables().map(|l1| l1.size / 8).sum::<u64>();
    let most = capacity.tables.saturating_add(capacity.gathered);
    let room = usize::try_from(entries).map_or(most, |entries| entries.min(most));
    let mut found = Found {
        tables: Vec::with_capacity(room),
        sorted: 0,
    };
    let length = tables.content.len();
    for l1 in structures.l1_tables() {
        let (active, suffix) = match l1.kind {
            Kind::SnapshotL1(number) => (false, format!(" of the snapshot {number}")),
            _ => (true, String::new()),
        };
        tables.for_each_entry(l1.offset, l1.size / 8, |index, [entry]| {
            if entry & RESERVED != 0 {
                return Err(corrupt_qcow2(format!(
                    "the L1 entry {index}{suffix} is {entry:#018x}, with reserved bits set"
                )));
            }
            let offset = entry & OFFSET;
            if offset == 0 {
                return Err(corrupt_qcow2(format!(
                    "the L1 entry {index}{suffix} points to the header of the image"
                )));
            }
            let what = format_args!("the L2 table {index}{suffix}");
            header.check_place(what, offset, header.cluster_size(), length)?;
            let mut flags = if active { ACTIVE } else { 0 };
            if active && entry & COPIED != 0 {
                flags |= COUNTED_ONCE;
            }
            found.add(
                L2Table {
                    // The number of clusters is limited.
                    cluster: (offset >> header.cluster_bits) as u32,
                    uses: 1,
                    // An L1 table has 2^22 entries at most.
                    index_and_flags: (index as u32 & (EMPTY - 1)) | flags,
                },
                capacity,
                header,
            )
        })?;
        found.merge(capacity, header)?;
    }
    found.tables.shrink_to_fit();
    Ok(found.tables)
}

/// The tables found so far: sorted ones, one of each cluster, and behind them those that were not looked up yet.
struct Found {
    tables: Vec<L2Table>,
    sorted: usize,
}

impl Found {
    fn add(
        &mut self,
        table: L2Table,
        capacity: Capacity,
        header: &Header,
    ) -> Result<(), FormatError> {
        self.tables.push(table);
        let gathered = self.tables.len() - self.sorted;
        // The first L1 table, the active one, is sorted as a whole.
        let most = if self.sorted == 0 {
            capacity.tables
        } else {
            capacity.gathered
        };
        if gathered < most {
            return Ok(());
        }
        self.merge(capacity, header)
    }

    /// Sorts, and makes one of those at one place: entries of snapshots, most of which share the tables of the active
    /// state, only cost a look. What is left of the gathered ones moves to their front, so that millions of tables
    /// are there only once.
    fn merge(&mut self, capacity: Capacity, header: &Header) -> Result<(), FormatError> {
        let (known, gathered) = self.tables.split_at_mut(self.sorted);
        gathered.sort_unstable_by_key(L2Table::order);
        let mut known = known.iter_mut().peekable();
        let mut kept = 0;
        for next in 0..gathered.len() {
            let table = gathered[next];
            while known
                .next_if(|known| known.cluster < table.cluster)
                .is_some()
            {}
            let same = match known.peek_mut() {
                Some(known) if known.cluster == table.cluster => Some(&mut **known),
                _ => gathered[..kept]
                    .last_mut()
                    .filter(|last| last.cluster == table.cluster),
            };
            match same {
                Some(_) if table.is_active() => return Err(used_twice(table, header)),
                Some(same) => same.uses = same.uses.saturating_add(table.uses),
                None => {
                    gathered[kept] = table;
                    kept += 1;
                }
            }
        }
        self.tables.truncate(self.sorted + kept);
        self.insert_gathered();
        if self.sorted > capacity.tables {
            return Err(FormatError::Unsupported {
                what: format!(
                    "a qcow2 image with more than {} L2 tables; convert it to larger clusters: \
                     qemu-img convert -O qcow2 -o cluster_size=2M",
                    capacity.tables
                ),
            });
        }
        Ok(())
    }

    /// Puts the gathered tables, which are sorted, between the sorted ones, from the end, so that each moves once.
    fn insert_gathered(&mut self) {
        let mut left = self.sorted;
        self.sorted = self.tables.len();
        if left == 0 {
            return;
        }
        let fresh = self.tables[left..].to_vec();
        let mut to = self.sorted;
        for table in fresh.iter().rev() {
            while left > 0 && self.tables[left - 1].cluster > table.cluster {
                left -= 1;
                to -= 1;
                self.tables[to] = self.tables[left];
            }
            to -= 1;
            self.tables[to] = *table;
        }
    }
}

fn used_twice(table: L2Table, header: &Header) -> FormatError {
    corrupt_qcow2(format!(
        "the L2 table {} uses the cluster at {:#x}, which is in use already",
        table.index(),
        table.cluster() << header.cluster_bits
    ))
}
