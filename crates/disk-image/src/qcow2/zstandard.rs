//! The Zstandard frames (RFC 8878) of a compressed cluster, decompressed by libzstd.

use zstd_safe::DCtx;

use super::fault::Fault;
use crate::bytes;

const MAGIC: u32 = 0xFD2F_B528;
/// The last four bits are free.
const SKIPPABLE: u32 = 0x184D_2A50;
/// The largest window, in bytes, that libzstd takes unless it is told otherwise, as QEMU does not.
const LARGEST_WINDOW: u64 = (1 << 27) + 1;

/// Fills the output from the frames at the start of the data, and returns how many bytes the frames have.
///
/// As QEMU does, takes as many frames as fill the output, skippable ones between them, and wants the last to end there.
pub(super) fn decompress(
    context: &mut DCtx<'_>,
    data: &[u8],
    output: &mut [u8],
    most_blocks: u64,
) -> Result<usize, Fault> {
    let (mut read, mut produced, mut blocks_left) = (0, 0, most_blocks);
    while produced < output.len() {
        let rest = data.get(read..).unwrap_or_default();
        let frame = Frame::measure(rest, blocks_left).map_err(|failure| match failure {
            Unmeasured::TooManyBlocks => Fault::TooManyBlocks { most: most_blocks },
            Unmeasured::Incomplete => Fault::Incomplete { produced },
            Unmeasured::Invalid => Fault::Invalid { produced },
            Unmeasured::Foreign if read > 0 => Fault::Short { produced },
            Unmeasured::Foreign => Fault::Invalid { produced },
        })?;
        blocks_left -= frame.blocks;
        read += frame.length;
        if !frame.has_content {
            continue;
        }
        let target = output.get_mut(produced..).unwrap_or_default();
        let source = rest.get(..frame.length).unwrap_or_default();
        let content_size = zstd_safe::get_frame_content_size(source).unwrap_or_default();
        if content_size.is_some_and(|size| size > target.len() as u64) {
            return Err(Fault::Long);
        }
        if content_size.is_none() && frame.window > LARGEST_WINDOW {
            return Err(Fault::Invalid { produced });
        }
        produced += context
            .decompress(target, source)
            .map_err(|_| Fault::Invalid { produced })?;
    }
    Ok(read)
}

/// A frame by its headers, nothing decompressed.
struct Frame {
    /// Of all of it, in bytes.
    length: usize,
    /// A skippable frame counts as one.
    blocks: u64,
    has_content: bool,
    /// In bytes; none where the whole content is the window.
    window: u64,
}

/// Why a frame has no length.
#[derive(Debug, PartialEq, Eq)]
enum Unmeasured {
    /// The data end before the frame.
    Incomplete,
    Invalid,
    /// Something else than a frame.
    Foreign,
    TooManyBlocks,
}

