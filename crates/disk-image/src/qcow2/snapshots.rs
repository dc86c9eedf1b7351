//! The table of internal snapshots. A guest never reads them; the file must be whole all the same.

use super::header::Header;
use super::structures::{Kind, Structure};
use crate::error::{corrupt_qcow2, require_inside};
use crate::read_at::read_up_to;
use crate::{FormatError, ReadAt, bytes};

/// Limits of QEMU itself.
const MAXIMUM_TABLE_BYTES: u64 = 64 * 1024 * 1024;
const MAXIMUM_EXTRA_BYTES: u64 = 1024;
const MAXIMUM_L1_BYTES: u64 = 32 * 1024 * 1024;
/// Version 3 asks for the size of the VM state and of the disk, eight bytes each.
const MINIMUM_EXTRA_BYTES: u64 = 16;

/// Checks each entry, and that its L1 table lies inside the file. Returns the L1 tables and the snapshot table.
pub(super) fn read<R: ReadAt + ?Sized>(
    content: &R,
    header: &Header,
) -> Result<Vec<Structure>, FormatError> {
    if header.snapshots == 0 {
        return Ok(Vec::new());
    }
    let length = content.len();
    let mut structures = Vec::new();
    let mut at = header.snapshots_offset;
    for number in 1..=header.snapshots {
        let what = || format!("the entry of the snapshot {number}");
        require_inside(at, 40, length, what)?;
        let entry = read_up_to(content, at, 40)?;
        let l1_offset = bytes::be_u64(&entry, 0);
        let l1_bytes = u64::from(bytes::be_u32(&entry, 8)) * 8;
        let id_bytes = u64::from(bytes::be_u16(&entry, 12));
        let name_bytes = u64::from(bytes::be_u16(&entry, 14));
        let extra_bytes = u64::from(bytes::be_u32(&entry, 36));
        if extra_bytes > MAXIMUM_EXTRA_BYTES || l1_bytes > MAXIMUM_L1_BYTES {
            return Err(corrupt_qcow2(format!(
                "the snapshot {number} has {extra_bytes} bytes of extra data and an L1 table of {l1_bytes} bytes, \
                 expected at most {MAXIMUM_EXTRA_BYTES} and {MAXIMUM_L1_BYTES}"
            )));
        }
        if header.version >= 3 && extra_bytes < MINIMUM_EXTRA_BYTES {
            return Err(corrupt_qcow2(format!(
                "the snapshot {number} has {extra_bytes} bytes of extra data, expected {MINIMUM_EXTRA_BYTES} at least"
            )));
        }
        let size = 40 + extra_bytes + id_bytes + name_bytes;
        require_inside(at, size, length, what)?;
        at = at.saturating_add(size);
        if number < header.snapshots {
            at = at.next_multiple_of(8);
        }
        if at - header.snapshots_offset > MAXIMUM_TABLE_BYTES {
            return Err(FormatError::Unsupported {
                what: format!("a snapshot table of more than {MAXIMUM_TABLE_BYTES} bytes"),
            });
        }
        let kind = Kind::SnapshotL1(number);
        header.check_place(kind, l1_offset, l1_bytes, length)?;
        structures.push(Structure {
            kind,
            offset: l1_offset,
            size: l1_bytes,
        });
    }
    structures.push(Structure {
        kind: Kind::SnapshotTable,
        offset: header.snapshots_offset,
        size: at - header.snapshots_offset,
    });
    Ok(structures)
}
