//! The same random message as other bytes.

use prost_reflect::{Kind, MessageDescriptor};

use super::{super::wire, random::Tape};

/// The same message in other bytes: fields in another order, lists in pieces, packed or not, messages
/// in two pieces, unknown fields between them.
pub(super) fn permuted(wire: &[u8], message: &MessageDescriptor, tape: &mut Tape<'_>) -> Vec<u8> {
    let mut pieces: Vec<(u32, Vec<u8>)> = Vec::new();
    let mut rest = wire;
    while !rest.is_empty() {
        let tag = wire::tag(&mut rest).expect("a tag");
        let number = tag >> 3;
        let field = message.get_field(number).expect("a field");
        let mut value = rest;
        wire::skip(tag, &mut rest).expect("a value");
        let whole = &value[..value.len() - rest.len()];
        let mut put = |tag: u32, value: &[u8]| {
            let mut piece = Vec::new();
            wire::put_varint(tag.into(), &mut piece);
            piece.extend_from_slice(value);
            pieces.push((number, piece));
        };
        let element = match field.kind() {
            Kind::Float | Kind::Fixed32 | Kind::Sfixed32 => wire::FIXED32,
            Kind::Double | Kind::Fixed64 | Kind::Sfixed64 => wire::FIXED64,
            Kind::String | Kind::Bytes | Kind::Message(_) => wire::LENGTH,
            _ => wire::VARINT,
        };
        if field.is_list() && element != wire::LENGTH && tag & 7 == wire::LENGTH {
            // A packed list: some values alone, some in a shorter list.
            let mut packed = wire::bytes(&mut value).expect("a list");
            while !packed.is_empty() {
                let before = packed;
                wire::skip(number << 3 | element, &mut packed).expect("a value");
                let one = &before[..before.len() - packed.len()];
                if tape.below(2) == 0 {
                    put(number << 3 | element, one);
                } else {
                    let mut list = Vec::new();
                    wire::put_bytes(one, &mut list);
                    put(number << 3 | wire::LENGTH, &list);
                }
            }
        } else if let Kind::Message(inner) = field.kind() {
            let body = wire::bytes(&mut value).expect("a message");
            let body = permuted(body, &inner, tape);
            let split = match tape.below(2) {
                1 if !field.is_list() && !field.is_map() => split(&body, tape),
                _ => None,
            };
            let (first, second) = split.unwrap_or((&body, &[]));
            let mut length = Vec::new();
            wire::put_bytes(first, &mut length);
            put(tag, &length);
            if split.is_some() {
                length.clear();
                wire::put_bytes(second, &mut length);
                put(tag, &length);
            }
        } else {
            put(tag, whole);
        }
    }
    // Fields may change places, the pieces of one field may not, nor may members of a oneof: those
    // of one message are in one piece each.
    for at in (1..pieces.len()).rev() {
        let other = tape.below(at as u32 + 1) as usize;
        let between = other..=at;
        let numbers: Vec<_> = pieces[between].iter().map(|piece| piece.0).collect();
        let ends = [numbers[0], numbers[numbers.len() - 1]];
        let is_alone = |number: &u32| numbers.iter().filter(|other| *other == number).count() == 1;
        if ends.iter().all(is_alone) {
            pieces.swap(other, at);
        }
    }
    if tape.below(4) == 3 {
        let unknown = vec![0xfa, 0xff, 0xff, 0xff, 0x0f, 2, 1, 2];
        let at = tape.below(pieces.len() as u32 + 1) as usize;
        // Field 536870911, the greatest, is none of ours.
        pieces.insert(at, (u32::MAX, unknown));
    }
    pieces.into_iter().flat_map(|(_, piece)| piece).collect()
}

/// Two parts of a message's bytes between fields.
fn split<'w>(body: &'w [u8], tape: &mut Tape<'_>) -> Option<(&'w [u8], &'w [u8])> {
    let mut rest = body;
    for _ in 0..=tape.below(3) {
        let tag = wire::tag(&mut rest).ok()?;
        wire::skip(tag, &mut rest).ok()?;
    }
    Some(body.split_at(body.len() - rest.len()))
}
