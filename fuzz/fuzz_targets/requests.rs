//! The meaning of an HTTP request, told plainly: each text is one assignment, assignments are compared in
//! pairs, and the message is all of them one behind the other.

use std::sync::LazyLock;

use http::{Method, Uri};
use percent_encoding::percent_decode_str;
use prost::Message;
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MethodDescriptor, Value};
use transcoding::template::Template;
use transcoding_reference::{
    codec as reference,
    matcher::{self, Answer},
};

use super::{
    rules::{self, HttpRule},
    texts,
    things::THINGS,
};

const HTTP_BODY: &str = "google.api.HttpBody";

/// The deepest field that a parameter may name, in names.
const MOST_NAMES: usize = 32;

pub enum Expected {
    /// A call with this message, where that is known here.
    Call(MethodDescriptor, Option<DynamicMessage>),
    Refused(Refusal),
}

pub enum Refusal {
    Status(u16),
    /// For the query alone, which has these parameters.
    Query(Vec<String>),
}

impl From<u16> for Refusal {
    fn from(status: u16) -> Self {
        Self::Status(status)
    }
}

static RULES: LazyLock<Vec<HttpRule>> = LazyLock::new(rules::rules);

static TEMPLATES: LazyLock<Vec<matcher::Rule>> = LazyLock::new(|| {
    let rule = |rule: &HttpRule| matcher::Rule {
        method: rule.verb.clone(),
        serves_head: matches!(&*rule.verb, "GET" | "*") && has_no_side_effects(&rule.method),
        template: Template::parse(&rule.path).expect("it is a template"),
    };
    RULES.iter().map(rule).collect()
});

fn has_no_side_effects(method: &MethodDescriptor) -> bool {
    let options = method.options();
    let level = options.get_field_by_name("idempotency_level");
    level.and_then(|level| level.as_enum_number()) == Some(1)
}

pub fn expected(method: &Method, uri: &Uri, body: &str) -> Expected {
    let (index, captures) = match matcher::find(&TEMPLATES, method.as_str(), uri.path()) {
        Answer::Found(index, captures) => (index, captures),
        Answer::BadPath => return Expected::Refused(Refusal::Status(400)),
        Answer::NotFound => return Expected::Refused(Refusal::Status(404)),
        Answer::NotAllowed(_) => {
            let status = if method == Method::OPTIONS { 204 } else { 405 };
            return Expected::Refused(Refusal::Status(status));
        }
    };
    let rule = &RULES[index];
    if rule.method.is_client_streaming() {
        return Expected::Refused(Refusal::Status(501));
    }
    let variables = TEMPLATES[index].template.variables.iter();
    let variables: Vec<_> = variables
        .zip(captures)
        .map(|(variable, text)| (variable.field_path.join("."), text))
        .collect();
    match message(rule, &variables, uri.query().unwrap_or_default(), body) {
        Ok(message) => Expected::Call(rule.method.clone(), message),
        Err(refusal) => Expected::Refused(refusal),
    }
}

/// A field, from the message down, its key in a map, and its value.
struct Assignment {
    fields: Vec<FieldDescriptor>,
    key: Option<prost_reflect::MapKey>,
    value: Value,
}

fn message(
    rule: &HttpRule,
    variables: &[(String, Option<String>)],
    query: &str,
    body: &str,
) -> Result<Option<DynamicMessage>, Refusal> {
    let input = rule.method.input();
    let field = input.get_field_by_name(&rule.body);
    let kind = field.as_ref().map(FieldDescriptor::kind);
    let held = kind.as_ref().and_then(Kind::as_message).unwrap_or(&input);
    let is_raw = !rule.body.is_empty()
        && held.full_name() == HTTP_BODY
        && field.as_ref().is_none_or(|field| !field.is_list());

    let in_body = if is_raw {
        DynamicMessage::new(input.clone())
    } else {
        read_body(rule, body)?
    };
    let mut in_path = Vec::new();
    for (name, text) in variables {
        let assignment = text.as_ref().and_then(|text| assign(rule, name, text));
        let assignment = assignment.ok_or(400)?;
        if contradicts(&in_body, &assignment) {
            return Err(400.into());
        }
        in_path.push(assignment);
    }

    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    let pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let decode = |text: &str| {
        let text = text.replace('+', "%20");
        let decoded = percent_decode_str(&text).decode_utf8();
        decoded.ok().map(|text| text.into_owned())
    };
    let parameters = || pairs.clone().filter_map(|(name, _)| decode(name)).collect();
    let refused = || Refusal::Query(parameters());
    if !matcher::has_whole_escapes(query) {
        return Err(refused());
    }
    let mut in_query: Vec<Assignment> = Vec::new();
    for (name, text) in pairs.clone() {
        let (Some(name), Some(text)) = (decode(name), decode(text)) else {
            return Err(refused());
        };
        let assignment = assign(rule, &name, &text).ok_or_else(refused)?;
        let is_bodys = rule.body == "*" || field.as_ref() == assignment.fields.first();
        let mut before = in_path.iter().chain(&in_query);
        if is_bodys
            || before.any(|before| clash(before, &assignment))
            || contradicts(&in_body, &assignment)
        {
            return Err(refused());
        }
        in_query.push(assignment);
    }
    if is_raw {
        return Ok(None);
    }
    let mut wire = in_body.encode_to_vec();
    for assignment in in_path.iter().chain(&in_query) {
        wire.extend(alone(assignment, &input).encode_to_vec());
    }
    Ok(Some(
        reference::decode(&wire, &input).expect("it was encoded"),
    ))
}

