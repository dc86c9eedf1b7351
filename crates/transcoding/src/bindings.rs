//! Path variables as wire bytes behind those of the body.

use prost::encoding::{self, WireType};
use prost_reflect::{FieldDescriptor, Kind, Value};

use super::{
    exact, rejection::Rejection, router::Capture, rules::Binding, template::Variable, values,
};

/// Appends the fields of the path's variables to a message that begins at `start`. Does not finish,
/// and tells so, where one of them or another member of its oneof is there already.
pub(crate) fn append_path<'r, 'p>(
    binding: &Binding,
    captures: impl Iterator<Item = Capture<'r, 'p>>,
    start: usize,
    out: &mut Vec<u8>,
) -> Result<bool, Rejection> {
    let fields = binding.variables.iter().zip(&binding.texts);
    for ((variable, text), (fields, text_key)) in captures.zip(fields) {
        let text = text.map_err(Rejection::BadPath)?;
        let [first, ..] = &fields[..] else {
            continue;
        };
        // As a rule nothing is there yet, which is known without a look at descriptors.
        if out.len() > start && !is_free(first, &out[start..]) {
            return Ok(false);
        }
        if let Some((key, is_put_empty)) = *text_key {
            if is_put_empty || !text.is_empty() {
                append_text(key, &text, out);
            }
            continue;
        }
        append_parsed(variable, fields, &text, out)?;
    }
    Ok(true)
}

#[cold]
#[inline(never)]
fn append_parsed(
    variable: &Variable,
    fields: &[FieldDescriptor],
    text: &str,
    out: &mut Vec<u8>,
) -> Result<(), Rejection> {
    let Some(last) = fields.last() else {
        return Ok(());
    };
    let value = values::parse(&last.kind(), text).map_err(|right| {
        let field = variable.field_path.join(".");
        Rejection::field(&field, format!("must be {right} in the path"))
    })?;
    append(fields, &value, out);
    Ok(())
}

/// Whether neither a field nor another member of its oneof is in a message.
#[inline(never)]
fn is_free(field: &FieldDescriptor, mut message: &[u8]) -> bool {
    let context = encoding::DecodeContext::default();
    let oneof = field.containing_oneof();
    while !message.is_empty() {
        let Ok((number, wire_type)) = encoding::decode_key(&mut message) else {
            return false;
        };
        let is_member = |oneof: &prost_reflect::OneofDescriptor| {
            oneof.fields().any(|member| member.number() == number)
        };
        if number == field.number() || oneof.as_ref().is_some_and(is_member) {
            return false;
        }
        if encoding::skip_field(wire_type, number, &mut message, context.clone()).is_err() {
            return false;
        }
    }
    true
}

/// Appends a value to the messages that lead to its field.
fn append(fields: &[FieldDescriptor], value: &Value, out: &mut Vec<u8>) {
    let Some((field, deeper)) = fields.split_first() else {
        return;
    };
    if deeper.is_empty() {
        append_value(field, value, out);
        return;
    }
    let mut inner = Vec::new();
    append(deeper, value, &mut inner);
    encoding::encode_key(field.number(), WireType::LengthDelimited, out);
    encoding::encode_varint(inner.len() as u64, out);
    out.extend_from_slice(&inner);
}

fn append_text(key: u32, text: &str, out: &mut Vec<u8>) {
    encoding::encode_varint(key.into(), out);
    encoding::encode_varint(text.len() as u64, out);
    out.extend_from_slice(text.as_bytes());
}

fn append_value(field: &FieldDescriptor, value: &Value, out: &mut Vec<u8>) {
    let is_default = value.is_default_for_field(field) && !exact::is_negative_zero(value);
    if is_default && !field.supports_presence() {
        return;
    }
    let number = field.number();
    match (value, field.kind()) {
        (Value::String(value), _) => encoding::string::encode(number, value, out),
        (Value::Bytes(value), _) => encoding::bytes::encode(number, value, out),
        (Value::Bool(value), _) => encoding::bool::encode(number, value, out),
        (Value::F32(value), _) => encoding::float::encode(number, value, out),
        (Value::F64(value), _) => encoding::double::encode(number, value, out),
        (Value::EnumNumber(value), _) => encoding::int32::encode(number, value, out),
        (Value::I32(value), Kind::Sint32) => encoding::sint32::encode(number, value, out),
        (Value::I32(value), Kind::Sfixed32) => encoding::sfixed32::encode(number, value, out),
        (Value::I32(value), _) => encoding::int32::encode(number, value, out),
        (Value::I64(value), Kind::Sint64) => encoding::sint64::encode(number, value, out),
        (Value::I64(value), Kind::Sfixed64) => encoding::sfixed64::encode(number, value, out),
        (Value::I64(value), _) => encoding::int64::encode(number, value, out),
        (Value::U32(value), Kind::Fixed32) => encoding::fixed32::encode(number, value, out),
        (Value::U32(value), _) => encoding::uint32::encode(number, value, out),
        (Value::U64(value), Kind::Fixed64) => encoding::fixed64::encode(number, value, out),
        (Value::U64(value), _) => encoding::uint64::encode(number, value, out),
        (Value::Message(value), _) => {
            let mut inner = Vec::new();
            exact::encode(value, &mut inner);
            encoding::encode_key(number, WireType::LengthDelimited, out);
            encoding::encode_varint(inner.len() as u64, out);
            out.extend_from_slice(&inner);
        }
        // No variable of a path makes one.
        (Value::List(_) | Value::Map(_), _) => {}
    }
}
