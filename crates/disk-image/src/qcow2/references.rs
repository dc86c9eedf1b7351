//! All references to clusters of the file, counted and held against the refcounts: a window of clusters at a time, so
//! that memory is bounded whatever the size.

use super::clusters::Window;
use super::compressed::TableSet;
use super::header::Header;
use super::l2_tables::{self, Capacity, L2Table};
use super::mapping::Walk;
use super::structures::Structures;
use super::tables::Tables;
use super::{bitmaps, refcounts, snapshots};
use crate::{FormatError, ReadAt};

/// How much is looked at together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Clusters whose uses are counted at once, four bytes each; a multiple of 8.
    pub(super) window: u64,
    pub(super) l2_tables: Capacity,
}

impl Limits {
    pub(super) const USUAL: Limits = Limits {
        window: 10 << 20,
        l2_tables: Capacity::USUAL,
    };

    /// A window that leaves room for the tables: with buffers and the places of structures, 64 MiB for any image.
    fn window_beside(self, l2_tables: &[L2Table]) -> u64 {
        const MEMORY: usize = 58 << 20;
        let left = MEMORY.saturating_sub(size_of_val(l2_tables)) as u64 / 4;
        self.window.min(left & !7)
    }
}

/// The L2 tables are read once for each window: 16 TiB of file with the usual clusters of 64 KiB, in 26 windows.
pub(super) const MAXIMUM_CLUSTERS: u64 = 256 << 20;

/// Checks that each cluster is counted as often as it is used, at least, and that all tables are sound. Returns the
/// active L2 tables with compressed clusters.
pub(super) fn check<R: ReadAt + ?Sized>(
    content: &R,
    header: &Header,
    limits: Limits,
) -> Result<TableSet, FormatError> {
    let clusters = content.len().div_ceil(header.cluster_size());
    if clusters > MAXIMUM_CLUSTERS {
        return Err(FormatError::Unsupported {
            what: format!(
                "a qcow2 file of {clusters} clusters, at most {MAXIMUM_CLUSTERS} are supported; \
                 convert it to larger clusters: qemu-img convert -O qcow2 -o cluster_size=2M"
            ),
        });
    }
    let others = snapshots::read(content, header)?
        .into_iter()
        .chain(bitmaps::read(content, header)?);
    let structures = Structures::new(header, others)?;
    let tables = Tables::new(content);
    let mut l2_tables = l2_tables::read(&tables, header, &structures, limits.l2_tables)?;
    let window = limits.window_beside(&l2_tables);
    let mut with_compressed = TableSet::default();
    for first in (0..clusters).step_by(usize::try_from(window).unwrap_or(usize::MAX)) {
        let size = window.min(clusters - first);
        let mut window = Window::new(first, size, header.cluster_bits);
        refcounts::read(&tables, header, &mut window)?;
        structures.mark(&mut window)?;
        refcounts::mark_blocks(&tables, header, &mut window)?;
        bitmaps::mark(&tables, header, &structures, &mut window)?;
        let mut walk = Walk::new(&tables, header, &mut window, &mut with_compressed);
        walk.check(&mut l2_tables)?;
        walk.check_end()?;
    }
    Ok(with_compressed)
}
