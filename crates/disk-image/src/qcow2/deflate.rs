//! One deflate stream (RFC 1951), as a compressed cluster has it, decompressed by zlib-rs.

use zlib_rs::{Inflate, InflateFlush, Status};

use super::fault::Fault;

/// The format says 12; QEMU, which has the whole cluster as its window, takes what refers further back.
const WINDOW_BITS: u8 = 15;

pub(super) struct Deflate(Inflate);

impl Deflate {
    pub(super) fn new() -> Deflate {
        Deflate(Inflate::new(false, WINDOW_BITS))
    }

    /// Fills the output from the stream at the start of the data, and returns how many bytes the stream has.
    ///
    /// QEMU stops as soon as the output is full. A stream that goes on then is refused all the same: no program
    /// writes one, and most damage to a stream, which has no checksum, ends in that.
    pub(super) fn decompress(
        &mut self,
        data: &[u8],
        output: &mut [u8],
        most_blocks: u64,
    ) -> Result<usize, Fault> {
        self.0.reset(false);
        let (mut read, mut produced) = (0, 0);
        // The call returns at the beginning of each block.
        for _ in 0..=most_blocks {
            let ended = self.0.decompress(
                data.get(read..).unwrap_or_default(),
                output.get_mut(produced..).unwrap_or_default(),
                InflateFlush::Block,
            );
            read = usize::try_from(self.0.total_in()).unwrap_or(usize::MAX);
            produced = usize::try_from(self.0.total_out()).unwrap_or(usize::MAX);
            match ended {
                Ok(Status::Ok) => {}
                Ok(Status::StreamEnd) if produced == output.len() => return Ok(read),
                Ok(Status::StreamEnd) => return Err(Fault::Short { produced }),
                Ok(Status::BufError) => {
                    let rest = data.get(read..).unwrap_or_default();
                    let goes_on = self.0.decompress(rest, &mut [0], InflateFlush::NoFlush);
                    let is_long = goes_on.is_ok() && self.0.total_out() > output.len() as u64;
                    return Err(if is_long {
                        Fault::Long
                    } else {
                        Fault::Incomplete { produced }
                    });
                }
                Err(_) => return Err(Fault::Invalid { produced }),
            }
        }
        Err(Fault::TooManyBlocks { most: most_blocks })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use flate2::{Compress, Compression, FlushCompress};

    use super::*;

    /// A raw deflate stream of the data.
    pub(crate) fn compress(data: &[u8]) -> Vec<u8> {
        let mut compress = Compress::new(Compression::default(), false);
        let mut stream = Vec::with_capacity(data.len() + 1024);
        compress
            .compress_vec(data, &mut stream, FlushCompress::Finish)
            .unwrap();
        stream
    }

    /// Bits, least significant first.
    #[derive(Default)]
    pub(crate) struct Bits {
        pub(crate) bytes: Vec<u8>,
        count: usize,
    }

    impl Bits {
        pub(crate) fn put(&mut self, value: u32, count: usize) {
            for index in 0..count {
                if self.count.is_multiple_of(8) {
                    self.bytes.push(0);
                }
                let bit = (value >> index & 1) as u8;
                *self.bytes.last_mut().unwrap() |= bit << (self.count % 8);
                self.count += 1;
            }
        }

        /// A block with codes of its own, of which one is used: the end of the block.
        fn put_empty_dynamic_block(&mut self) {
            self.put(0, 1);
            self.put(2, 2);
            self.put(0, 10);
            self.put(14, 4);
            for symbol in [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1] {
                self.put(u32::from(symbol == 18 || symbol == 1), 3);
            }
            for zeros in [138, 118] {
                self.put(1, 1);
                self.put(zeros - 11, 7);
            }
            // The lengths of the end of the block and of a distance, then the end of the block.
            self.put(0, 3);
        }
    }

    /// Blocks without output, by their kind.
    pub(crate) fn empty_blocks(kind: u32, count: usize) -> Bits {
        let mut bits = Bits::default();
        for _ in 0..count {
            match kind {
                0 => {
                    bits.put(0, 3);
                    let padding = bits.bytes.len() * 8 - bits.count;
                    bits.put(0, padding);
                    bits.put(0xffff_0000, 32);
                }
                1 => bits.put(2, 10),
                _ => bits.put_empty_dynamic_block(),
            }
        }
        bits
    }

    fn length(data: &[u8], output: usize) -> Result<usize, Fault> {
        Deflate::new().decompress(data, &mut vec![0; output], 10)
    }

    #[test]
    fn a_stream_ends_where_it_ends_and_nowhere_else() {
        let mut noise = vec![0; 512];
        rand::RngCore::fill_bytes(&mut rand::rng(), &mut noise);
        let mut stored = vec![1, 0, 2, 0xff, 0xfd];
        stored.resize(517, 7);
        let text = b"a stream of one block with its own codes ".repeat(13);
        for stream in [
            compress(&[b'a'; 512]),
            compress(&text[..512]),
            compress(&noise),
            stored,
        ] {
            let whole = stream.len();
            let mut padded = stream.clone();
            padded.extend([0xA5; 20]);
            assert_eq!(length(&stream, 512), Ok(whole));
            assert_eq!(length(&padded, 512), Ok(whole));
            assert!(length(&padded, 511).is_err());
            assert_eq!(length(&padded, 513), Err(Fault::Short { produced: 512 }));
            for cut in 0..whole {
                assert!(
                    matches!(length(&stream[..cut], 512), Err(Fault::Incomplete { .. })),
                    "{cut} of {whole}"
                );
            }
        }
        assert_eq!(length(&compress(&text), 512), Err(Fault::Long));
    }

    #[test]
    fn what_is_not_deflate_is_told() {
        let cases: [&[u8]; 6] = [
            // An unknown kind of block, a stored block whose two lengths disagree, a code with too many symbols,
            // a distance before the beginning, the length code 286, zeros.
            &[0x07],
            &[1, 0, 2, 0, 0],
            &[0x05, 0xe0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
            &[0x03, 0x02, 0, 0],
            &[0x1b, 0x03, 0, 0],
            &[0; 64],
        ];
        for case in cases {
            assert!(length(case, 512).is_err(), "{case:?}");
        }
        assert_eq!(length(&[0; 64], 512), Err(Fault::Invalid { produced: 0 }));
    }

    #[test]
    fn blocks_without_output_are_taken_in_small_numbers_only() {
        for kind in 0..3 {
            for (count, taken) in [(1, true), (8, true), (11, false), (100_000, false)] {
                let mut bits = empty_blocks(kind, count);
                // 512 times the same byte, by the fixed codes: a literal, a match, the end.
                bits.put(1, 1);
                bits.put(1, 2);
                let all = [0b1000_1100_u32];
                for byte in all {
                    bits.put(byte.reverse_bits() >> 24, 8);
                }
                bits.put(0, 7);
                let ended = length(&bits.bytes, 1);
                if taken {
                    assert_eq!(ended, Ok(bits.bytes.len()), "{kind} {count}");
                } else {
                    assert_eq!(
                        ended,
                        Err(Fault::TooManyBlocks { most: 10 }),
                        "{kind} {count}"
                    );
                }
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_end_in_an_answer(data in proptest::collection::vec(0u8.., 0..300)) {
            if let Ok(length) = length(&data, 512) {
                proptest::prop_assert!(length <= data.len());
            }
        }
    }
}
