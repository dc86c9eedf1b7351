//! The table of internal snapshots. A desktop never reads them; the file must be whole all the same.

use super::super::error::require_inside;
use super::super::read_at::read_up_to;
use super::super::{FormatError, ReadAt, bytes};
use super::clusters::{ClusterMap, Use};
use super::corrupt;
use super::header::Header;

/// Limits of QEMU itself.
const MAXIMUM_TABLE_BYTES: u64 = 64 * 1024 * 1024;
const MAXIMUM_EXTRA_BYTES: u64 = 1024;
const MAXIMUM_L1_BYTES: u64 = 32 * 1024 * 1024;

/// Checks each entry, and that its L1 table lies inside the file.
pub(super) fn check<R: ReadAt + ?Sized>(
    content: &R,
    header: &Header,
    map: &mut ClusterMap,
) -> Result<(), FormatError> {
    if header.snapshots == 0 {
        return Ok(());
    }
    let length = content.len();
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
            return Err(corrupt(format!(
                "the snapshot {number} has {extra_bytes} bytes of extra data and an L1 table of {l1_bytes} bytes, \
                 expected at most {MAXIMUM_EXTRA_BYTES} and {MAXIMUM_L1_BYTES}"
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
        let what = format!("the L1 table of the snapshot {number}");
        header.check_place(&what, l1_offset, l1_bytes, length)?;
        map.mark(l1_offset, l1_bytes, Use::Metadata, || what.clone())?;
    }
    let size = at - header.snapshots_offset;
    map.mark(header.snapshots_offset, size, Use::Metadata, || {
        "the snapshot table".to_owned()
    })
}
