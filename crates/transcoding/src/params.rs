//! Puts path variables and query parameters into a request message.

use std::collections::HashSet;

use prost::Message;
use prost_reflect::{
    DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, ReflectMessage, Value,
};

use super::{
    percent,
    rejection::Rejection,
    router::Capture,
    rules::{Binding, BodyRule},
    values,
};

/// The deepest field that a query parameter may name, in names.
const MAX_NAMES: usize = 32;

/// The treatment of a parameter whose name is no field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unknown {
    Refused,
    Ignored,
}

/// Sets the fields of path variables. A field that the body has set too must be equal there.
pub(crate) fn apply_path<'r, 'p>(
    message: &mut DynamicMessage,
    binding: &Binding,
    captures: impl Iterator<Item = Capture<'r, 'p>>,
) -> Result<(), Rejection> {
    for ((variable, text), fields) in captures.zip(&binding.variables) {
        let text = text.map_err(Rejection::BadPath)?;
        let reject = |problem| Rejection::field(&variable.field_path.join("."), problem);
        let Some(field) = fields.last() else {
            continue;
        };
        let value = values::parse(&field.kind(), &text)
            .map_err(|right| reject(format!("must be {right} in the path")))?;
        place(message, fields, |parent, field| {
            if parent.has_field(field) && !equal(&parent.get_field(field), &value) {
                return Err("the body contradicts the path".to_owned());
            }
            set(parent, field, value)
        })
        .map_err(reject)?;
    }
    Ok(())
}

/// Sets the fields named by query parameters: `name=value`, `a.b=value`, `map[key]=value`; a list
/// by repetition. Proto names and JSON names are both taken.
pub(crate) fn apply_query(
    message: &mut DynamicMessage,
    binding: Option<&Binding>,
    query: &str,
    unknown: Unknown,
) -> Result<(), Rejection> {
    let mut seen = HashSet::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, text) = pair.split_once('=').unwrap_or((pair, ""));
        let name = percent::decode_query(name).map_err(Rejection::BadQuery)?;
        let text = percent::decode_query(text).map_err(Rejection::BadQuery)?;
        let reject = |problem| Rejection::field(&name, problem);
        let (fields, key) = match resolve(&message.descriptor(), binding, &name) {
            Ok(found) => found,
            Err(Unresolved::NoField) if unknown == Unknown::Ignored => continue,
            Err(unresolved) => return Err(reject(unresolved.to_string())),
        };
        place(message, &fields, |parent, field| {
            set_from_query(parent, field, key, &text, || {
                let numbers: Vec<_> = fields.iter().map(FieldDescriptor::number).collect();
                seen.insert(numbers)
            })
        })
        .map_err(reject)?;
    }
    Ok(())
}

/// A message whose fields are all in a query, for handlers beside the transcoder.
///
/// # Errors
///
/// INVALID_ARGUMENT for a parameter that is no field of the message, or whose value is not one of its field.
pub fn message_from_query(
    descriptor: &MessageDescriptor,
    query: &str,
) -> Result<DynamicMessage, tonic::Status> {
    let mut message = DynamicMessage::new(descriptor.clone());
    apply_query(&mut message, None, query, Unknown::Refused)
        .map_err(|rejection| rejection.to_status().1)?;
    Ok(message)
}

/// Why a parameter names no field that can be set.
#[derive(Debug, thiserror::Error)]
enum Unresolved {
    #[error("unknown query parameter")]
    NoField,
    #[error("unknown query parameter: this method takes its fields in the body")]
    InBody,
    #[error("unknown query parameter: {0} has members that only a body can give")]
    OnlyInBody(String),
    #[error("more than {MAX_NAMES} names deep")]
    TooDeep,
    #[error("already taken from the body")]
    TakenFromBody,
    #[error("already given in the path")]
    GivenInPath,
}

