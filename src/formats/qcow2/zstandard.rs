//! The length of a Zstandard frame (RFC 8878), found by its block headers; nothing is decompressed.

use super::super::bytes;

const MAGIC: u32 = 0xFD2F_B528;

/// How many bytes the frame at the start of the data has. None where it does not end in the data, or is none.
pub(super) fn frame_length(data: &[u8]) -> Option<usize> {
    if bytes::le_u32(data, 0) != MAGIC {
        return None;
    }
    let descriptor = *data.get(4)?;
    let single_segment = descriptor & 0x20 != 0;
    let window = usize::from(!single_segment);
    let dictionary = [0, 1, 2, 4][usize::from(descriptor & 3)];
    let content_size = match descriptor >> 6 {
        0 => usize::from(single_segment),
        1 => 2,
        2 => 4,
        _ => 8,
    };
    let checksum = if descriptor & 4 != 0 { 4 } else { 0 };
    let mut at = 5 + window + dictionary + content_size;
    loop {
        let block = data.get(at..at.checked_add(3)?)?;
        let block = bytes::le_u32(block, 0);
        let size = match (block >> 1) & 3 {
            1 => 1,
            3 => return None,
            _ => (block >> 3) as usize,
        };
        at = at.checked_add(3)?.checked_add(size)?;
        if block & 1 != 0 {
            at = at.checked_add(checksum)?;
            return (at <= data.len()).then_some(at);
        }
    }
}