fn read_body(rule: &HttpRule, body: &str) -> Result<DynamicMessage, Refusal> {
    let input = rule.method.input();
    let body = body.trim_matches([' ', '\t', '\r', '\n']).as_bytes();
    let message_type = THINGS.codec.find(&input).expect("it is known");
    let mut wire = Vec::new();
    // The codec has a target of its own.
    let read = match input.get_field_by_name(&rule.body) {
        _ if body.is_empty() => Ok(()),
        Some(field) => {
            let number = field.number();
            THINGS
                .codec
                .field_to_wire(message_type, number, body, &mut wire)
        }
        None if rule.body == "*" => THINGS.codec.to_wire(message_type, body, &mut wire),
        None => {
            let body: Option<serde_json::Map<_, _>> = serde_json::from_slice(body).ok();
            return match body.is_some_and(|body| body.is_empty()) {
                true => Ok(DynamicMessage::new(input)),
                false => Err(400.into()),
            };
        }
    };
    read.map_err(|_| 400)?;
    Ok(reference::decode(&wire, &input).expect("it was encoded"))
}

/// The assignment of a name and a text, if they are right.
fn assign(rule: &HttpRule, name: &str, text: &str) -> Option<Assignment> {
    let (name, key) = match name.split_once('[') {
        Some((name, key)) => (name, Some(key.strip_suffix(']')?)),
        None => (name, None),
    };
    let mut message = rule.method.input();
    let mut fields: Vec<FieldDescriptor> = Vec::new();
    for name in name.split('.') {
        if let Some(parent) = fields.last() {
            message = parent.kind().as_message()?.clone();
            if parent.is_list() || parent.is_map() || message.package_name() == "google.protobuf" {
                return None;
            }
        }
        let named = |field: &FieldDescriptor| field.name() == name || field.json_name() == name;
        fields.push(message.fields().find(named)?);
    }
    if fields.len() > MOST_NAMES {
        return None;
    }
    let kind = fields.last()?.kind();
    let (key, value) = match kind.as_message().filter(|message| message.is_map_entry()) {
        Some(entry) => (
            Some(texts::value(&entry.map_entry_key_field().kind(), key?)?.into_map_key()?),
            texts::value(&entry.map_entry_value_field().kind(), text)?,
        ),
        None if key.is_some() => return None,
        None => (None, texts::value(&kind, text)?),
    };
    Some(Assignment { fields, key, value })
}

/// Whether two assignments cannot stand together: the same field or entry, or two of a oneof.
fn clash(one: &Assignment, other: &Assignment) -> bool {
    let mut pairs = one.fields.iter().zip(&other.fields);
    match pairs.find(|(one, other)| one != other) {
        Some((one, other)) => one
            .containing_oneof()
            .is_some_and(|oneof| oneof.fields().any(|member| member == *other)),
        None => !one.fields.last().is_some_and(FieldDescriptor::is_list) && one.key == other.key,
    }
}

/// Whether a message has another value for the field, or another member of a oneof on the way to it.
fn contradicts(message: &DynamicMessage, assignment: &Assignment) -> bool {
    let mut message = message.clone();
    for field in &assignment.fields {
        let oneof = field.containing_oneof();
        let mut members = oneof.iter().flat_map(|oneof| oneof.fields());
        if members.any(|member| member != *field && message.has_field(&member)) {
            return true;
        }
        if !message.has_field(field) {
            return false;
        }
        let value = message.get_field(field).into_owned();
        match (value, &assignment.value) {
            _ if field.is_list() || field.is_map() => return false,
            (Value::Message(inner), _) if Some(field) != assignment.fields.last() => {
                message = inner
            }
            // A default value may be stored or not.
            (Value::Message(inner), Value::Message(assigned)) => {
                return inner.encode_to_vec() != assigned.encode_to_vec();
            }
            (value, assigned) => return value != *assigned,
        }
    }
    false
}

/// A message with one assignment.
fn alone(assignment: &Assignment, input: &prost_reflect::MessageDescriptor) -> DynamicMessage {
    fn put(message: &mut DynamicMessage, fields: &[FieldDescriptor], assignment: &Assignment) {
        let [field, deeper @ ..] = fields else {
            return;
        };
        let value = assignment.value.clone();
        match message.get_field_mut(field) {
            Value::Message(inner) if !deeper.is_empty() => put(inner, deeper, assignment),
            Value::List(list) => list.push(value),
            Value::Map(map) => drop(map.insert(assignment.key.clone().expect("a key"), value)),
            slot => *slot = value,
        }
    }
    let mut message = DynamicMessage::new(input.clone());
    put(&mut message, &assignment.fields, assignment);
    message
}
