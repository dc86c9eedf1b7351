//! Maps of wire bytes as JSON objects, in the order of their keys.

use super::{
    error::Stop,
    json_text::JsonText,
    schema::{Field, Kind},
    text,
    to_json::{Writer, close, expect, next_of, put_string},
    wire::{self, LENGTH},
};

impl Writer<'_> {
    /// Entries in the order of their keys.
    pub(super) fn map(
        &self,
        field: &Field,
        key: Kind,
        mut tag: u32,
        wire: &mut &[u8],
        levels: u32,
        out: &mut JsonText,
    ) -> Result<bool, Stop> {
        out.push(b'{');
        let (start, first) = (out.len(), *wire);
        let mut last = None;
        loop {
            expect(tag, field.tag)?;
            let entry = Entry::read(wire::bytes(wire)?, key, field.kind)?;
            if last.is_some_and(|last| last >= entry.key) {
                out.truncate(start);
                *wire = first;
                return self.unsorted_map(field, key, wire, levels, out);
            }
            self.entry(field, &entry, levels, out)?;
            last = Some(entry.key);
            match next_of(field.number, wire)? {
                Some(next) => tag = next,
                None => break,
            }
        }
        Ok(close(start, b'}', out))
    }

    /// [`Self::map`] of entries in any order. The brace and the first tag are behind us.
    fn unsorted_map(
        &self,
        field: &Field,
        key: Kind,
        wire: &mut &[u8],
        levels: u32,
        out: &mut JsonText,
    ) -> Result<bool, Stop> {
        let start = out.len();
        let mut entries = Vec::new();
        loop {
            entries.push(Entry::read(wire::bytes(wire)?, key, field.kind)?);
            match next_of(field.number, wire)? {
                Some(tag) => expect(tag, field.tag)?,
                None => break,
            }
        }
        entries.sort_unstable_by_key(|entry| entry.key);
        // Of equal keys the last counts.
        if entries.windows(2).any(|pair| pair[0].key == pair[1].key) {
            return Err(Stop::Disordered);
        }
        for entry in &entries {
            self.entry(field, entry, levels, out)?;
        }
        Ok(close(start, b'}', out))
    }

    fn entry(
        &self,
        field: &Field,
        entry: &Entry<'_>,
        levels: u32,
        out: &mut JsonText,
    ) -> Result<(), Stop> {
        match entry.key {
            Key::Bool(true) => out.put(b"\"true\""),
            Key::Bool(false) => out.put(b"\"false\""),
            Key::Signed(key) => text::put_quoted_integer(key, out),
            Key::Unsigned(key) => text::put_quoted_integer(key, out),
            Key::Text(key) => put_string(key, out)?,
        }
        out.push(b':');
        match (entry.value, field.kind) {
            (Some(mut value), Kind::String) => put_string(wire::bytes(&mut value)?, out)?,
            (Some(mut value), kind) => {
                self.value(kind, &mut value, levels, out)?;
            }
            (None, Kind::Message(index)) => self.inner(index, &[], levels, out)?,
            (None, Kind::Enum(index)) => {
                let as_number = self.settings.enum_numbers;
                self.schema.enums[index].put(0, as_number, out);
            }
            (None, kind) => out.put(kind.default_json()),
        }
        out.push(b',');
        Ok(())
    }
}

/// The key of a map's entry, in its order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Key<'w> {
    Bool(bool),
    Signed(i64),
    Unsigned(u64),
    Text(&'w [u8]),
}

/// One entry of a map, with the bytes that begin with its value.
struct Entry<'w> {
    key: Key<'w>,
    value: Option<&'w [u8]>,
}

impl<'w> Entry<'w> {
    fn read(wire: &'w [u8], key_kind: Kind, value_kind: Kind) -> Result<Self, Stop> {
        if key_kind == Kind::String
            && value_kind == Kind::String
            && let Some(entry) = Self::of_short_texts(wire)
        {
            return Ok(entry);
        }
        Self::read_any(wire, key_kind, value_kind)
    }

    /// The entry of two strings of less than 128 bytes, as every encoder writes it.
    #[inline]
    fn of_short_texts(wire: &'w [u8]) -> Option<Self> {
        const KEY: u8 = (1 << 3 | LENGTH) as u8;
        const VALUE: u8 = (2 << 3 | LENGTH) as u8;
        let [KEY, length @ ..0x80, rest @ ..] = wire else {
            return None;
        };
        let (key, value) = rest.split_at_checked(usize::from(*length))?;
        match value {
            [VALUE, length @ ..0x80, rest @ ..] if rest.len() == usize::from(*length) => {
                Some(Self {
                    key: Key::Text(key),
                    value: Some(&value[1..]),
                })
            }
            _ => None,
        }
    }

    fn read_any(mut wire: &'w [u8], key_kind: Kind, value_kind: Kind) -> Result<Self, Stop> {
        let mut key = None;
        let mut value = None;
        while !wire.is_empty() {
            let tag = wire::tag(&mut wire)?;
            match tag >> 3 {
                1 => {
                    expect(tag, 1 << 3 | key_kind.wire_type())?;
                    if key.replace(Key::read(key_kind, &mut wire)?).is_some() {
                        return Err(Stop::Disordered);
                    }
                }
                2 => {
                    expect(tag, 2 << 3 | value_kind.wire_type())?;
                    if value.replace(wire).is_some() {
                        return Err(Stop::Disordered);
                    }
                    wire::skip(tag, &mut wire)?;
                }
                _ => wire::skip(tag, &mut wire)?,
            }
        }
        Ok(Self {
            key: key.unwrap_or(Key::default(key_kind)),
            value,
        })
    }
}

impl<'w> Key<'w> {
    fn read(kind: Kind, wire: &mut &'w [u8]) -> Result<Self, Stop> {
        Ok(match kind {
            Kind::Bool => Self::Bool(wire::varint(wire)? != 0),
            Kind::Int32 => Self::Signed((wire::varint(wire)? as i32).into()),
            Kind::Int64 => Self::Signed(wire::varint(wire)? as i64),
            Kind::Sint32 => {
                let value = wire::varint(wire)? as u32;
                Self::Signed(((value >> 1) as i32 ^ -((value & 1) as i32)).into())
            }
            Kind::Sint64 => {
                let value = wire::varint(wire)?;
                Self::Signed((value >> 1) as i64 ^ -((value & 1) as i64))
            }
            Kind::Sfixed32 => Self::Signed(i32::from_le_bytes(wire::fixed(wire)?).into()),
            Kind::Sfixed64 => Self::Signed(i64::from_le_bytes(wire::fixed(wire)?)),
            Kind::Uint32 => Self::Unsigned((wire::varint(wire)? as u32).into()),
            Kind::Uint64 => Self::Unsigned(wire::varint(wire)?),
            Kind::Fixed32 => Self::Unsigned(u32::from_le_bytes(wire::fixed(wire)?).into()),
            Kind::Fixed64 => Self::Unsigned(u64::from_le_bytes(wire::fixed(wire)?)),
            _ => Self::Text(wire::bytes(wire)?),
        })
    }

    fn default(kind: Kind) -> Self {
        match kind {
            Kind::Bool => Self::Bool(false),
            Kind::String => Self::Text(&[]),
            Kind::Uint32 | Kind::Uint64 | Kind::Fixed32 | Kind::Fixed64 => Self::Unsigned(0),
            _ => Self::Signed(0),
        }
    }
}
