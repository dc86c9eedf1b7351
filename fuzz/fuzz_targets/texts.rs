//! One text in a path or a query as the value of a field.

use base64::{Engine, prelude::BASE64_STANDARD};
use prost_reflect::{DynamicMessage, Kind, MessageDescriptor, Value};
use serde_json::Value as Json;
use transcoding_reference::codec as reference;

/// The value, read by prost-reflect from what would be its JSON. `None` where the text is none.
pub fn value(kind: &Kind, text: &str) -> Option<Value> {
    let plain_number = text.bytes().all(|byte| b"0123456789+-.eE".contains(&byte));
    Some(match kind {
        Kind::String => Value::String(text.to_owned()),
        Kind::Bytes => Value::Bytes(bytes(text)?.into()),
        Kind::Bool => Value::Bool(match text {
            "true" => true,
            "false" => false,
            _ => return None,
        }),
        Kind::Float | Kind::Double if !plain_number => {
            let number = match text {
                "NaN" => f64::NAN,
                "Infinity" => f64::INFINITY,
                "-Infinity" => f64::NEG_INFINITY,
                _ => return None,
            };
            match kind {
                Kind::Float => Value::F32(number as f32),
                _ => Value::F64(number),
            }
        }
        Kind::Float => Value::F32(text.parse().ok().filter(|value: &f32| value.is_finite())?),
        Kind::Double => Value::F64(text.parse().ok().filter(|value: &f64| value.is_finite())?),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => Value::I32(text.parse().ok()?),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => Value::I64(text.parse().ok()?),
        Kind::Uint32 | Kind::Fixed32 => Value::U32(text.parse().ok()?),
        Kind::Uint64 | Kind::Fixed64 => Value::U64(text.parse().ok()?),
        Kind::Enum(descriptor) => Value::EnumNumber(match descriptor.get_value_by_name(text) {
            Some(value) => value.number(),
            None => text.parse().ok()?,
        }),
        Kind::Message(descriptor) => Value::Message(message(descriptor, text)?),
    })
}

fn message(descriptor: &MessageDescriptor, text: &str) -> Option<DynamicMessage> {
    let name = descriptor.full_name().strip_prefix("google.protobuf.")?;
    let text = match name {
        "Timestamp" | "Duration" => {
            // prost-reflect drops what is finer than nanoseconds.
            let fraction = text.split_once('.').map_or("", |(_, fraction)| fraction);
            let digits = fraction.split(|character: char| !character.is_ascii_digit());
            if digits
                .take(1)
                .any(|digits| digits.trim_end_matches('0').len() > 9)
            {
                return None;
            }
            text.to_owned()
        }
        "FieldMask" => mask(text)?,
        _ if name.ends_with("Value") && name != "ListValue" && name != "Value" => {
            let mut message = DynamicMessage::new(descriptor.clone());
            let field = descriptor.get_field(1)?;
            message.set_field(&field, value(&field.kind(), text)?);
            return Some(message);
        }
        _ => return None,
    };
    reference::read(Json::String(text).to_string().as_bytes(), descriptor).ok()
}

/// A FieldMask in its JSON form, given in that or by the names of proto fields.
fn mask(text: &str) -> Option<String> {
    let paths = text.split(',').filter(|path| !path.is_empty());
    let names = paths.clone().flat_map(|path| path.split('.'));
    let takes = |character: char| character.is_ascii_alphanumeric() || character == '_';
    if names
        .clone()
        .any(|name| name.is_empty() || !name.chars().all(takes))
    {
        return None;
    }
    let mut json = String::new();
    let mut rest = &*paths.collect::<Vec<_>>().join(",");
    while let Some((before, after)) = rest.split_once('_') {
        let letter = after.chars().next().filter(char::is_ascii_lowercase)?;
        json.push_str(before);
        json.push(letter.to_ascii_uppercase());
        rest = &after[1..];
    }
    Some(json + rest)
}

/// Base64 in one of the alphabets, with all of its padding, some or none; spare bits are ignored.
fn bytes(text: &str) -> Option<Vec<u8>> {
    let digits = text.trim_end_matches('=');
    let padding = (4 - digits.len() % 4) % 4;
    if text.len() - digits.len() > padding || padding == 3 {
        return None;
    }
    let digits = match digits.contains(['-', '_']) && !digits.contains(['+', '/']) {
        true => digits.replace('-', "+").replace('_', "/"),
        false => digits.to_owned(),
    };
    // The last digit without its spare bits.
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut digits = digits;
    if let Some(last) = digits.pop() {
        let value = alphabet.find(last)?;
        let value = value >> (2 * padding) << (2 * padding);
        digits.push_str(&alphabet[value..=value]);
    }
    BASE64_STANDARD.decode(digits + &"=".repeat(padding)).ok()
}
