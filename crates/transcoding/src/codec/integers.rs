//! Integer kinds: their ranges, and their numbers on the wire.

use super::{schema::Kind, wire};

/// Words for the numbers of an integer kind, behind "expected".
pub(super) fn expected_integer(kind: Kind) -> String {
    let (least, greatest) = range(kind);
    format!("a whole number from {least} to {greatest}")
}

/// The least and the greatest number of an integer kind.
pub(super) fn range(kind: Kind) -> (i128, i128) {
    match kind {
        Kind::Uint32 | Kind::Fixed32 => (0, u32::MAX.into()),
        Kind::Uint64 | Kind::Fixed64 => (0, u64::MAX.into()),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => (i64::MIN.into(), i64::MAX.into()),
        _ => (i32::MIN.into(), i32::MAX.into()),
    }
}

/// Puts a number within the range of its kind.
pub(super) fn put_integer(kind: Kind, value: i128, out: &mut Vec<u8>) {
    match kind {
        Kind::Sint32 | Kind::Sint64 => {
            let value = value as i64;
            wire::put_varint(((value << 1) ^ (value >> 63)) as u64, out);
        }
        Kind::Fixed32 | Kind::Sfixed32 => out.extend_from_slice(&(value as u32).to_le_bytes()),
        Kind::Fixed64 | Kind::Sfixed64 => out.extend_from_slice(&(value as u64).to_le_bytes()),
        // Negative numbers fill 64 bits, of 32-bit kinds too.
        _ => wire::put_varint(value as u64, out),
    }
}
