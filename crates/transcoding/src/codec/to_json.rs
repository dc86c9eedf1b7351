//! Wire bytes to JSON in one pass: fields are written as they come, in the order of their numbers,
//! and what lies between them as absent.

use std::borrow::Cow;

use prost_reflect::DynamicMessage;

use super::super::exact;
use super::{
    base64_text,
    bits::BitSet,
    error::Stop,
    json_text::JsonText,
    schema::{Field, Form, Kind, Message, Schema, Shape},
    settings::Settings,
    text,
    wire::{self, LENGTH, MAX_DEPTH},
};

/// Writes messages of a schema.
pub(super) struct Writer<'c> {
    pub schema: &'c Schema,
    pub settings: &'c Settings,
    /// Whether messages go through prost-reflect first, which brings their fields into order. It
    /// does not look into an Any: what that holds is brought into order where it is met.
    pub careful: bool,
}

impl<'c> Writer<'c> {
    /// Writes a message that is all of the bytes.
    pub(super) fn whole(
        &self,
        message: &'c Message,
        wire: &[u8],
        out: &mut JsonText,
    ) -> Result<(), Stop> {
        let wire = self.in_order(message, wire)?;
        self.message(message, &wire, MAX_DEPTH, out)
    }

    /// Writes one field of a message without its key.
    pub(super) fn only(
        &self,
        message: &'c Message,
        field: &'c Field,
        wire: &[u8],
        out: &mut JsonText,
    ) -> Result<(), Stop> {
        let start = out.len();
        let wire = self.in_order(message, wire)?;
        let mut wire = &wire[..];
        while !wire.is_empty() {
            let tag = wire::tag(&mut wire)?;
            if tag >> 3 != field.number {
                wire::skip(tag, &mut wire)?;
                continue;
            }
            if out.len() > start {
                return Err(Stop::Disordered);
            }
            match field.shape {
                Shape::Single => {
                    expect(tag, field.tag)?;
                    self.value(field.kind, &mut wire, MAX_DEPTH, out)?;
                }
                _ => {
                    self.values(field, tag, &mut wire, MAX_DEPTH, out)?;
                }
            }
        }
        if out.len() == start {
            let absent = field.absent.as_bytes();
            let default = absent.strip_prefix(field.key.as_bytes());
            out.put(default.unwrap_or(b"null"));
        }
        Ok(())
    }

