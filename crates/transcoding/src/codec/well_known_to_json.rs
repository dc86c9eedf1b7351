//! Wire bytes to JSON for the types that have a form of their own.

use super::{
    base64_text,
    error::Stop,
    json_text::JsonText,
    schema::{Form, Message},
    settings::UndecodableAny,
    text, times,
    to_json::{Writer, expect, put_string},
    wire::{self, FIXED64, LENGTH, VARINT},
};

impl<'c> Writer<'c> {
    /// Writes a message of any form but the plain one.
    pub(super) fn well_known(
        &self,
        message: &'c Message,
        wire: &[u8],
        levels: u32,
        out: &mut JsonText,
    ) -> Result<(), Stop> {
        match message.form {
            Form::Timestamp => {
                let (seconds, nanos) = seconds_and_nanos(wire)?;
                times::put_timestamp(seconds, nanos, out).map_err(Stop::error)
            }
            Form::Duration => {
                let (seconds, nanos) = seconds_and_nanos(wire)?;
                times::put_duration(seconds, nanos, out).map_err(Stop::error)
            }
            Form::FieldMask => field_mask(wire, out),
            Form::Any => self.any(wire, levels, out),
            Form::Value => self.json_value(message, wire, levels, out),
            Form::Struct | Form::ListValue => self.container(message, wire, levels, out),
            Form::Wrapper => self.wrapped(&message.fields[0], wire, levels, out),
            Form::Plain | Form::Empty => {
                each_field(wire, |_, _| Ok(()))?;
                out.put(b"{}");
                Ok(())
            }
        }
    }

    /// An Any: the members of its message behind `@type`, or for a well-known one its JSON as
    /// `value`. An Any that holds nothing is an empty object.
    fn any(&self, wire: &[u8], levels: u32, out: &mut JsonText) -> Result<(), Stop> {
        let (mut type_url, mut value) = (None, None);
        each_field(wire, |tag, mut rest| {
            let part = match tag >> 3 {
                1 => &mut type_url,
                2 => &mut value,
                _ => return Ok(()),
            };
            expect(tag, tag >> 3 << 3 | LENGTH)?;
            match part.replace(wire::bytes(&mut rest)?) {
                Some(_) => Err(Stop::Disordered),
                None => Ok(()),
            }
        })?;
        let (type_url, value) = (type_url.unwrap_or_default(), value.unwrap_or_default());
        if type_url.is_empty() && value.is_empty() {
            out.put(b"{}");
            return Ok(());
        }
        out.put(b"{\"@type\":");
        put_string(type_url, out)?;
        let start = out.len();
        let written = self.any_members(type_url, value, levels, out);
        match (written, self.settings.undecodable_any) {
            (Err(Stop::Error(_)), UndecodableAny::Base64) => {
                out.truncate(start);
                out.put(b",\"value\":");
                base64_text::put_encoded(value, out);
            }
            (written, _) => written?,
        }
        out.push(b'}');
        Ok(())
    }

    fn any_members(
        &self,
        type_url: &[u8],
        value: &[u8],
        levels: u32,
        out: &mut JsonText,
    ) -> Result<(), Stop> {
        let type_url = std::str::from_utf8(type_url).map_err(|_| Stop::error("not valid UTF-8"))?;
        let index = self.schema.find_by_url(type_url).map_err(Stop::error)?;
        let message = &self.schema.messages[index];
        let levels = deeper(levels)?;
        let value = self.in_order(message, value)?;
        if message.form == Form::Plain {
            self.fields(message, &value, levels, out)
        } else {
            out.put(b",\"value\":");
            self.message(message, &value, levels, out)
        }
    }

