//! Facts about the clusters of the file: how often each is counted, what it is used for, and how many uses its
//! refcount still covers. A count below the uses loses data: QEMU's next write frees or changes what another part of
//! the image still refers to. A count above them is a leak, which only costs space.

use crate::FormatError;
use crate::error::corrupt_qcow2;

/// The use of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    Metadata = 1,
    Data = 2,
    Compressed = 3,
}

/// A refcount as far as flags depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refcount {
    Free = 0,
    One = 1,
    Many = 2,
}

/// The lowest 28 bits of a cell: how many uses are still covered. A larger count is taken as this one, so that more
/// uses than this are refused.
const UNCLAIMED: u32 = (1 << CLASS) - 1;
/// Two bits for the refcount as it was read, and two for the use.
const CLASS: u32 = 28;
const USE: u32 = 30;

/// A range of clusters that are looked at together, four bytes for each. What lies outside is passed over in silence:
/// another window will see it.
#[derive(Debug)]
pub(super) struct Window {
    first: u64,
    cells: Vec<u32>,
    cluster_bits: u32,
}

impl Window {
    /// Clusters that are all counted as free, and in use for nothing.
    pub(super) fn new(first: u64, clusters: u64, cluster_bits: u32) -> Window {
        Window {
            first,
            cells: vec![0; usize::try_from(clusters).unwrap_or(0)],
            cluster_bits,
        }
    }

    /// The numbers of the clusters inside.
    pub(super) fn range(&self) -> std::ops::Range<u64> {
        self.first..self.first + self.cells.len() as u64
    }

    fn cell(&mut self, cluster: u64) -> Option<&mut u32> {
        let index = usize::try_from(cluster.checked_sub(self.first)?).ok()?;
        self.cells.get_mut(index)
    }

    pub(super) fn set_refcount(&mut self, cluster: u64, refcount: u64) {
        if let Some(cell) = self.cell(cluster) {
            let unclaimed = u32::try_from(refcount).map_or(UNCLAIMED, |count| count.min(UNCLAIMED));
            *cell = unclaimed | unclaimed.min(2) << CLASS;
        }
    }

    /// The refcount of the cluster that holds the offset; None where another window has it.
    pub(super) fn refcount(&mut self, offset: u64) -> Option<Refcount> {
        let cluster = offset >> self.cluster_bits;
        let cell = self.cell(cluster)?;
        Some(match (*cell >> CLASS) & 3 {
            0 => Refcount::Free,
            1 => Refcount::One,
            _ => Refcount::Many,
        })
    }

    /// Notes that an area is used: by each cluster that it touches. `what` names the user in errors.
    ///
    /// Errors: a cluster that the image counts as free, or counts lower than it is used. Metadata share a cluster with
    /// nothing, and compressed data only with each other.
    pub(super) fn mark(
        &mut self,
        offset: u64,
        size: u64,
        usage: Use,
        times: u32,
        what: impl Fn() -> String,
    ) -> Result<(), FormatError> {
        let Some(beyond) = size.checked_sub(1) else {
            return Ok(());
        };
        let last = offset.saturating_add(beyond) >> self.cluster_bits;
        let inside = self.range();
        let clusters = (offset >> self.cluster_bits).max(inside.start)..(last + 1).min(inside.end);
        for cluster in clusters {
            self.mark_one(cluster << self.cluster_bits, usage, times, &what)?;
        }
        Ok(())
    }

    /// As [`Window::mark`], for the one cluster that holds the offset.
    pub(super) fn mark_one(
        &mut self,
        offset: u64,
        usage: Use,
        times: u32,
        what: impl FnOnce() -> String,
    ) -> Result<(), FormatError> {
        let cluster = offset >> self.cluster_bits;
        let Some(cell) = self.cell(cluster) else {
            return Ok(());
        };
        let (class, found) = ((*cell >> CLASS) & 3, *cell >> USE);
        let at_odds = found != 0 && (usage == Use::Metadata || found != usage as u32);
        let fault = if class == Refcount::Free as u32 {
            "counted as free"
        } else if at_odds || (found != 0 && class == Refcount::One as u32) {
            "in use already"
        } else if *cell & UNCLAIMED < times {
            "in use more often than it is counted"
        } else {
            *cell = (*cell - times) | (usage as u32) << USE;
            return Ok(());
        };
        let offset = cluster << self.cluster_bits;
        Err(corrupt_qcow2(format!(
            "{} uses the cluster at {offset:#x}, which is {fault}",
            what()
        )))
    }
}
