//! The feature bits of a qcow2 header: which are understood, and what the others are called.

use super::extensions::Extensions;
use crate::FormatError;
use crate::error::corrupt_qcow2;
use crate::quote::quote;

const DIRTY: u64 = 1;
const CORRUPT: u64 = 1 << 1;
pub(super) const EXTERNAL_DATA: u64 = 1 << 2;
const COMPRESSION_TYPE: u64 = 1 << 3;
pub(super) const EXTENDED_L2: u64 = 1 << 4;

/// Autoclear bit: the bitmaps are in step with the data.
pub(super) const BITMAPS: u64 = 1;
/// Autoclear bit: the external data file can be read as a raw image.
const RAW_EXTERNAL_DATA: u64 = 1 << 1;

/// Refuses what must be understood and is not, and images that were not closed.
pub(super) fn check(
    incompatible: u64,
    autoclear: u64,
    extensions: &Extensions,
) -> Result<(), FormatError> {
    let unknown =
        incompatible & !(DIRTY | CORRUPT | EXTERNAL_DATA | COMPRESSION_TYPE | EXTENDED_L2);
    if unknown != 0 {
        let names: Vec<String> = (0..u64::BITS)
            .filter(|bit| unknown & (1 << bit) != 0)
            .map(|bit| match extensions.incompatible_feature_name(bit) {
                Some(name) => format!("bit {bit} {}", quote(name)),
                None => format!("bit {bit}"),
            })
            .collect();
        return Err(FormatError::Unsupported {
            what: format!(
                "unknown incompatible features of qcow2: {}",
                names.join(", ")
            ),
        });
    }
    if incompatible & CORRUPT != 0 {
        return Err(FormatError::NeedsRepair {
            mark: "corrupt",
            reason: "QEMU found its tables damaged",
        });
    }
    if incompatible & DIRTY != 0 {
        return Err(FormatError::NeedsRepair {
            mark: "dirty",
            reason: "it was not closed after writing, or is still open",
        });
    }
    if autoclear & RAW_EXTERNAL_DATA != 0 {
        return Err(corrupt_qcow2(
            "it is marked to have a raw external data file, and has no external data file"
                .to_owned(),
        ));
    }
    if autoclear & BITMAPS != 0 && extensions.bitmaps.is_none() {
        return Err(corrupt_qcow2(
            "its bitmaps are marked as consistent, and there is no bitmaps extension".to_owned(),
        ));
    }
    if autoclear & BITMAPS != 0 && extensions.bitmaps_repeated {
        return Err(corrupt_qcow2("it has two bitmaps extensions".to_owned()));
    }
    Ok(())
}

/// Whether compressed clusters are zstd; else they are deflate.
pub(super) fn is_zstd(incompatible: u64, compression_type: u8) -> Result<bool, FormatError> {
    match (incompatible & COMPRESSION_TYPE != 0, compression_type) {
        (false, 0) => Ok(false),
        (true, 1) => Ok(true),
        (true, 2..) => Err(FormatError::Unsupported {
            what: format!(
                "clusters compressed by the method {compression_type}, expected 0 (zlib) or 1 (zstd)"
            ),
        }),
        (marked, _) => Err(corrupt_qcow2(format!(
            "the compression type {compression_type} and the compression type bit {} contradict each other",
            u8::from(marked)
        ))),
    }
}
