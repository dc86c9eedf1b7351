//! The length of a deflate stream (RFC 1951), found by decoding it without keeping what comes out.

/// The base value and the number of extra bits of the length codes 257 to 285.
const LENGTHS: [(u64, u32); 29] = [
    (3, 0),
    (4, 0),
    (5, 0),
    (6, 0),
    (7, 0),
    (8, 0),
    (9, 0),
    (10, 0),
    (11, 1),
    (13, 1),
    (15, 1),
    (17, 1),
    (19, 2),
    (23, 2),
    (27, 2),
    (31, 2),
    (35, 3),
    (43, 3),
    (51, 3),
    (59, 3),
    (67, 4),
    (83, 4),
    (99, 4),
    (115, 4),
    (131, 5),
    (163, 5),
    (195, 5),
    (227, 5),
    (258, 0),
];

/// The same for the distance codes 0 to 29.
const DISTANCES: [(u64, u32); 30] = [
    (1, 0),
    (2, 0),
    (3, 0),
    (4, 0),
    (5, 1),
    (7, 1),
    (9, 2),
    (13, 2),
    (17, 3),
    (25, 3),
    (33, 4),
    (49, 4),
    (65, 5),
    (97, 5),
    (129, 6),
    (193, 6),
    (257, 7),
    (385, 7),
    (513, 8),
    (769, 8),
    (1025, 9),
    (1537, 9),
    (2049, 10),
    (3073, 10),
    (4097, 11),
    (6145, 11),
    (8193, 12),
    (12289, 12),
    (16385, 13),
    (24577, 13),
];

/// The order in which the lengths of the code length codes are sent.
const CODE_LENGTH_ORDER: [usize; 19] = [
    16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15,
];

/// How many bytes the stream at the start of the data has, with its final block. None where it does not end in the
/// data, is not deflate, or holds anything but `output` bytes.
pub(super) fn stream_length(data: &[u8], output: u64) -> Option<usize> {
    let mut bits = Bits { data, position: 0 };
    let mut produced = 0;
    loop {
        let last = bits.take(1)? == 1;
        match bits.take(2)? {
            0 => produced += stored(&mut bits)?,
            1 => coded(
                &mut bits,
                &fixed_literals(),
                &fixed_distances(),
                &mut produced,
                output,
            )?,
            2 => {
                let (literals, distances) = dynamic_codes(&mut bits)?;
                coded(&mut bits, &literals, &distances, &mut produced, output)?;
            }
            _ => return None,
        }
        if produced > output {
            return None;
        }
        if last {
            return (produced == output).then(|| bits.position.div_ceil(8));
        }
    }
}

/// Bits, least significant first.
struct Bits<'a> {
    data: &'a [u8],
    /// In bits from the start.
    position: usize,
}

impl Bits<'_> {
    fn take(&mut self, count: u32) -> Option<u64> {
        let mut value = 0;
        for index in 0..count {
            let byte = *self.data.get(self.position / 8)?;
            value |= u64::from((byte >> (self.position % 8)) & 1) << index;
            self.position += 1;
        }
        Some(value)
    }
}

/// A Huffman code: how many codes there are of each length, and the symbols in the order of their codes.
struct Code {
    counts: [u32; 16],
    symbols: Vec<usize>,
}

impl Code {
    /// None where the lengths ask for more codes than there are.
    fn new(lengths: &[u8]) -> Option<Code> {
        let mut counts = [0u32; 16];
        let mut symbols = Vec::new();
        for (length, count) in counts.iter_mut().enumerate().skip(1) {
            for (symbol, symbol_length) in lengths.iter().enumerate() {
                if usize::from(*symbol_length) == length {
                    *count += 1;
                    symbols.push(symbol);
                }
            }
        }
        let mut left = 1i64;
        for count in counts.iter().skip(1) {
            left = left * 2 - i64::from(*count);
            if left < 0 {
                return None;
            }
        }
        Some(Code { counts, symbols })
    }

    fn decode(&self, bits: &mut Bits<'_>) -> Option<usize> {
        let mut code = 0u32;
        let mut first = 0u32;
        let mut index = 0u32;
        for count in self.counts.iter().skip(1) {
            code |= bits.take(1)? as u32;
            if let Some(within) = code.checked_sub(first)
                && within < *count
            {
                return self.symbols.get((index + within) as usize).copied();
            }
            index += count;
            first = (first + count) << 1;
            code <<= 1;
        }
        None
    }
}

fn stored(bits: &mut Bits<'_>) -> Option<u64> {
    bits.position = bits.position.next_multiple_of(8);
    let length = bits.take(16)?;
    let complement = bits.take(16)?;
    if length ^ complement != 0xffff {
        return None;
    }
    bits.position += usize::try_from(length).ok()? * 8;
    (bits.position <= bits.data.len() * 8).then_some(length)
}