impl Frame {
    /// libzstd measures frames too, but does not count their blocks, which is what their decompression costs.
    fn measure(data: &[u8], most_blocks: u64) -> Result<Frame, Unmeasured> {
        use Unmeasured::{Foreign, Incomplete, Invalid, TooManyBlocks};
        if most_blocks == 0 {
            return Err(TooManyBlocks);
        }
        if data.len() < 8 {
            return Err(Incomplete);
        }
        let magic = bytes::le_u32(data, 0);
        if magic & !0xF == SKIPPABLE {
            let length = (bytes::le_u32(data, 4) as usize).saturating_add(8);
            let frame = Frame {
                length,
                blocks: 1,
                has_content: false,
                window: 0,
            };
            return Some(frame)
                .filter(|_| length <= data.len())
                .ok_or(Incomplete);
        }
        if magic != MAGIC {
            return Err(Foreign);
        }
        let descriptor = *data.get(4).ok_or(Incomplete)?;
        let single_segment = descriptor & 0x20 != 0;
        let window_length = usize::from(!single_segment);
        let dictionary = [0, 1, 2, 4][usize::from(descriptor & 3)];
        let content_size = match descriptor >> 6 {
            0 => usize::from(single_segment),
            1 => 2,
            2 => 4,
            _ => 8,
        };
        let window = match data.get(5) {
            Some(byte) if !single_segment => {
                let base = 1u64 << (10 + (byte >> 3));
                base + base / 8 * u64::from(byte & 7)
            }
            _ => 0,
        };
        let checksum = if descriptor & 4 != 0 { 4 } else { 0 };
        let mut at = 5 + window_length + dictionary + content_size;
        for blocks in 1..=most_blocks {
            let block = data.get(at..at + 3).ok_or(Incomplete)?;
            let block = bytes::le_u32(block, 0);
            at += match (block >> 1) & 3 {
                1 => 4,
                3 => return Err(Invalid),
                _ => 3 + (block >> 3) as usize,
            };
            if block & 1 != 0 {
                let length = at + checksum;
                let frame = Frame {
                    length,
                    blocks,
                    has_content: true,
                    window,
                };
                return Some(frame)
                    .filter(|_| length <= data.len())
                    .ok_or(Incomplete);
            }
        }
        Err(TooManyBlocks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SKIPPED: [u8; 11] = [0x5A, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3];

    fn compress(data: &[u8], checksum: bool) -> Vec<u8> {
        let mut context = zstd_safe::CCtx::create();
        let flag = zstd_safe::CParameter::ChecksumFlag(checksum);
        context.set_parameter(flag).unwrap();
        let mut frame = vec![0; zstd_safe::compress_bound(data.len())];
        let length = context.compress2(&mut frame[..], data).unwrap();
        frame.truncate(length);
        frame
    }

    fn length(data: &[u8], output: usize) -> Result<usize, Fault> {
        decompress(&mut DCtx::create(), data, &mut vec![0; output], 10)
    }

    /// A frame of an unknown content size with those blocks, and a window of 128 KiB.
    fn frame(blocks: &[(u32, &[u8])]) -> Vec<u8> {
        let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0, 7 << 3];
        for (index, (kind, data)) in blocks.iter().enumerate() {
            let last = u32::from(index + 1 == blocks.len());
            let header = last | kind << 1 | (data.len() as u32) << 3;
            frame.extend(&header.to_le_bytes()[..3]);
            frame.extend(*data);
        }
        frame
    }

    #[test]
    fn a_frame_ends_where_its_last_block_or_its_checksum_ends() {
        let mut two = compress(&[1; 200], true);
        two.extend(compress(&[], false));
        two.extend(SKIPPED);
        two.extend(compress(&[2; 312], false));
        for data in [
            compress(&[0; 512], true),
            compress(&[0; 512], false),
            compress(&b"a few words ".repeat(43)[..512], true),
            frame(&[(0, &[7; 512])]),
            frame(&[(0, &[7; 12]), (0, &[]), (0, &[8; 500]), (0, &[])]),
            two,
        ] {
            let whole = data.len();
            let mut padded = data.clone();
            padded.extend([0xA5; 20]);
            assert_eq!(length(&data, 512), Ok(whole));
            assert_eq!(length(&padded, 512), Ok(whole));
            assert!(length(&padded, 511).is_err());
            assert_eq!(length(&padded, 513), Err(Fault::Short { produced: 512 }));
            for cut in 0..whole {
                assert!(
                    matches!(length(&data[..cut], 512), Err(Fault::Incomplete { .. })),
                    "{cut}"
                );
            }
        }
        assert_eq!(length(&compress(&[0; 513], true), 512), Err(Fault::Long));
    }

    #[test]
    fn damage_is_told() {
        let mut checksum = compress(&[0; 512], true);
        *checksum.last_mut().unwrap() ^= 1;
        let mut reserved = frame(&[(0, &[7; 512])]);
        reserved[6] |= 6;
        let mut window = frame(&[(0, &[7; 512])]);
        window[5] = 18 << 3;
        let mut dictionary = frame(&[(0, &[7; 512])]);
        dictionary[4] |= 1;
        dictionary.insert(6, 9);
        for data in [checksum, reserved, window, dictionary, vec![0; 64]] {
            assert_eq!(length(&data, 512), Err(Fault::Invalid { produced: 0 }));
        }
    }

    #[test]
    fn blocks_without_output_are_taken_in_small_numbers_only() {
        let (empty_block, empty_frame) = ((0, &[][..]), compress(&[], false));
        for (count, taken) in [(1, true), (8, true), (11, false), (100_000, false)] {
            let mut blocks = vec![empty_block; count];
            blocks.push((0, &[7; 512]));
            let content = frame(&[(0, &[7; 512])]);
            for data in [
                frame(&blocks),
                [SKIPPED.repeat(count), content.clone()].concat(),
                [empty_frame.repeat(count), content.clone()].concat(),
            ] {
                let expected = if taken {
                    Ok(data.len())
                } else {
                    Err(Fault::TooManyBlocks { most: 10 })
                };
                assert_eq!(length(&data, 512), expected, "{count}");
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_end_in_an_answer(mut data in proptest::collection::vec(0u8.., 4..300)) {
            data.splice(..4, MAGIC.to_le_bytes());
            if let Ok(length) = length(&data, 512) {
                proptest::prop_assert!(length <= data.len());
            }
        }

        #[test]
        fn frames_are_as_long_as_libzstd_says(data in proptest::collection::vec(0u8..4, 0..3000), checksum: bool) {
            let frame = compress(&data, checksum);
            let expected = zstd_safe::find_frame_compressed_size(&frame).unwrap();
            proptest::prop_assert_eq!(Frame::measure(&frame, 10).map(|frame| frame.length), Ok(expected));
        }
    }
}
