//! JSON to wire bytes for the types that have a form of their own.

use super::{
    error::JsonError,
    reader::Keys,
    schema::{Form, Kind, Message},
    times,
    to_wire::{Builder, Put},
    wire::{self, FIXED64, LENGTH, VARINT},
};

impl<'c> Builder<'c, '_> {
    /// Puts a message of any form but the plain one.
    pub(super) fn well_known(
        &mut self,
        message: &'c Message,
        levels: u32,
        out: &mut Vec<u8>,
    ) -> Result<(), JsonError> {
        match message.form {
            Form::Timestamp => {
                let right = "a time as in 2026-01-31T23:59:59.5Z (RFC 3339, years 1 to 9999)";
                let text = self.string(right)?;
                let time = times::parse_timestamp(&text);
                let time = time.ok_or_else(|| self.wrong_text(&text, right))?;
                if times::is_too_fine(&text) {
                    return Err(self.reader.data("finer than nanoseconds"));
                }
                put_seconds_and_nanos(time, out);
                Ok(())
            }
            Form::Duration => {
                let right = "a number of seconds with an s, as in \"3.5s\", of up to 10000 years";
                let text = self.string(right)?;
                let time = times::parse_duration(&text);
                let time = time.ok_or_else(|| self.wrong_text(&text, right))?;
                if times::is_too_fine(&text) {
                    return Err(self.reader.data("finer than nanoseconds"));
                }
                put_seconds_and_nanos(time, out);
                Ok(())
            }
            Form::FieldMask => self.field_mask(out),
            Form::Any => self.any(levels, out),
            Form::Value => self.json_value(message, levels, out),
            Form::Struct | Form::ListValue => self.values(&message.fields[0], levels, out),
            Form::Wrapper => {
                let field = &message.fields[0];
                let start = out.len();
                wire::put_varint(field.tag.into(), out);
                if self.value(field.kind, levels, out)? != Put::Value {
                    out.truncate(start);
                }
                Ok(())
            }
            Form::Plain | Form::Empty => self.message(message, levels, out),
        }
    }

    fn wrong_text(&self, text: &str, right: &str) -> JsonError {
        self.reader
            .data(format!("invalid value: string {text:?}, expected {right}"))
    }

    fn field_mask(&mut self, out: &mut Vec<u8>) -> Result<(), JsonError> {
        let right = "names of fields joined by commas, as in \"name,child.longName\"";
        let text = self.string(right)?;
        for path in text.split(',').filter(|path| !path.is_empty()) {
            out.push((1 << 3 | LENGTH) as u8);
            let start = wire::open_length(out);
            if !times::put_proto_path(path, out) {
                return Err(self.wrong_text(&text, right));
            }
            wire::close_length(start, out);
        }
        Ok(())
    }

    /// Any JSON value as a `google.protobuf.Value`.
    fn json_value(
        &mut self,
        message: &'c Message,
        levels: u32,
        out: &mut Vec<u8>,
    ) -> Result<(), JsonError> {
        let (number, wire_type) = match self.reader.peek()? {
            b'n' => (1, VARINT),
            b'"' => (3, LENGTH),
            b't' | b'f' => (4, VARINT),
            b'{' => (5, LENGTH),
            b'[' => (6, LENGTH),
            _ => (2, FIXED64),
        };
        out.push((number << 3 | wire_type) as u8);
        match number {
            1 => {
                self.reader.literal("null")?;
                out.push(0);
            }
            2 => {
                // Behind a peek, so that a string is not taken for a number.
                let value: f64 = match self.reader.peek()? {
                    b'-' | b'0'..=b'9' => self.float("64-bit", f64::is_finite)?,
                    _ => return Err(self.reader.unexpected("a value")),
                };
                out.extend_from_slice(&value.to_le_bytes());
            }
            3 => {
                self.scalar(Kind::String, out)?;
            }
            4 => out.push(self.boolean()?.into()),
            number => {
                let field = message.field_by_number(number, number as usize - 1);
                let field = field.and_then(|index| message.fields.get(index));
                let Some(kind) = field.map(|field| field.kind) else {
                    return Err(self.reader.data("google.protobuf.Value lacks a field"));
                };
                self.value(kind, levels, out)?;
            }
        }
        Ok(())
    }

    /// An Any, whose `@type` may stand anywhere. An empty object is an Any that holds nothing.
    fn any(&mut self, levels: u32, out: &mut Vec<u8>) -> Result<(), JsonError> {
        let mut first = self.reader.open(b'{', "an object with \"@type\"")?;
        let (type_url, is_empty) = self.reader.ahead(|reader| {
            let (mut ahead, mut is_empty) = (first, true);
            while let Some(name) = reader.member(&mut ahead)? {
                is_empty = false;
                if name != "@type" {
                    reader.skip().map_err(|error| error.within(&name))?;
                    continue;
                }
                if reader.peek()? != b'"' {
                    return Err(reader.unexpected("a type URL").within(&name));
                }
                let type_url = reader.string()?;
                // The error of a type that is not known must have its place here.
                let index = self.schema.find_by_url(&type_url);
                let index = index.map_err(|problem| reader.data(problem).within(&name))?;
                return Ok((Some((type_url, index)), is_empty));
            }
            Ok((None, is_empty))
        })?;
        let Some((type_url, index)) = type_url else {
            if is_empty {
                self.reader.member(&mut first)?;
                return Ok(());
            }
            return Err(self.reader.data("the object needs its type as \"@type\""));
        };
        let levels = self.deeper(levels)?;
        out.push((1 << 3 | LENGTH) as u8);
        wire::put_bytes(type_url.as_bytes(), out);
        let start = out.len();
        out.push((2 << 3 | LENGTH) as u8);
        let value = wire::open_length(out);
        let message = &self.schema.messages[index];
        match message.form {
            Form::Plain => self.members(message, &mut first, true, levels, out)?,
            _ => self.any_value(message, &mut first, levels, out)?,
        }
        match out.len() == value {
            true => out.truncate(start),
            false => wire::close_length(value, out),
        }
        Ok(())
    }

    /// The `value` of an Any that holds a well-known type.
    fn any_value(
        &mut self,
        message: &'c Message,
        first: &mut super::reader::IsFirst,
        levels: u32,
        out: &mut Vec<u8>,
    ) -> Result<(), JsonError> {
        let mut names = Keys::default();
        let mut has_value = false;
        while let Some(name) = self.reader.member(first)? {
            match &*name {
                "@type" | "value" if !names.insert(name.clone()) => {
                    return Err(self.reader.duplicate(&name));
                }
                "@type" => self.reader.skip()?,
                "value" => {
                    has_value = true;
                    self.message(message, levels, out)
                        .map_err(|error| error.within(&name))?;
                }
                _ => self.unknown(name, &mut names)?,
            }
        }
        match has_value {
            true => Ok(()),
            false => Err(self
                .reader
                .data("a well-known type in an Any needs its \"value\"")),
        }
    }
}

fn put_seconds_and_nanos((seconds, nanos): (i64, i32), out: &mut Vec<u8>) {
    if seconds != 0 {
        out.push((1 << 3 | VARINT) as u8);
        wire::put_varint(seconds as u64, out);
    }
    if nanos != 0 {
        out.push((2 << 3 | VARINT) as u8);
        wire::put_varint(i64::from(nanos) as u64, out);
    }
}