fn fixed_literals() -> Option<Code> {
    let mut lengths = [8u8; 288];
    for (symbol, length) in lengths.iter_mut().enumerate() {
        *length = match symbol {
            0..=143 => 8,
            144..=255 => 9,
            256..=279 => 7,
            _ => 8,
        };
    }
    Code::new(&lengths)
}

fn fixed_distances() -> Option<Code> {
    Code::new(&[5; 30])
}

fn dynamic_codes(bits: &mut Bits<'_>) -> Option<(Option<Code>, Option<Code>)> {
    let literal_count = bits.take(5)? as usize + 257;
    let distance_count = bits.take(5)? as usize + 1;
    let code_length_count = bits.take(4)? as usize + 4;
    let mut code_lengths = [0u8; 19];
    for symbol in CODE_LENGTH_ORDER.iter().take(code_length_count) {
        if let Some(length) = code_lengths.get_mut(*symbol) {
            *length = bits.take(3)? as u8;
        }
    }
    let code = Code::new(&code_lengths)?;
    let total = literal_count + distance_count;
    let mut lengths: Vec<u8> = Vec::with_capacity(total);
    while lengths.len() < total {
        let (length, repeat) = match code.decode(bits)? {
            symbol @ 0..=15 => (symbol as u8, 1),
            16 => (*lengths.last()?, bits.take(2)? + 3),
            17 => (0, bits.take(3)? + 3),
            _ => (0, bits.take(7)? + 11),
        };
        for _ in 0..repeat {
            lengths.push(length);
        }
    }
    if lengths.len() > total {
        return None;
    }
    let (literals, distances) = lengths.split_at_checked(literal_count)?;
    Some((Code::new(literals), Code::new(distances)))
}

fn coded(
    bits: &mut Bits<'_>,
    literals: &Option<Code>,
    distances: &Option<Code>,
    produced: &mut u64,
    output: u64,
) -> Option<()> {
    let (literals, distances) = (literals.as_ref()?, distances.as_ref()?);
    while *produced <= output {
        match literals.decode(bits)? {
            0..=255 => *produced += 1,
            256 => return Some(()),
            symbol => {
                let (base, extra) = *LENGTHS.get(symbol - 257)?;
                let length = base + bits.take(extra)?;
                let (base, extra) = *DISTANCES.get(distances.decode(bits)?)?;
                let distance = base + bits.take(extra)?;
                if distance > *produced {
                    return None;
                }
                *produced += length;
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 512 bytes each, as zlib compresses them: one block with the fixed codes, one with its own.
    const FIXED: &str = "4b4c1c0523190000";
    const DYNAMIC: &str = "7d904b0a80300c44afd2ab255874d1820bef8f9fa1fa64d0cd1026c9cb27eb16254f99a3f728536d471c\
                           6d5d86ca5136ef6ab9d4278702822e5ba1688c9d676c368168155c98103a06c47db461f878c2fd2e0cfa\
                           3a94307f365672ba2b9ef1dbff4eee";

    fn bytes(hexadecimal: &str) -> Vec<u8> {
        (0..hexadecimal.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&hexadecimal[at..at + 2], 16).unwrap())
            .collect()
    }

    fn stored() -> Vec<u8> {
        let mut stream = vec![1, 0, 2, 0xff, 0xfd];
        stream.resize(517, 7);
        stream
    }

    #[test]
    fn a_stream_ends_where_it_ends_and_nowhere_else() {
        for stream in [bytes(FIXED), bytes(DYNAMIC), stored()] {
            let length = stream.len();
            let mut padded = stream.clone();
            padded.extend([0xA5; 20]);
            assert_eq!(stream_length(&stream, 512), Some(length));
            assert_eq!(stream_length(&padded, 512), Some(length));
            assert_eq!(stream_length(&stream, 511), None);
            assert_eq!(stream_length(&stream, 513), None);
            for cut in 0..length {
                assert_eq!(
                    stream_length(&stream[..cut], 512),
                    None,
                    "{cut} of {length}"
                );
            }
        }
    }

    #[test]
    fn what_is_not_deflate_is_told() {
        let cases: [&[u8]; 5] = [
            // An unknown kind of block, a stored block whose two lengths disagree, a code with too many symbols,
            // a distance before the beginning, the length code 286.
            &[0x07],
            &[1, 0, 2, 0, 0],
            &[0x05, 0xe0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
            &[0x03, 0x02, 0, 0],
            &[0x1b, 0x03, 0, 0],
        ];
        for case in cases {
            assert_eq!(stream_length(case, 512), None, "{case:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_end_in_an_answer(data in proptest::collection::vec(0u8.., 0..300)) {
            if let Some(length) = stream_length(&data, 512) {
                proptest::prop_assert!(length <= data.len());
            }
        }
    }
}
