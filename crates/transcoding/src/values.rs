//! Texts of paths and queries as values of fields, by the protobuf JSON mapping of the same types.
//!
//! Errors say what would be right, to be read after "must be".

use prost_reflect::{DynamicMessage, Kind, MapKey, MessageDescriptor, Value};
use serde::de::{IntoDeserializer, value::StrDeserializer};

use super::codec;

/// A value of one kind: scalars, enums by name or number, Timestamp, Duration, FieldMask and the
/// wrappers. Other messages have no form as one text.
pub(crate) fn parse(kind: &Kind, text: &str) -> Result<Value, String> {
    match kind {
        Kind::String => Ok(Value::String(text.to_owned())),
        Kind::Bytes => codec::from_base64(text)
            .map(|bytes| Value::Bytes(bytes.into()))
            .ok_or_else(|| "base64 (either alphabet)".to_owned()),
        Kind::Bool => match text {
            "true" => Ok(Value::Bool(true)),
            "false" => Ok(Value::Bool(false)),
            _ => Err("true or false".to_owned()),
        },
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => number(text, i32::MIN, i32::MAX, Value::I32),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => number(text, i64::MIN, i64::MAX, Value::I64),
        Kind::Uint32 | Kind::Fixed32 => number(text, u32::MIN, u32::MAX, Value::U32),
        Kind::Uint64 | Kind::Fixed64 => number(text, u64::MIN, u64::MAX, Value::U64),
        Kind::Float => float(text).and_then(|value| {
            // Narrowed from the text itself, not from the wider number, which would round twice.
            let narrow = text.parse().unwrap_or(value as f32);
            if value.is_finite() && narrow.is_infinite() {
                return Err("a number within the range of a 32-bit float".to_owned());
            }
            Ok(Value::F32(narrow))
        }),
        Kind::Double => float(text).map(Value::F64),
        Kind::Enum(descriptor) => {
            let number = match descriptor.get_value_by_name(text) {
                Some(value) => Some(value.number()),
                None => text.parse().ok(),
            };
            number.map(Value::EnumNumber).ok_or_else(|| {
                let names: Vec<_> = descriptor
                    .values()
                    .take(10)
                    .map(|value| value.name().to_owned())
                    .collect();
                format!(
                    "a name or a number of the enum {} ({})",
                    descriptor.name(),
                    names.join(", ")
                )
            })
        }
        Kind::Message(descriptor) => message(descriptor, text).map(Value::Message),
    }
}

/// Whether a message of this type is given as one text.
pub(crate) fn is_text_message(descriptor: &MessageDescriptor) -> bool {
    let name = descriptor.full_name();
    matches!(
        name,
        "google.protobuf.Timestamp" | "google.protobuf.Duration" | "google.protobuf.FieldMask"
    ) || codec::is_wrapper(name)
}

/// The key of a map field.
pub(crate) fn map_key(kind: &Kind, text: &str) -> Result<MapKey, String> {
    parse(kind, text)?
        .into_map_key()
        .ok_or_else(|| "a text, a whole number, true or false".to_owned())
}

fn message(descriptor: &MessageDescriptor, text: &str) -> Result<DynamicMessage, String> {
    let mut message = DynamicMessage::new(descriptor.clone());
    let (field, value) = match descriptor.full_name() {
        "google.protobuf.Timestamp" => {
            return from_json_string(descriptor, text).ok_or_else(|| {
                "a time as in 2026-01-31T23:59:59.5Z (RFC 3339, years 1 to 9999)".to_owned()
            });
        }
        "google.protobuf.Duration" => {
            return from_json_string(descriptor, text)
                .ok_or_else(|| "a number of seconds with an s, as in 3.5s".to_owned());
        }
        "google.protobuf.FieldMask" => {
            let paths = text.split(',').filter(|path| !path.is_empty());
            let paths: Option<_> = paths.map(mask_path).collect();
            let right = || "names of fields joined by commas, as in name,child.longName".to_owned();
            (1, Value::List(paths.ok_or_else(right)?))
        }
        name if codec::is_wrapper(name) => match descriptor.get_field(1) {
            Some(field) => (1, parse(&field.kind(), text)?),
            None => return Err("nothing: this wrapper has no value".to_owned()),
        },
        name => {
            return Err(format!(
                "given field by field or in the body: it is a {name}"
            ));
        }
    };
    message
        .try_set_field_by_number(field, value)
        .map_err(|_| "of its type".to_owned())?;
    Ok(message)
}

fn from_json_string(descriptor: &MessageDescriptor, text: &str) -> Option<DynamicMessage> {
    if codec::is_too_fine(text) {
        return None;
    }
    let text: StrDeserializer<'_, serde::de::value::Error> = text.into_deserializer();
    DynamicMessage::deserialize(descriptor.clone(), text).ok()
}

/// One path of a FieldMask by its proto names, given by those or by JSON names. Only what has a form
/// in JSON is taken, so that it can be written back: `_` stands before a lowercase letter.
fn mask_path(path: &str) -> Option<Value> {
    let mut proto_path = String::with_capacity(path.len() + 4);
    for name in path.split('.') {
        if !proto_path.is_empty() {
            proto_path.push('.');
        }
        let mut characters = name.chars().peekable();
        characters.peek()?;
        while let Some(character) = characters.next() {
            match character {
                'A'..='Z' => {
                    proto_path.push('_');
                    proto_path.push(character.to_ascii_lowercase());
                }
                '_' if !characters.peek()?.is_ascii_lowercase() => return None,
                'a'..='z' | '0'..='9' | '_' => proto_path.push(character),
                _ => return None,
            }
        }
    }
    Some(Value::String(proto_path))
}

fn number<T>(text: &str, least: T, greatest: T, value: fn(T) -> Value) -> Result<Value, String>
where
    T: std::str::FromStr + std::fmt::Display,
{
    text.parse()
        .map(value)
        .map_err(|_| format!("a whole number from {least} to {greatest}"))
}

fn float(text: &str) -> Result<f64, String> {
    match text {
        "NaN" => return Ok(f64::NAN),
        "Infinity" => return Ok(f64::INFINITY),
        "-Infinity" => return Ok(f64::NEG_INFINITY),
        _ => {}
    }
    let digits = |byte: u8| byte.is_ascii_digit() || b"+-.eE".contains(&byte);
    text.parse()
        .ok()
        .filter(|value: &f64| value.is_finite() && text.bytes().all(digits))
        .ok_or_else(|| "a number, NaN, Infinity or -Infinity".to_owned())
}
