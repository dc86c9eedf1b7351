//! Generates code that encodes the messages of replies from their last byte to their first: see
//! `src/contract/encode.rs`. A kind of field that no reply has yet stops the build.

use std::error::Error;

use prost_reflect::{DescriptorPool, FieldDescriptor, Kind, MessageDescriptor};

use super::names::{pascal_case, rust_module, rust_name, rust_path};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// `Encode` for each message that a unary rpc of the pool answers with, and for what those hold. Types that
/// are not generated, those of `google.protobuf`, are encoded by prost, but for times.
///
/// `types` is the path of the module with the outermost packages, `encode` that of the trait's.
pub fn generate(pool: &DescriptorPool, types: &str, encode: &str) -> Result<String> {
    let mut code = String::new();
    for message in messages(pool) {
        let mut body = String::new();
        // prost puts a oneof where the first of its fields has its place.
        let mut fields: Vec<_> = message
            .fields()
            .map(|field| (place(&field), field))
            .collect();
        fields.sort_by_key(|(place, field)| (*place, field.number()));
        for (_, field) in fields.iter().rev() {
            body.push_str(&encode_field(field, types)?);
        }
        code.push_str(&format!(
            "impl {encode}::Encode for {types}::{} {{\n\
             fn encode_backward(&self, to: &mut {encode}::Backward) {{\n{body}}}\n}}\n",
            rust_path(&message)
        ));
    }
    Ok(code)
}

/// A function that applies `{encode}::both_encodings` to a message of those types, by its name.
#[allow(dead_code)] // Only where there are tests of it.
pub fn generate_test(pool: &DescriptorPool, types: &str, encode: &str) -> String {
    let case = |message: &MessageDescriptor| {
        let path = rust_path(message);
        format!(
            "{:?} => by::<{types}::{path}>(wire),\n",
            message.full_name()
        )
    };
    format!(
        "#[cfg(test)]\npub fn both_encodings(name: &str, wire: &[u8]) -> Option<[Vec<u8>; 2]> {{\n\
         use {encode}::both_encodings as by;\nmatch name {{\n{}_ => None,\n}}\n}}\n",
        messages(pool).iter().map(case).collect::<String>()
    )
}

fn messages(pool: &DescriptorPool) -> Vec<MessageDescriptor> {
    let services = pool.services();
    let methods = services.flat_map(|service| service.methods().collect::<Vec<_>>());
    let mut messages: Vec<MessageDescriptor> = methods
        .filter(|method| !method.is_client_streaming() && !method.is_server_streaming())
        .map(|method| method.output())
        .filter(is_generated)
        .collect();
    let mut next = 0;
    while let Some(message) = messages.get(next) {
        let held = message.fields().filter_map(|field| match field.kind() {
            Kind::Message(held) if !field.is_map() && is_generated(&held) => Some(held),
            _ => None,
        });
        let held: Vec<_> = held.filter(|held| !messages.contains(held)).collect();
        messages.extend(held);
        next += 1;
    }
    messages.sort_by(|a, b| a.full_name().cmp(b.full_name()));
    messages.dedup();
    messages
}

fn is_generated(message: &MessageDescriptor) -> bool {
    message.package_name() != "google.protobuf"
}

fn place(field: &FieldDescriptor) -> u32 {
    let oneof = field.containing_oneof();
    let first = oneof.and_then(|oneof| oneof.fields().map(|field| field.number()).min());
    first.unwrap_or(field.number())
}

fn encode_field(field: &FieldDescriptor, types: &str) -> Result<String> {
    let name = format!("self.{}", rust_name(field.name()));
    let always = |value: &str| encode_value(field, value);
    if field.is_map() {
        return encode_map(field, &name);
    }
    if field.is_list() {
        if field.is_packed() {
            return Err(unknown(field));
        }
        let each = always("value")?;
        return Ok(format!("for value in {name}.iter().rev() {{ {each} }}\n"));
    }
    match field.containing_oneof() {
        Some(oneof) if !oneof.is_synthetic() => {
            let variant = format!(
                "{types}::{}::{}::{}",
                rust_module(field.parent_message()),
                pascal_case(oneof.name()),
                pascal_case(field.name())
            );
            let each = always("value")?;
            Ok(format!(
                "if let Some({variant}(value)) = &self.{} {{ {each} }}\n",
                rust_name(oneof.name())
            ))
        }
        _ if field.supports_presence() => {
            let each = always("value")?;
            Ok(format!("if let Some(value) = &{name} {{ {each} }}\n"))
        }
        _ => {
            let is_set = match field.kind() {
                Kind::String | Kind::Bytes => format!("!{name}.is_empty()"),
                Kind::Bool => name.clone(),
                _ => format!("{name} != 0"),
            };
            let each = always(&format!("(&{name})"))?;
            Ok(format!("if {is_set} {{ {each} }}\n"))
        }
    }
}

/// Encodes what the reference `value` refers to, with its key.
fn encode_value(field: &FieldDescriptor, value: &str) -> Result<String> {
    let key = |wire_type: u32| field.number() << 3 | wire_type;
    Ok(match field.kind() {
        Kind::Bool | Kind::Int32 | Kind::Int64 | Kind::Uint32 | Kind::Uint64 | Kind::Enum(_) => {
            // Negative ones are extended to 64 bits, as protobuf wants it.
            format!("to.number({}, *{value} as u64);", key(0))
        }
        Kind::String | Kind::Bytes => format!("to.bytes({}, {value}.as_ref());", key(2)),
        Kind::Message(held) if is_generated(&held) => {
            format!("to.message({}, {value});", key(2))
        }
        Kind::Message(held) if held.name() == "Timestamp" => {
            format!("to.time({}, {value}.seconds, {value}.nanos);", key(2))
        }
        Kind::Message(_) => format!("to.other({}, {value});", key(2)),
        _ => return Err(unknown(field)),
    })
}

fn encode_map(field: &FieldDescriptor, name: &str) -> Result<String> {
    let Kind::Message(entry) = field.kind() else {
        return Err(unknown(field));
    };
    if entry.fields().any(|part| part.kind() != Kind::String) {
        return Err(unknown(field));
    }
    let key = field.number() << 3 | 2;
    Ok(format!(
        "for (key, value) in {name}.iter().rev() {{ to.pair({key}, key, value); }}\n"
    ))
}

fn unknown(field: &FieldDescriptor) -> Box<dyn Error> {
    format!(
        "{}: build/encoders.rs does not encode this kind of field yet",
        field.full_name()
    )
    .into()
}