    /// The fields of a message in the order of their numbers, if they need to be brought into it.
    pub(super) fn in_order<'w>(
        &self,
        message: &Message,
        wire: &'w [u8],
    ) -> Result<Cow<'w, [u8]>, Stop> {
        if !self.careful {
            return Ok(Cow::Borrowed(wire));
        }
        let message = DynamicMessage::decode(message.descriptor.clone(), wire)
            .map_err(|_| Stop::malformed("it is no message of its type"))?;
        let mut ordered = Vec::with_capacity(wire.len());
        exact::encode(&message, &mut ordered);
        Ok(Cow::Owned(ordered))
    }

    /// Writes a message in the form of its type. `levels` is how many levels there may be below it.
    pub(super) fn message(
        &self,
        message: &'c Message,
        wire: &[u8],
        levels: u32,
        out: &mut JsonText,
    ) -> Result<(), Stop> {
        if message.form != Form::Plain {
            return self.well_known(message, wire, levels, out);
        }
        let start = out.len();
        self.fields(message, wire, levels, out)?;
        // Every member begins with a comma; the first one is the brace.
        match out.get_mut(start) {
            Some(comma) => *comma = b'{',
            None => out.push(b'{'),
        }
        out.push(b'}');
        Ok(())
    }

    /// Writes the fields of a message, each behind a comma.
    pub(super) fn fields(
        &self,
        message: &'c Message,
        mut wire: &[u8],
        levels: u32,
        out: &mut JsonText,
    ) -> Result<(), Stop> {
        let mut next = 0;
        let mut oneofs = BitSet::new(message.oneofs);
        while let [first, rest @ ..] = wire {
            let (index, tag) = match message.fields.get(next) {
                // As a rule it is the next field, and its tag has one byte.
                Some(field) if *first < 0x80 && field.tag == u32::from(*first) => {
                    wire = rest;
                    (next, field.tag)
                }
                _ => {
                    let tag = wire::tag(&mut wire)?;
                    let Some(index) = message.field_by_number(tag >> 3, next) else {
                        wire::skip(tag, &mut wire)?;
                        continue;
                    };
                    let Some(absent) = message.fields.get(next..index) else {
                        return Err(Stop::Disordered);
                    };
                    for field in absent {
                        out.put_piece(&field.absent);
                    }
                    (index, tag)
                }
            };
            next = index + 1;
            let field = &message.fields[index];
            if field.is_text && tag == field.tag {
                let mut rest = wire;
                // An error, something to escape or a default takes the long way.
                if let Ok(text @ [_, ..]) = wire::bytes(&mut rest)
                    && out.put_plain_member(&field.key, text)
                {
                    wire = rest;
                    continue;
                }
            }
            if let Some(oneof) = field.oneof
                && !oneofs.insert(oneof)
            {
                return Err(Stop::Disordered);
            }
            self.field(field, tag, &mut wire, levels, out)
                .map_err(|stop| stop.within(&field.name))?;
        }
        for absent in &message.fields[next..] {
            out.put_piece(&absent.absent);
        }
        Ok(())
    }

    /// Writes a field whose first tag has been taken off, with its key.
    fn field(
        &self,
        field: &Field,
        tag: u32,
        wire: &mut &[u8],
        levels: u32,
        out: &mut JsonText,
    ) -> Result<(), Stop> {
        let start = out.len();
        out.put_piece(&field.key);
        let is_default = match field.shape {
            Shape::Single => {
                expect(tag, field.tag)?;
                self.value(field.kind, wire, levels, out)? && !field.presence
            }
            _ => self.values(field, tag, wire, levels, out)?,
        };
        if is_default && !self.settings.print_defaults {
            out.truncate(start);
        }
        Ok(())
    }

    /// Writes a list or a map, as far as it is in one piece; tells if it is empty.
    pub(super) fn values(
        &self,
        field: &Field,
        tag: u32,
        wire: &mut &[u8],
        levels: u32,
        out: &mut JsonText,
    ) -> Result<bool, Stop> {
        match field.shape {
            Shape::Map { key } => self.map(field, key, tag, wire, levels, out),
            _ => self.list(field, tag, wire, levels, out),
        }
    }

    /// Writes one value; tells if it is the default.
    pub(super) fn value(
        &self,
        kind: Kind,
        wire: &mut &[u8],
        levels: u32,
        out: &mut JsonText,
    ) -> Result<bool, Stop> {
        // Numbers are as many of the low bits of a varint as they have.
        Ok(match kind {
            Kind::Int32 => put_i32(wire::varint(wire)? as i32, out),
            Kind::Int64 => put_i64(wire::varint(wire)? as i64, out),
            Kind::Uint32 => put_u32(wire::varint(wire)? as u32, out),
            Kind::Uint64 => put_u64(wire::varint(wire)?, out),
            Kind::Sint32 => {
                let value = wire::varint(wire)? as u32;
                put_i32((value >> 1) as i32 ^ -((value & 1) as i32), out)
            }
            Kind::Sint64 => {
                let value = wire::varint(wire)?;
                put_i64((value >> 1) as i64 ^ -((value & 1) as i64), out)
            }
            Kind::Fixed32 => put_u32(u32::from_le_bytes(wire::fixed(wire)?), out),
            Kind::Fixed64 => put_u64(u64::from_le_bytes(wire::fixed(wire)?), out),
            Kind::Sfixed32 => put_i32(i32::from_le_bytes(wire::fixed(wire)?), out),
            Kind::Sfixed64 => put_i64(i64::from_le_bytes(wire::fixed(wire)?), out),
            Kind::Float => {
                let value = f32::from_le_bytes(wire::fixed(wire)?);
                text::put_float(value, out);
                value.to_bits() == 0
            }
            Kind::Double => {
                let value = f64::from_le_bytes(wire::fixed(wire)?);
                text::put_double(value, out);
                value.to_bits() == 0
            }
            Kind::Bool => {
                let value = wire::varint(wire)? != 0;
                text::put_bool(value, out);
                !value
            }
            Kind::String => {
                let value = wire::bytes(wire)?;
                put_string(value, out)?;
                value.is_empty()
            }
            Kind::Bytes => {
                let value = wire::bytes(wire)?;
                base64_text::put_encoded(value, out);
                value.is_empty()
            }
            Kind::Enum(index) => {
                let number = wire::varint(wire)? as i32;
                let as_number = self.settings.enum_numbers;
                self.schema.enums[index].put(number, as_number, out);
                number == 0
            }
            Kind::Message(index) => {
                let body = wire::bytes(wire)?;
                self.inner(index, body, levels, out)?;
                false
            }
            Kind::Group { message, number } => {
                let body = wire::group(number, wire)?;
                self.inner(message, body, levels, out)?;
                false
            }
        })
    }

    pub(super) fn inner(
        &self,
        index: usize,
        wire: &[u8],
        levels: u32,
        out: &mut JsonText,
    ) -> Result<(), Stop> {
        let levels = levels.checked_sub(1).ok_or_else(too_deep)?;
        self.message(&self.schema.messages[index], wire, levels, out)
    }

    /// Values packed or not.
    fn list(
        &self,
        field: &Field,
        mut tag: u32,
        wire: &mut &[u8],
        levels: u32,
        out: &mut JsonText,
    ) -> Result<bool, Stop> {
        out.push(b'[');
        let start = out.len();
        loop {
            if tag == field.tag {
                self.value(field.kind, wire, levels, out)?;
                out.push(b',');
            } else if field.kind.is_packable() && tag & 7 == LENGTH {
                let mut packed = wire::bytes(wire)?;
                while !packed.is_empty() {
                    self.value(field.kind, &mut packed, levels, out)?;
                    out.push(b',');
                }
            } else {
                expect(tag, field.tag)?;
            }
            match next_of(field.number, wire)? {
                Some(next) => tag = next,
                None => break,
            }
        }
        Ok(close(start, b']', out))
    }

    /// Writes a wrapped value.
    pub(super) fn wrapped(
        &self,
        field: &Field,
        mut wire: &[u8],
        levels: u32,
        out: &mut JsonText,
    ) -> Result<(), Stop> {
        let mut value = None;
        while !wire.is_empty() {
            let tag = wire::tag(&mut wire)?;
            if tag >> 3 == field.number {
                expect(tag, field.tag)?;
                if value.replace(wire).is_some() {
                    return Err(Stop::Disordered);
                }
            }
            wire::skip(tag, &mut wire)?;
        }
        match value {
            Some(mut value) => self.value(field.kind, &mut value, levels, out).map(|_| ()),
            None => {
                out.put(field.kind.default_json());
                Ok(())
            }
        }
    }
}

