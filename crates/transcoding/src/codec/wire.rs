//! The wire format of protobuf: tags, varints, lengths and groups, read from slices and put behind a
//! buffer.

/// Bytes that are no message, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed(pub &'static str);

/// How many levels there may be below a message: what protobuf decoders take. Objects and lists of a
/// JSON text are counted like that too.
pub(super) const MAX_DEPTH: u32 = 100;

pub(super) const VARINT: u32 = 0;
pub(super) const FIXED64: u32 = 1;
pub(super) const LENGTH: u32 = 2;
pub(super) const START_GROUP: u32 = 3;
pub(super) const END_GROUP: u32 = 4;
pub(super) const FIXED32: u32 = 5;

/// Takes a varint off the front.
#[inline]
pub(super) fn varint(input: &mut &[u8]) -> Result<u64, Malformed> {
    match *input {
        [byte, rest @ ..] if *byte < 0x80 => {
            *input = rest;
            Ok(u64::from(*byte))
        }
        _ => long_varint(input),
    }
}

fn long_varint(input: &mut &[u8]) -> Result<u64, Malformed> {
    // Most end within eight bytes, which are looked at as one.
    if let Some(first) = input.first_chunk() {
        let word = u64::from_le_bytes(*first);
        let ends = !word & 0x8080_8080_8080_8080;
        if ends != 0 {
            let bits = ends.trailing_zeros() + 1;
            *input = &input[bits as usize / 8..];
            return Ok(join_sevens(word & u64::MAX >> (64 - bits)));
        }
    }
    let mut value = 0;
    for (index, byte) in input.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if *byte < 0x80 {
            if index == 9 && *byte > 1 {
                return Err(Malformed("a varint has more than 64 bits"));
            }
            *input = &input[index + 1..];
            return Ok(value);
        }
    }
    Err(Malformed("a varint does not end"))
}

/// The low seven bits of eight bytes, one behind another: of pairs, then pairs of pairs.
#[inline]
fn join_sevens(word: u64) -> u64 {
    let word = word & 0x007f_007f_007f_007f | (word & 0x7f00_7f00_7f00_7f00) >> 1;
    let word = word & 0x0000_3fff_0000_3fff | (word & 0x3fff_0000_3fff_0000) >> 2;
    word & 0x0fff_ffff | (word & 0x0fff_ffff_0000_0000) >> 4
}

/// Takes a tag, the number of a field and its wire type, off the front.
#[inline]
pub(super) fn tag(input: &mut &[u8]) -> Result<u32, Malformed> {
    let tag = u32::try_from(varint(input)?).map_err(|_| Malformed("a tag has over 32 bits"))?;
    if tag >> 3 == 0 {
        return Err(Malformed("a field has the number 0"));
    }
    if tag & 7 > FIXED32 {
        return Err(Malformed("a field has no wire type"));
    }
    Ok(tag)
}

/// Takes a length and as many bytes off the front.
#[inline]
pub(super) fn bytes<'w>(input: &mut &'w [u8]) -> Result<&'w [u8], Malformed> {
    let length = varint(input)?;
    let length = usize::try_from(length).map_err(|_| Malformed("a field ends beyond the end"))?;
    let (bytes, rest) = input
        .split_at_checked(length)
        .ok_or(Malformed("a field ends beyond the end"))?;
    *input = rest;
    Ok(bytes)
}

/// Takes a fixed number of bytes off the front.
#[inline]
pub(super) fn fixed<const N: usize>(input: &mut &[u8]) -> Result<[u8; N], Malformed> {
    let (bytes, rest) = input
        .split_first_chunk::<N>()
        .ok_or(Malformed("a field ends beyond the end"))?;
    *input = rest;
    Ok(*bytes)
}

