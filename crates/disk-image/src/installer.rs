//! Installer images: what is made to be burnt on a disc, and often starts from a USB stick too. A partition table does
//! not make an installed disk of them, so that all are answered alike, whatever table they have.

use crate::error::{Known, require_inside};
use crate::read_at::read_up_to;
use crate::{FormatError, ReadAt, bytes};

const ADVICE: &str = "install the system from it on a disk, and make an image of that disk. Where only a remainder of \
     an earlier installer is on an installed disk, remove that: wipefs -a -t iso9660,udf IMAGE";

const ISO: Known = Known::new(
    "an installer image (ISO 9660), not an installed disk",
    ADVICE,
);
const ISO_AND_UDF: Known = Known::new(
    "an installer image (ISO 9660 and UDF), not an installed disk",
    ADVICE,
);
const UDF: Known = Known::new("an installer image (UDF), not an installed disk", ADVICE);

/// Offsets at which descriptors of volumes begin, in bytes: after sixteen blocks, and again after the partition offset
/// with which xorriso makes a volume that can be mounted by its partition too.
const STARTS: [u64; 2] = [32 * 1024, 64 * 1024];
const BLOCK: usize = 2048;
/// As many blocks are looked at. UDF's descriptors come after those of ISO 9660.
const BLOCKS: usize = 16;

/// A file system that stands on discs.
pub(crate) struct Installer {
    pub(crate) known: Known,
    /// The end of the volume, by its own descriptor.
    end: Option<u64>,
}

impl Installer {
    /// Refuses a content that ends before its volume does.
    pub(crate) fn refuse_cut(&self, length: u64) -> Result<(), FormatError> {
        require_inside(0, self.end.unwrap_or(0), length, || {
            "the volume of the installer image".to_owned()
        })
    }
}

/// The installer image that a content is, or none.
pub(crate) fn find<R: ReadAt + ?Sized>(content: &R) -> Result<Option<Installer>, FormatError> {
    let (mut iso, mut udf, mut end) = (false, false, None);
    for start in STARTS {
        let area = read_up_to(content, start, BLOCKS * BLOCK)?;
        iso |= area
            .get(9..)
            .is_some_and(|high_sierra| high_sierra.starts_with(b"CDROM"));
        for block in area.chunks(BLOCK) {
            // The type of the descriptor comes first.
            match block.get(1..6).unwrap_or_default() {
                b"CD001" => iso = true,
                b"BEA01" | b"NSR02" | b"NSR03" => udf = true,
                b"BOOT2" | b"TEA01" | b"CDW02" => {}
                // Readers go no further, and what wipes a disk erases no more than the first descriptor.
                _ => break,
            }
            if block.starts_with(b"\x01CD001") && end.is_none() && start == STARTS[0] {
                let blocks = u64::from(bytes::le_u32(block, 80));
                end = Some(blocks * u64::from(bytes::le_u16(block, 128)));
            }
        }
    }
    let known = match (iso, udf) {
        (true, true) => ISO_AND_UDF,
        (true, false) => ISO,
        (false, true) => UDF,
        (false, false) => return Ok(None),
    };
    Ok(Some(Installer { known, end }))
}
