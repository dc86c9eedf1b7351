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

#[cfg(test)]
mod tests {
    use super::*;

    /// 512 zero bytes as the tool zstd compresses them, with a checksum at the end.
    const ZEROS: [u8; 22] = [
        0x28, 0xb5, 0x2f, 0xfd, 0x04, 0x58, 0x4d, 0x00, 0x00, 0x10, 0x00, 0x00, 0x01, 0x00, 0xfb,
        0x2a, 0xc0, 0x02, 0x7c, 0xb8, 0xc3, 0xe8,
    ];

    #[test]
    fn a_frame_ends_where_its_last_block_or_its_checksum_ends() {
        // The magic number, a descriptor for one segment with its size in a byte, and blocks: raw, then repeated.
        let built = [
            0x28, 0xb5, 0x2f, 0xfd, 0x20, 12, 16, 0, 0, 1, 2, 83, 0, 0, 7,
        ];
        for frame in [&ZEROS[..], &built[..]] {
            let mut padded = frame.to_vec();
            padded.extend([0xA5; 20]);
            assert_eq!(frame_length(frame), Some(frame.len()));
            assert_eq!(frame_length(&padded), Some(frame.len()));
            for cut in 0..frame.len() {
                assert_eq!(frame_length(&frame[..cut]), None, "{cut}");
            }
        }
        let mut reserved = built;
        reserved[6] |= 6;
        assert_eq!(frame_length(&reserved), None);
        assert_eq!(frame_length(b"something else"), None);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_end_in_an_answer(mut data in proptest::collection::vec(0u8.., 4..300)) {
            data.splice(..4, MAGIC.to_le_bytes());
            if let Some(length) = frame_length(&data) {
                proptest::prop_assert!(length <= data.len());
            }
        }
    }
}
