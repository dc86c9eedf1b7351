//! JSON to wire bytes in one pass: each member becomes its field where it stands. Their order is that
//! of the text, which protobuf allows; each field is there once and in one piece.

use std::borrow::Cow;

use super::{
    bits::BitSet,
    error::JsonError,
    map_key::MapKey,
    reader::{IsFirst, Keys, Reader},
    schema::{Field, Form, Kind, Message, Schema, Shape},
    settings::Settings,
    wire::{self, END_GROUP, LENGTH, MAX_DEPTH},
};

/// Makes messages of a schema from one text.
pub(super) struct Builder<'c, 'j> {
    pub schema: &'c Schema,
    pub settings: &'c Settings,
    pub reader: Reader<'j>,
}

/// The outcome of putting a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Put {
    /// The default of its kind.
    Default,
    /// Another value.
    Value,
    /// The unknown name of an enum value, which is ignored.
    Unknown,
}

impl<'c> Builder<'c, '_> {
    /// Puts the fields of a message. `levels` is how many levels there may be below it.
    pub(super) fn message(
        &mut self,
        message: &'c Message,
        levels: u32,
        out: &mut Vec<u8>,
    ) -> Result<(), JsonError> {
        if !matches!(message.form, Form::Plain | Form::Empty) {
            return self.well_known(message, levels, out);
        }
        let mut first = self.reader.open(b'{', "an object")?;
        self.members(message, &mut first, false, levels, out)
    }

    /// Puts the members of an object up to its end; `@type` belongs to them inside Any.
    pub(super) fn members(
        &mut self,
        message: &'c Message,
        first: &mut IsFirst,
        in_any: bool,
        levels: u32,
        out: &mut Vec<u8>,
    ) -> Result<(), JsonError> {
        let fields = message.fields.len();
        let mut seen = BitSet::new(fields + message.oneofs + 1);
        let mut unknown = Keys::default();
        let mut next = 0;
        while let Some(name) = self.reader.member(first)? {
            if in_any && name == "@type" {
                if !seen.insert(fields + message.oneofs) {
                    return Err(self.reader.duplicate(&name));
                }
                self.reader.skip()?;
                continue;
            }
            let Some(index) = message.field_by_name(&name, next) else {
                self.unknown(name, &mut unknown)?;
                continue;
            };
            next = index + 1;
            if !seen.insert(index) {
                return Err(self.reader.duplicate(&name));
            }
            let field = &message.fields[index];
            let is_first_of_oneof = |oneof: usize| seen.insert(fields + oneof);
            self.field(field, is_first_of_oneof, levels, out)
                .map_err(|error| error.within(&name))?;
        }
        Ok(())
    }

    /// A member that is no field.
    pub(super) fn unknown<'j>(
        &mut self,
        name: Cow<'j, str>,
        seen: &mut Keys<Cow<'j, str>>,
    ) -> Result<(), JsonError> {
        if !self.settings.ignore_unknown {
            let problem = format!("unrecognized field name '{name}'");
            return Err(self.reader.name(problem).within(&name));
        }
        self.reader.skip().map_err(|error| error.within(&name))?;
        match seen.insert(name.clone()) {
            true => Ok(()),
            false => Err(self.reader.duplicate(&name)),
        }
    }

    /// Puts a field, unless its value is null. `is_first_of_oneof` notes that a member of a oneof is
    /// set.
    pub(super) fn field(
        &mut self,
        field: &Field,
        is_first_of_oneof: impl FnOnce(usize) -> bool,
        levels: u32,
        out: &mut Vec<u8>,
    ) -> Result<(), JsonError> {
        if self.reader.peek()? == b'n'
            && !(field.shape == Shape::Single && self.is_null(field.kind))
        {
            return self.reader.literal("null");
        }
        if let Some(oneof) = field.oneof
            && !is_first_of_oneof(oneof)
        {
            let problem = "multiple fields provided for oneof: only one of its members can be set";
            return Err(self.reader.name(problem));
        }
        match field.shape {
            Shape::Single => {
                let start = out.len();
                wire::put_varint(field.tag.into(), out);
                let put = self.value(field.kind, levels, out)?;
                if put == Put::Unknown || put == Put::Default && !field.presence {
                    out.truncate(start);
                }
                Ok(())
            }
            _ => self.values(field, levels, out),
        }
    }

    /// Whether null is a value of this kind.
    fn is_null(&self, kind: Kind) -> bool {
        match kind {
            Kind::Message(index) => self.schema.messages[index].form == Form::Value,
            Kind::Enum(index) => self.schema.enums[index].is_null,
            _ => false,
        }
    }

    /// Puts a list or a map.
    pub(super) fn values(
        &mut self,
        field: &Field,
        levels: u32,
        out: &mut Vec<u8>,
    ) -> Result<(), JsonError> {
        match field.shape {
            Shape::Map { key } => self.map(field, key, levels, out),
            Shape::List { packed: true } => {
                let start = out.len();
                wire::put_varint((field.number << 3 | LENGTH).into(), out);
                let values = wire::open_length(out);
                self.list(field, None, levels, out)?;
                match out.len() == values {
                    true => out.truncate(start),
                    false => wire::close_length(values, out),
                }
                Ok(())
            }
            _ => self.list(field, Some(field.tag), levels, out),
        }
    }

    /// Puts the values of a list, each behind the tag, if any.
    fn list(
        &mut self,
        field: &Field,
        tag: Option<u32>,
        levels: u32,
        out: &mut Vec<u8>,
    ) -> Result<(), JsonError> {
        let mut first = self.reader.open(b'[', "a list")?;
        let mut index = 0;
        while self.reader.element(&mut first)? {
            let start = out.len();
            if let Some(tag) = tag {
                wire::put_varint(tag.into(), out);
            }
            let put = self.value(field.kind, levels, out);
            if put.map_err(|error| error.at(index))? == Put::Unknown {
                out.truncate(start);
            }
            index += 1;
        }
        Ok(())
    }

    fn map(
        &mut self,
        field: &Field,
        key_kind: Kind,
        levels: u32,
        out: &mut Vec<u8>,
    ) -> Result<(), JsonError> {
        let mut first = self.reader.open(b'{', "an object")?;
        let mut keys = Keys::default();
        while let Some(name) = self.reader.member(&mut first)? {
            let start = out.len();
            wire::put_varint(field.tag.into(), out);
            let entry = wire::open_length(out);
            let key = MapKey::read(key_kind, &name)
                .map_err(|right| self.reader.name(format!("invalid key: expected {right}")))
                .map_err(|error| error.within(&name))?;
            key.put(key_kind, out);
            if !keys.insert(key) {
                return Err(self.reader.duplicate(&name));
            }
            let value = out.len();
            wire::put_varint((2 << 3 | field.kind.wire_type()).into(), out);
            let put = self.value(field.kind, levels, out);
            match put.map_err(|error| error.within(&name))? {
                Put::Value => wire::close_length(entry, out),
                Put::Default => {
                    out.truncate(value);
                    wire::close_length(entry, out);
                }
                Put::Unknown => out.truncate(start),
            }
        }
        Ok(())
    }

    /// Puts one value. A message is never a default one.
    pub(super) fn value(
        &mut self,
        kind: Kind,
        levels: u32,
        out: &mut Vec<u8>,
    ) -> Result<Put, JsonError> {
        match kind {
            Kind::Message(index) => {
                let body = wire::open_length(out);
                self.inner(index, levels, out)?;
                wire::close_length(body, out);
                Ok(Put::Value)
            }
            Kind::Group { message, number } => {
                self.inner(message, levels, out)?;
                wire::put_varint((number << 3 | END_GROUP).into(), out);
                Ok(Put::Value)
            }
            Kind::Enum(index) => self.enum_value(&self.schema.enums[index], out),
            kind => self.scalar(kind, out),
        }
    }

    fn inner(&mut self, index: usize, levels: u32, out: &mut Vec<u8>) -> Result<(), JsonError> {
        let levels = self.deeper(levels)?;
        self.message(&self.schema.messages[index], levels, out)
    }

    pub(super) fn deeper(&mut self, levels: u32) -> Result<u32, JsonError> {
        levels.checked_sub(1).ok_or_else(|| {
            self.reader
                .data(format!("nested more than {MAX_DEPTH} levels deep"))
        })
    }
}
