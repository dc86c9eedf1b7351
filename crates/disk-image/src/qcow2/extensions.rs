//! The header extensions: optional sections between the header and the end of its cluster.

use crate::error::corrupt_qcow2;
use crate::{FormatError, bytes};

const END: u32 = 0;
const FEATURE_NAMES: u32 = 0x6803_f857;
const BACKING_FORMAT: u32 = 0xe279_2aca;
const ENCRYPTION: u32 = 0x0537_be77;
const BITMAPS: u32 = 0x2385_2875;
const EXTERNAL_DATA_FILE: u32 = 0x4441_5441;

/// QEMU opens no image with a longer name of the backing file's format, even where there is no backing file.
const MAXIMUM_FORMAT_NAME: usize = 15;

/// The position of the directory of bitmaps.
#[derive(Clone, Copy, Debug)]
pub(super) struct BitmapDirectory {
    pub(super) count: u32,
    /// Must be zero.
    pub(super) reserved: u32,
    pub(super) bytes: u64,
    pub(super) offset: u64,
}

/// The header extensions that matter here. The format allows to ignore unknown ones.
#[derive(Debug, Default)]
pub(super) struct Extensions {
    /// Entries of 48 bytes: kind of feature, bit, name.
    feature_names: Vec<u8>,
    pub(super) external_data_file: Option<Vec<u8>>,
    /// Whether there is an extension for the keys of an encrypted image; no other image may have it.
    pub(super) encryption_header: bool,
    pub(super) bitmaps: Option<BitmapDirectory>,
    pub(super) bitmaps_repeated: bool,
}

impl Extensions {
    /// Walks the extensions in the first cluster, which begin after the header.
    pub(super) fn parse(
        first_cluster: &[u8],
        header_length: u64,
    ) -> Result<Extensions, FormatError> {
        let mut extensions = Extensions::default();
        let mut rest = usize::try_from(header_length)
            .ok()
            .and_then(|start| first_cluster.get(start..))
            .unwrap_or_default();
        // Without an end mark the extensions go on to the end of the cluster.
        while rest.len() >= 8 {
            let kind = bytes::be_u32(rest, 0);
            let size = bytes::be_u32(rest, 4) as usize;
            let Some(data) = rest.get(8..).and_then(|after| after.get(..size)) else {
                return Err(corrupt_qcow2(format!(
                    "the header extension {kind:#010x} has {size} bytes and does not fit into the first cluster"
                )));
            };
            if kind == END {
                break;
            }
            extensions.take(kind, data)?;
            let padded = size.next_multiple_of(8).saturating_add(8);
            rest = rest.get(padded..).unwrap_or_default();
        }
        Ok(extensions)
    }

    fn take(&mut self, kind: u32, data: &[u8]) -> Result<(), FormatError> {
        match kind {
            FEATURE_NAMES => self.feature_names = data.to_vec(),
            ENCRYPTION => self.encryption_header = true,
            BACKING_FORMAT if data.len() > MAXIMUM_FORMAT_NAME => {
                return Err(corrupt_qcow2(format!(
                    "the name of the backing file's format has {} bytes, expected {MAXIMUM_FORMAT_NAME} at most",
                    data.len()
                )));
            }
            EXTERNAL_DATA_FILE => self.external_data_file = Some(data.to_vec()),
            BITMAPS => {
                if data.len() != 24 {
                    return Err(corrupt_qcow2(format!(
                        "the bitmaps extension has {} bytes, expected 24",
                        data.len()
                    )));
                }
                self.bitmaps_repeated = self.bitmaps.is_some();
                self.bitmaps = Some(BitmapDirectory {
                    count: bytes::be_u32(data, 0),
                    reserved: bytes::be_u32(data, 4),
                    bytes: bytes::be_u64(data, 8),
                    offset: bytes::be_u64(data, 16),
                });
            }
            _ => {}
        }
        Ok(())
    }

    /// The name that the image itself gives to the bit of an incompatible feature.
    pub(super) fn incompatible_feature_name(&self, bit: u32) -> Option<&[u8]> {
        self.feature_names
            .chunks_exact(48)
            .find_map(|entry| match entry {
                [0, number, name @ ..] if u32::from(*number) == bit => {
                    name.split(|byte| *byte == 0).next()
                }
                _ => None,
            })
    }
}