    /// A `google.protobuf.Value`; one that holds nothing is null.
    fn json_value(
        &self,
        message: &'c Message,
        wire: &[u8],
        levels: u32,
        out: &mut JsonText,
    ) -> Result<(), Stop> {
        let mut kind = None;
        each_field(wire, |tag, rest| {
            if matches!(tag >> 3, 1..=6) && kind.replace((tag, rest)).is_some() {
                return Err(Stop::Disordered);
            }
            Ok(())
        })?;
        let Some((tag, mut rest)) = kind else {
            out.put(b"null");
            return Ok(());
        };
        let number = tag >> 3;
        let wire_type = match number {
            1 | 4 => VARINT,
            2 => FIXED64,
            _ => LENGTH,
        };
        expect(tag, number << 3 | wire_type)?;
        match number {
            1 => out.put(b"null"),
            2 => {
                let value = f64::from_le_bytes(wire::fixed(&mut rest)?);
                if !value.is_finite() {
                    return Err(Stop::error("JSON has no number for NaN and infinity"));
                }
                text::put_double(value, out);
            }
            3 => put_string(wire::bytes(&mut rest)?, out)?,
            4 => text::put_bool(wire::varint(&mut rest)? != 0, out),
            // A Struct or a ListValue, by the shape of the type.
            _ => {
                let field = message.field_by_number(number, number as usize - 1);
                let field = field.and_then(|index| message.fields.get(index));
                let Some(kind) = field.map(|field| field.kind) else {
                    return Err(Stop::error("google.protobuf.Value lacks a field"));
                };
                self.value(kind, &mut rest, levels, out)?;
            }
        }
        Ok(())
    }

    /// A Struct or a ListValue, which has one field.
    fn container(
        &self,
        message: &'c Message,
        mut wire: &[u8],
        levels: u32,
        out: &mut JsonText,
    ) -> Result<(), Stop> {
        let field = &message.fields[0];
        let mut is_written = false;
        while !wire.is_empty() {
            let tag = wire::tag(&mut wire)?;
            if tag >> 3 != field.number {
                wire::skip(tag, &mut wire)?;
                continue;
            }
            if is_written {
                return Err(Stop::Disordered);
            }
            is_written = true;
            self.values(field, tag, &mut wire, levels, out)?;
        }
        if !is_written {
            let is_list = message.form == Form::ListValue;
            out.put(if is_list { b"[]" } else { b"{}" });
        }
        Ok(())
    }
}

fn deeper(levels: u32) -> Result<u32, Stop> {
    levels.checked_sub(1).ok_or_else(super::to_json::too_deep)
}

/// Goes through the fields of a message: gives each tag with what begins with its value.
fn each_field<'w>(
    mut wire: &'w [u8],
    mut field: impl FnMut(u32, &'w [u8]) -> Result<(), Stop>,
) -> Result<(), Stop> {
    while !wire.is_empty() {
        let tag = wire::tag(&mut wire)?;
        field(tag, wire)?;
        wire::skip(tag, &mut wire)?;
    }
    Ok(())
}

fn seconds_and_nanos(mut wire: &[u8]) -> Result<(i64, i32), Stop> {
    const SECONDS: u32 = 1 << 3 | VARINT;
    const NANOS: u32 = 2 << 3 | VARINT;
    let (mut seconds, mut nanos) = (0, 0);
    while !wire.is_empty() {
        let tag = wire::tag(&mut wire)?;
        match tag >> 3 {
            1 => {
                expect(tag, SECONDS)?;
                seconds = wire::varint(&mut wire)? as i64;
            }
            2 => {
                expect(tag, NANOS)?;
                nanos = wire::varint(&mut wire)? as i32;
            }
            _ => wire::skip(tag, &mut wire)?,
        }
    }
    Ok((seconds, nanos))
}

fn field_mask(wire: &[u8], out: &mut JsonText) -> Result<(), Stop> {
    let mut paths = Vec::new();
    each_field(wire, |tag, mut rest| {
        if tag >> 3 != 1 {
            return Ok(());
        }
        expect(tag, 1 << 3 | LENGTH)?;
        let path = wire::bytes(&mut rest)?;
        if !paths.is_empty() {
            paths.push(b',');
        }
        if !times::put_mask_path(path, &mut paths) {
            let path = String::from_utf8_lossy(path);
            return Err(Stop::error(format!(
                "the path {path:?} of a mask has no form in JSON that leads back to it"
            )));
        }
        Ok(())
    })?;
    put_string(&paths, out)
}