/// Takes the fields of a group off the front, whose start tag has been taken, and its end tag.
pub(super) fn group<'w>(number: u32, input: &mut &'w [u8]) -> Result<&'w [u8], Malformed> {
    let all = *input;
    let mut end = all.len();
    let mut open = vec![number];
    while let Some(innermost) = open.last() {
        end = all.len() - input.len();
        let tag = tag(input)?;
        match tag & 7 {
            START_GROUP if open.len() > MAX_DEPTH as usize => {
                return Err(Malformed("groups are nested too deep"));
            }
            START_GROUP => open.push(tag >> 3),
            END_GROUP if *innermost != tag >> 3 => {
                return Err(Malformed("a group ends within another"));
            }
            END_GROUP => {
                open.pop();
            }
            _ => skip(tag, input)?,
        }
    }
    Ok(&all[..end])
}

/// Takes the value of a field off the front.
#[inline]
pub(super) fn skip(tag: u32, input: &mut &[u8]) -> Result<(), Malformed> {
    match tag & 7 {
        LENGTH => bytes(input).map(|_| ()),
        VARINT => varint(input).map(|_| ()),
        FIXED64 => fixed::<8>(input).map(|_| ()),
        START_GROUP => group(tag >> 3, input).map(|_| ()),
        FIXED32 => fixed::<4>(input).map(|_| ()),
        _ => Err(Malformed("a group ends that was not begun")),
    }
}

/// Puts a varint.
#[inline]
pub(super) fn put_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Puts a length and the bytes.
#[inline]
pub(super) fn put_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    put_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

/// Leaves room for the length of what is put next, and tells where that starts.
#[inline]
pub(super) fn open_length(out: &mut Vec<u8>) -> usize {
    out.push(0);
    out.len()
}

/// Puts the length of everything since `start` into the room before it, which grows as needed: most
/// lengths take one byte.
#[inline]
pub(super) fn close_length(start: usize, out: &mut Vec<u8>) {
    let length = out.len() - start;
    if length < 0x80 {
        out[start - 1] = length as u8;
    } else {
        close_long(start, length, out);
    }
}

fn close_long(start: usize, length: usize, out: &mut Vec<u8>) {
    let mut digits = [0; 10];
    let (mut count, mut rest) = (0, length as u64);
    while rest >= 0x80 {
        digits[count] = rest as u8 | 0x80;
        rest >>= 7;
        count += 1;
    }
    digits[count] = rest as u8;
    let end = out.len();
    out.resize(end + count, 0);
    out.copy_within(start..end, start + count);
    out[start - 1..start + count].copy_from_slice(&digits[..=count]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_any_size_fit() {
        for length in [0, 1, 127, 128, 16_383, 16_384, 2_097_152] {
            let mut out = vec![7];
            let start = open_length(&mut out);
            out.resize(start + length, 5);
            close_length(start, &mut out);
            let mut rest = &out[1..];
            assert_eq!(bytes(&mut rest), Ok([5].repeat(length).as_slice()));
            assert!(rest.is_empty());
        }
    }

    #[test]
    fn varints_are_read_as_they_were_put() {
        let edges = (0..64).flat_map(|bits| [(1 << bits) - 1, 1 << bits, u64::MAX >> bits]);
        for value in edges.chain([300, 0x0123_4567_89ab_cdef]) {
            let mut out = Vec::new();
            put_varint(value, &mut out);
            // With little and with much behind it.
            for behind in [&[][..], &[0xff; 12]] {
                let all = [&out, behind].concat();
                let mut rest = all.as_slice();
                assert_eq!(varint(&mut rest), Ok(value));
                assert_eq!(rest, behind);
            }
        }
        for wrong in [
            &[][..],
            &[0x80],
            &[0xff; 11],
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2],
        ] {
            assert!(varint(&mut &wrong[..]).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn groups_end_where_they_should() {
        // Field 1 as a group: field 2 = 5, field 3 an empty group, the end; then one more byte.
        let mut input = &[0x10, 5, 0x1b, 0x1c, 0x0c, 9][..];
        assert_eq!(group(1, &mut input), Ok(&[0x10, 5, 0x1b, 0x1c][..]));
        assert_eq!(input, [9]);
        for wrong in [&[0x10, 5][..], &[0x14], &[0x1b, 0x0c], &[0x10]] {
            assert!(group(1, &mut &wrong[..]).is_err(), "{wrong:?}");
        }
    }
}