#[cold]
pub(super) fn too_deep() -> Stop {
    Stop::malformed(format!("nested more than {MAX_DEPTH} levels deep"))
}

#[inline]
pub(super) fn expect(tag: u32, wanted: u32) -> Result<(), Stop> {
    match tag == wanted {
        true => Ok(()),
        false => Err(Stop::malformed(format!(
            "its wire type is {}, not {}",
            tag & 7,
            wanted & 7
        ))),
    }
}

#[inline]
pub(super) fn put_string(bytes: &[u8], out: &mut JsonText) -> Result<(), Stop> {
    match text::put_string(bytes, out) {
        true => Ok(()),
        false => Err(Stop::malformed("not valid UTF-8")),
    }
}

/// Takes the next tag off, if it is one of this field's.
#[inline]
pub(super) fn next_of(number: u32, wire: &mut &[u8]) -> Result<Option<u32>, Stop> {
    if wire.is_empty() {
        return Ok(None);
    }
    let mut ahead = *wire;
    let tag = wire::tag(&mut ahead)?;
    if tag >> 3 != number {
        return Ok(None);
    }
    *wire = ahead;
    Ok(Some(tag))
}

/// Ends a list or an object whose parts each end with a comma; tells if there are none.
pub(super) fn close(start: usize, bracket: u8, out: &mut JsonText) -> bool {
    let is_empty = out.len() == start;
    if !is_empty {
        out.truncate(out.len() - 1);
    }
    out.push(bracket);
    is_empty
}

fn put_i32(value: i32, out: &mut JsonText) -> bool {
    text::put_integer(value, out);
    value == 0
}

fn put_u32(value: u32, out: &mut JsonText) -> bool {
    text::put_integer(value, out);
    value == 0
}

fn put_i64(value: i64, out: &mut JsonText) -> bool {
    text::put_quoted_integer(value, out);
    value == 0
}

fn put_u64(value: u64, out: &mut JsonText) -> bool {
    text::put_quoted_integer(value, out);
    value == 0
}
