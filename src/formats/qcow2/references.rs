//! All references to clusters of the file, counted and held against the refcounts: a window of clusters at a time, so
//! that memory is bounded whatever the size.

use super::super::{FormatError, ReadAt};
use super::clusters::Window;
use super::compressed::TableSet;
use super::header::Header;
use super::l2_tables::L2Tables;
use super::mapping::Walk;
use super::structures::Structures;
use super::tables::Tables;
use super::{bitmaps, refcounts, snapshots};

/// How much is looked at together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Clusters whose uses are counted at once, four bytes each; a multiple of 8.
    pub(super) window: u64,
    /// L2 tables that are kept, 16 bytes each.
    pub(super) tables: usize,
}

impl Limits {
    /// 40 MiB and 16 MiB: with buffers and the places of structures, 64 MiB for any image.
    pub(super) const USUAL: Limits = Limits {
        window: 10 << 20,
        tables: 1 << 20,
    };
}

/// The tables are read once for each window: 16 TiB of file with the usual clusters of 64 KiB, in 26 windows.
const MAXIMUM_CLUSTERS: u64 = 256 << 20;

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
    // Kept from one window to the next where all have room.
    let mut kept = None;
    let mut with_compressed = TableSet::default();
    for first in (0..clusters).step_by(usize::try_from(limits.window).unwrap_or(usize::MAX)) {
        let size = limits.window.min(clusters - first);
        let mut window = Window::new(first, size, header.cluster_bits);
        refcounts::read(&tables, header, &mut window)?;
        structures.mark(&mut window)?;
        refcounts::mark_blocks(&tables, header, &mut window)?;
        bitmaps::mark(&tables, header, &structures, &mut window)?;
        let mut walk = Walk::new(&tables, header, &mut window, &mut with_compressed);
        let mut from = Some(0);
        while let Some(start) = from {
            let mut l2_tables = match kept.take() {
                Some(all) => all,
                None => L2Tables::read(&tables, header, &structures, start, limits.tables)?,
            };
            walk.check(&mut l2_tables.tables)?;
            from = l2_tables.next;
            if start == 0 && from.is_none() {
                kept = Some(l2_tables);
            }
        }
        walk.check_end()?;
    }
    Ok(with_compressed)
}
