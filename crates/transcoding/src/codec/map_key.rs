//! Keys of maps, which JSON has as names of members.

use std::borrow::Cow;

use super::{
    integers::{expected_integer, put_integer, range},
    numbers::whole,
    schema::Kind,
    wire,
};

/// The key of a map, in a form in which equal ones are the same.
#[derive(PartialEq, Eq, Hash)]
pub(super) enum MapKey<'j> {
    Number(i128),
    Text(Cow<'j, str>),
}

impl<'j> MapKey<'j> {
    /// Reads a member's name as a key, or tells what would be one. Leading zeros are taken.
    pub(super) fn read(kind: Kind, name: &Cow<'j, str>) -> Result<Self, String> {
        match kind {
            Kind::String => Ok(Self::Text(name.clone())),
            Kind::Bool => match &**name {
                "true" => Ok(Self::Number(1)),
                "false" => Ok(Self::Number(0)),
                _ => Err("true or false".to_owned()),
            },
            kind => {
                let (least, greatest) = range(kind);
                let is_plain = !name.starts_with('+');
                let plain = name.parse().ok().filter(|_| is_plain);
                plain
                    .or_else(|| whole(name).ok())
                    .filter(|key| (least..=greatest).contains(key))
                    .map(Self::Number)
                    .ok_or_else(|| expected_integer(kind))
            }
        }
    }

    /// Puts the key as the first field of an entry, unless it is the default.
    pub(super) fn put(&self, kind: Kind, out: &mut Vec<u8>) {
        match self {
            Self::Number(0) => {}
            Self::Text(text) if text.is_empty() => {}
            Self::Number(number) => {
                wire::put_varint((1 << 3 | kind.wire_type()).into(), out);
                put_integer(kind, *number, out);
            }
            Self::Text(text) => {
                wire::put_varint((1 << 3 | kind.wire_type()).into(), out);
                wire::put_bytes(text.as_bytes(), out);
            }
        }
    }
}