/// The fields that a parameter names, and its key where it is one entry of a map.
fn resolve<'n>(
    input: &MessageDescriptor,
    binding: Option<&Binding>,
    name: &'n str,
) -> Result<(Vec<FieldDescriptor>, Option<&'n str>), Unresolved> {
    if binding.is_some_and(|binding| binding.body == BodyRule::Whole) {
        return Err(Unresolved::InBody);
    }
    let (names, key) = match name.split_once('[') {
        Some((names, key)) => (names, Some(key)),
        None => (name, None),
    };
    let mut fields: Vec<FieldDescriptor> = Vec::new();
    for name in names.split('.') {
        let message = match fields.last() {
            None => input.clone(),
            Some(parent) => match parent.kind() {
                Kind::Message(message)
                    if !parent.is_list()
                        && !parent.is_map()
                        && message.package_name() != "google.protobuf" =>
                {
                    message
                }
                Kind::Message(_) if parent.is_list() => {
                    return Err(Unresolved::OnlyInBody(parent.name().to_owned()));
                }
                _ => return Err(Unresolved::NoField),
            },
        };
        if fields.len() == MAX_NAMES {
            return Err(Unresolved::TooDeep);
        }
        let field = message
            .get_field_by_name(name)
            .or_else(|| message.get_field_by_json_name(name))
            .ok_or(Unresolved::NoField)?;
        fields.push(field);
    }
    let key = match (key, fields.last()) {
        (None, _) => None,
        (Some(key), Some(field)) if field.is_map() && key.contains("].") && !key.ends_with(']') => {
            return Err(Unresolved::OnlyInBody(field.name().to_owned()));
        }
        (Some(key), _) => Some(key.strip_suffix(']').ok_or(Unresolved::NoField)?),
    };
    if let Some(binding) = binding {
        if let (BodyRule::Field(body), Some(first)) = (&binding.body, fields.first())
            && body == first
        {
            return Err(Unresolved::TakenFromBody);
        }
        if binding.variables.contains(&fields) {
            return Err(Unresolved::GivenInPath);
        }
    }
    Ok((fields, key))
}

/// Sets one parameter; `first` says whether it is the first for this field.
fn set_from_query(
    parent: &mut DynamicMessage,
    field: &FieldDescriptor,
    key: Option<&str>,
    text: &str,
    first: impl FnOnce() -> bool,
) -> Result<(), String> {
    let parse = |kind: &Kind| values::parse(kind, text).map_err(|right| format!("must be {right}"));
    if field.is_map() {
        let key = key.ok_or_else(|| "must be given as name[key]=value: it is a map".to_owned())?;
        let Kind::Message(entry) = field.kind() else {
            return Err("is not a map".to_owned());
        };
        let key = values::map_key(&entry.map_entry_key_field().kind(), key)
            .map_err(|right| format!("the key must be {right}"))?;
        let value = parse(&entry.map_entry_value_field().kind())?;
        return match parent.get_field_mut(field).as_map_mut() {
            Some(map) if !map.contains_key(&key) => {
                map.insert(key, value);
                Ok(())
            }
            _ => Err("given more than once".to_owned()),
        };
    }
    if key.is_some() {
        return Err("has no keys: it is not a map".to_owned());
    }
    let value = parse(&field.kind())?;
    if field.is_list() {
        if let Some(list) = parent.get_field_mut(field).as_list_mut() {
            list.push(value);
        }
        return Ok(());
    }
    if !first() {
        return Err("given more than once".to_owned());
    }
    set(parent, field, value)
}

/// Goes down to the last field of a path, making messages on the way, unless another member of a
/// oneof is set there, and lets `put` set the field.
fn place(
    message: &mut DynamicMessage,
    fields: &[FieldDescriptor],
    put: impl FnOnce(&mut DynamicMessage, &FieldDescriptor) -> Result<(), String>,
) -> Result<(), String> {
    let Some((field, deeper)) = fields.split_first() else {
        return Ok(());
    };
    if let Some(oneof) = field.containing_oneof()
        && let Some(other) = oneof
            .fields()
            .find(|other| other != field && message.has_field(other))
    {
        return Err(format!(
            "cannot be given together with {}: only one of {} can",
            other.name(),
            oneof.name()
        ));
    }
    if deeper.is_empty() {
        return put(message, field);
    }
    match message.get_field_mut(field).as_message_mut() {
        Some(inner) => place(inner, deeper, put),
        None => Err("is not a message".to_owned()),
    }
}

/// Messages are compared as they go over the wire: a default value may or may not be stored.
fn equal(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Message(left), Value::Message(right)) => {
            left.encode_to_vec() == right.encode_to_vec()
        }
        _ => left == right,
    }
}

fn set(parent: &mut DynamicMessage, field: &FieldDescriptor, value: Value) -> Result<(), String> {
    parent
        .try_set_field(field, value)
        .map_err(|_| "is not of the type of its field".to_owned())
}
