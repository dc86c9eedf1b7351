//! Messages of prost-reflect as wire bytes in which zeros keep their sign.
//!
//! prost-reflect compares numbers to tell whether a field without presence has its default, and so leaves
//! `-0.0` out. By the protobuf specification it is not the default: its bits are others.

use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint};
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MapKey, ReflectMessage, Value};

/// Appends the wire bytes of a message, its fields in the order of their numbers.
pub(crate) fn encode(message: &DynamicMessage, out: &mut Vec<u8>) {
    if !holds_negative_zero(message) {
        message.encode_raw(out);
        return;
    }
    let descriptor = message.descriptor();
    let mut fields: Vec<_> = descriptor.fields().collect();
    fields.sort_unstable_by_key(FieldDescriptor::number);
    for field in &fields {
        let value = message.get_field(field);
        if is_lost(field, &value) {
            negative_zero(field.number(), &value, out);
        } else if message.has_field(field) {
            self::value(message, field, &value, out);
        }
    }
    let mut rest = DynamicMessage::new(descriptor.clone());
    for (extension, value) in message.extensions() {
        rest.set_extension(&extension, value.clone());
    }
    rest.encode_raw(out);
    for unknown in message.unknown_fields() {
        unknown.encode(out);
    }
}

/// One field that is set.
fn value(message: &DynamicMessage, field: &FieldDescriptor, value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Message(inner) => nested(field, inner, out),
        Value::List(list) if matches!(field.kind(), Kind::Message(_)) => {
            for inner in list.iter().filter_map(Value::as_message) {
                nested(field, inner, out);
            }
        }
        Value::Map(map) => {
            for (key, value) in map {
                if let Some(entry) = entry(field, key, value) {
                    nested(field, &entry, out);
                }
            }
        }
        value => {
            let mut only = DynamicMessage::new(message.descriptor());
            only.set_field(field, value.clone());
            only.encode_raw(out);
        }
    }
}

fn nested(field: &FieldDescriptor, message: &DynamicMessage, out: &mut Vec<u8>) {
    if field.is_group() {
        encode_key(field.number(), WireType::StartGroup, out);
        encode(message, out);
        encode_key(field.number(), WireType::EndGroup, out);
        return;
    }
    let mut inner = Vec::new();
    encode(message, &mut inner);
    encode_key(field.number(), WireType::LengthDelimited, out);
    encode_varint(inner.len() as u64, out);
    out.extend_from_slice(&inner);
}

/// An entry of a map as the message that it is on the wire.
fn entry(field: &FieldDescriptor, key: &MapKey, value: &Value) -> Option<DynamicMessage> {
    let kind = field.kind();
    let mut entry = DynamicMessage::new(kind.as_message()?.clone());
    entry.try_set_field_by_number(1, key.clone().into()).ok()?;
    entry.try_set_field_by_number(2, value.clone()).ok()?;
    Some(entry)
}

/// Whether prost-reflect takes the value of a field for the default, though its bits are others.
fn is_lost(field: &FieldDescriptor, value: &Value) -> bool {
    !field.is_list() && !field.supports_presence() && is_negative_zero(value)
}

/// Whether a value is zero with a sign.
pub(crate) fn is_negative_zero(value: &Value) -> bool {
    match value {
        Value::F32(value) => value.to_bits() == (-0.0_f32).to_bits(),
        Value::F64(value) => value.to_bits() == (-0.0_f64).to_bits(),
        _ => false,
    }
}

fn negative_zero(number: u32, value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::F32(value) => {
            encode_key(number, WireType::ThirtyTwoBit, out);
            out.extend_from_slice(&value.to_le_bytes());
        }
        Value::F64(value) => {
            encode_key(number, WireType::SixtyFourBit, out);
            out.extend_from_slice(&value.to_le_bytes());
        }
        _ => {}
    }
}

/// Whether a message has a zero with a sign anywhere, where it might be lost.
fn holds_negative_zero(message: &DynamicMessage) -> bool {
    let descriptor = message.descriptor();
    descriptor.fields().any(|field| match field.kind() {
        Kind::Float | Kind::Double => is_lost(&field, &message.get_field(&field)),
        Kind::Message(_) if message.has_field(&field) => holds(&message.get_field(&field)),
        _ => false,
    })
}

fn holds(value: &Value) -> bool {
    match value {
        Value::Message(message) => holds_negative_zero(message),
        Value::List(list) => list.iter().any(holds),
        Value::Map(map) => map
            .values()
            .any(|value| is_negative_zero(value) || holds(value)),
        _ => false,
    }
}
