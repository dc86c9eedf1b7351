//! JSON and wire bytes by prost-reflect.

use prost_reflect::{
    DeserializeOptions, DynamicMessage, MessageDescriptor, SerializeOptions, Value,
};

/// A message of JSON.
pub fn read(json: &[u8], message: &MessageDescriptor) -> Result<DynamicMessage, String> {
    let text = std::str::from_utf8(json).map_err(|error| error.to_string())?;
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let options = DeserializeOptions::new().deny_unknown_fields(true);
    let message =
        DynamicMessage::deserialize_with_options(message.clone(), &mut deserializer, &options)
            .map_err(|error| error.to_string())?;
    deserializer.end().map_err(|error| error.to_string())?;
    Ok(message)
}

/// A message of wire bytes.
pub fn decode(wire: &[u8], message: &MessageDescriptor) -> Result<DynamicMessage, String> {
    DynamicMessage::decode(message.clone(), wire).map_err(|error| error.to_string())
}

/// A message of wire bytes as JSON.
pub fn write(
    wire: &[u8],
    message: &MessageDescriptor,
    options: &SerializeOptions,
) -> Result<serde_json::Value, String> {
    let mut text = Vec::new();
    decode(wire, message)?
        .serialize_with_options(&mut serde_json::Serializer::new(&mut text), options)
        .map_err(|error| error.to_string())?;
    serde_json::from_slice(&text).map_err(|error| error.to_string())
}

/// Whether two messages are the same. A NaN is itself here, and what an Any holds is compared as a
/// message, since its encoding is not unique.
pub fn same(left: &DynamicMessage, right: &DynamicMessage) -> bool {
    use prost_reflect::ReflectMessage;
    let descriptor = left.descriptor();
    if descriptor.full_name() == "google.protobuf.Any" {
        let part = |any: &DynamicMessage, number| {
            any.get_field_by_number(number)
                .map(|part| part.into_owned())
        };
        let (
            Some(Value::String(url)),
            Some(Value::Bytes(left_bytes)),
            Some(Value::Bytes(right_bytes)),
        ) = (part(left, 1), part(left, 2), part(right, 2))
        else {
            return false;
        };
        let name = url.rsplit('/').next().unwrap_or_default();
        let held = descriptor.parent_pool().get_message_by_name(name);
        return part(left, 1) == part(right, 1)
            && match held {
                Some(held) => match (decode(&left_bytes, &held), decode(&right_bytes, &held)) {
                    (Ok(left), Ok(right)) => same(&left, &right),
                    (left, right) => left.is_err() && right.is_err(),
                },
                None => left_bytes == right_bytes,
            };
    }
    descriptor == right.descriptor()
        && descriptor.fields().all(|field| {
            left.has_field(&field) == right.has_field(&field)
                && (!left.has_field(&field)
                    || same_value(&left.get_field(&field), &right.get_field(&field)))
        })
}

fn same_value(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::F32(left), Value::F32(right)) => left == right || left.is_nan() && right.is_nan(),
        (Value::F64(left), Value::F64(right)) => left == right || left.is_nan() && right.is_nan(),
        (Value::Message(left), Value::Message(right)) => same(left, right),
        (Value::List(left), Value::List(right)) => {
            left.len() == right.len()
                && left
                    .iter()
                    .zip(right)
                    .all(|(left, right)| same_value(left, right))
        }
        (Value::Map(left), Value::Map(right)) => {
            left.len() == right.len()
                && left
                    .iter()
                    .all(|(key, left)| right.get(key).is_some_and(|right| same_value(left, right)))
        }
        _ => left == right,
    }
}
