//! Turns protobuf wire bytes into JSON text and back in one pass, without a message in between, by
//! the [protobuf JSON mapping](https://protobuf.dev/programming-guides/json/).
//!
//! Descriptors become tables once (`schema`). Wire to JSON (`to_json`) expects fields in the order of
//! their numbers, each in one piece, as every encoder writes them; what comes otherwise goes through
//! prost-reflect first. JSON to wire (`to_wire`) takes any order of members.

mod base64_text;
mod bits;
mod error;
mod integers;
mod json_text;
mod map_key;
mod maps_to_json;
mod numbers;
mod reader;
mod scalars;
mod schema;
mod settings;
mod text;
mod times;
mod to_json;
mod to_wire;
mod well_known_to_json;
mod well_known_to_wire;
mod wire;

#[cfg(test)]
mod tests;

use prost_reflect::{DescriptorPool, MessageDescriptor};

pub(crate) use base64_text::from_base64;
use error::Stop;
pub use error::{JsonError, WireError};
use json_text::JsonText;
use reader::Reader;
pub(crate) use schema::is_wrapper;
use schema::{Field, Message, Schema};
pub use settings::{Settings, UndecodableAny};
pub(crate) use times::is_too_fine;
use to_json::Writer;
use to_wire::Builder;
use wire::MAX_DEPTH;

/// The codec of all message types of a pool.
///
/// Extensions of proto2 are not mapped: they are skipped in wire bytes and unknown in JSON.
pub struct Codec {
    schema: Schema,
    settings: Settings,
}

/// A message type of one codec.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessageType(usize);

impl Codec {
    /// Compiles all message types of a pool, which also resolves what an Any holds.
    pub fn new(pool: &DescriptorPool, settings: Settings) -> Self {
        Self {
            schema: Schema::new(pool, &settings),
            settings,
        }
    }

    /// A message type, if the pool has it.
    pub fn find(&self, message: &MessageDescriptor) -> Option<MessageType> {
        self.schema.find(message.full_name()).map(MessageType)
    }

    /// Appends a message as JSON. After an error `out` is as it was.
    ///
    /// # Errors
    ///
    /// A [`WireError`] for bytes that are no such message, and for an Any that cannot be written.
    pub fn to_json(
        &self,
        message: MessageType,
        wire: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), WireError> {
        let message = self.message(message);
        self.write(out, |writer, out| writer.whole(message, wire, out))
    }

    /// Appends a message as wire bytes. After an error `out` is as it was.
    ///
    /// # Errors
    ///
    /// A [`JsonError`] for a text that is no JSON, or no such message.
    pub fn to_wire(
        &self,
        message: MessageType,
        json: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), JsonError> {
        let message = self.message(message);
        self.build(json, out, |builder, out| {
            builder.message(message, MAX_DEPTH, out)
        })
    }

    /// Appends one field of a message, by its number, as JSON: `null` where it is not set and has no
    /// default to write.
    ///
    /// # Errors
    ///
    /// A [`WireError`] as in [`Codec::to_json`], and for a number that no field has.
    pub fn field_to_json(
        &self,
        message: MessageType,
        number: u32,
        wire: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), WireError> {
        let field = self.field(message, number);
        let field = field.ok_or_else(|| WireError::new(format!("there is no field {number}")))?;
        let message = self.message(message);
        self.write(out, |writer, out| {
            writer
                .only(message, field, wire, out)
                .map_err(|stop| stop.within(&field.name))
        })
    }

    /// Appends one field of a message, by its number, from the JSON of its value. After an error `out`
    /// is as it was.
    ///
    /// # Errors
    ///
    /// A [`JsonError`] as in [`Codec::to_wire`], and for a number that no field has.
    pub fn field_to_wire(
        &self,
        message: MessageType,
        number: u32,
        json: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), JsonError> {
        let field = self.field(message, number);
        let field =
            field.ok_or_else(|| JsonError::data(0, format!("there is no field {number}")))?;
        self.build(json, out, |builder, out| {
            builder
                .field(field, |_| true, MAX_DEPTH, out)
                .map_err(|error| error.within(&field.name))
        })
    }

    fn message(&self, message: MessageType) -> &Message {
        &self.schema.messages[message.0]
    }

    fn field(&self, message: MessageType, number: u32) -> Option<&Field> {
        let message = self.message(message);
        message
            .field_by_number(number, 0)
            .map(|index| &message.fields[index])
    }

    fn write<'c>(
        &'c self,
        out: &mut Vec<u8>,
        write: impl Fn(&Writer<'c>, &mut JsonText) -> Result<(), Stop>,
    ) -> Result<(), WireError> {
        let start = out.len();
        let mut text = JsonText::behind(std::mem::take(out));
        let mut writer = Writer {
            schema: &self.schema,
            settings: &self.settings,
            careful: false,
        };
        let mut written = write(&writer, &mut text);
        if let Err(first) = written {
            // An error too may come of a field that is in pieces, as an Any whose type follows later.
            text.truncate(start);
            writer.careful = true;
            written = write(&writer, &mut text).map_err(|second| match first {
                Stop::Error(_) => first,
                Stop::Disordered => second,
            });
        }
        if written.is_err() {
            text.truncate(start);
        }
        *out = text.into_bytes();
        written.map_err(|stop| match stop {
            Stop::Error(error) => error,
            Stop::Disordered => WireError::new("its fields have no order"),
        })
    }

    fn build<'c, 'j>(
        &'c self,
        json: &'j [u8],
        out: &mut Vec<u8>,
        build: impl FnOnce(&mut Builder<'c, 'j>, &mut Vec<u8>) -> Result<(), JsonError>,
    ) -> Result<(), JsonError> {
        let start = out.len();
        let mut builder = Builder {
            schema: &self.schema,
            settings: &self.settings,
            reader: Reader::new(json)?,
        };
        build(&mut builder, out)
            .and_then(|()| builder.reader.end())
            .inspect_err(|_| out.truncate(start))
    }
}
