//! JSON schemas of messages by the protobuf JSON mapping.

use std::collections::BTreeMap;

use prost_reflect::{DescriptorPool, EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor};
use serde_json::{Map, Value, json};

use super::{comments::Comments, limits::Limits};
use crate::codec;

/// The syntax in which a value is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// In a text of JSON.
    Json,
    /// In a path or a query.
    Url,
}

/// Schemas of the messages and enums that were referred to, by full name.
pub(super) struct Schemas<'c> {
    pub comments: &'c Comments,
    limits: &'c dyn Fn(&FieldDescriptor) -> Limits,
    components: BTreeMap<String, Value>,
}

impl<'c> Schemas<'c> {
    pub(super) fn new(
        comments: &'c Comments,
        limits: &'c dyn Fn(&FieldDescriptor) -> Limits,
    ) -> Self {
        Self {
            comments,
            limits,
            components: BTreeMap::new(),
        }
    }

    pub(super) fn into_components(self) -> Map<String, Value> {
        self.components.into_iter().collect()
    }

    /// Whether a request must have a field.
    pub(super) fn is_required(&self, field: &FieldDescriptor) -> bool {
        (self.limits)(field).required
    }

    /// The schema of a field's value, with its comment and its limits.
    pub(super) fn field(&mut self, field: &FieldDescriptor, place: Place) -> Value {
        let limits = (self.limits)(field);
        let mut value = |kind| self.kind(kind, place);
        let mut schema = match field.kind() {
            Kind::Message(entry) if field.is_map() => {
                let values = value(&entry.map_entry_value_field().kind());
                json!({"type": "object", "additionalProperties": values})
            }
            kind if field.is_list() => json!({"type": "array", "items": value(&kind)}),
            kind => value(&kind),
        };
        limits.apply(field, &mut schema);
        let mut description = self.comments.field(field).to_owned();
        let mut add = |sentence: &str| {
            if !description.is_empty() {
                description.push_str("\n\n");
            }
            description.push_str(sentence);
        };
        if let Some(sentence) = limits.value_in_words() {
            add(&sentence);
        }
        if let Some(oneof) = field.containing_oneof()
            && !oneof.is_synthetic()
        {
            let names: Vec<_> = oneof
                .fields()
                .map(|field| format!("`{}`", field.json_name()))
                .collect();
            add(&format!("Only one of {} can be set.", names.join(", ")));
        }
        if let Value::Object(schema) = &mut schema {
            if !description.is_empty() {
                schema.insert("description".to_owned(), description.into());
            }
            let options = field.field_descriptor_proto().options.as_ref();
            if options.is_some_and(|options| options.deprecated()) {
                schema.insert("deprecated".to_owned(), true.into());
            }
        }
        schema
    }

    /// The schema of one value of a kind.
    fn kind(&mut self, kind: &Kind, place: Place) -> Value {
        match kind {
            Kind::String => json!({"type": "string"}),
            // As OpenAPI 3.1 says it, and as 3.0 did.
            Kind::Bytes => json!({"type": "string", "format": "byte", "contentEncoding": "base64"}),
            Kind::Bool => json!({"type": "boolean"}),
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => {
                json!({"type": "integer", "format": "int32"})
            }
            Kind::Uint32 | Kind::Fixed32 => {
                json!({"type": "integer", "minimum": 0, "maximum": u32::MAX})
            }
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 if place == Place::Url => {
                json!({"type": "integer", "format": "int64"})
            }
            Kind::Uint64 | Kind::Fixed64 if place == Place::Url => {
                json!({"type": "integer", "format": "uint64", "minimum": 0})
            }
            // 64 bits do not fit the numbers of JavaScript.
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => {
                json!({"type": "string", "format": "int64"})
            }
            Kind::Uint64 | Kind::Fixed64 => json!({"type": "string", "format": "uint64"}),
            Kind::Float => json!({"type": "number", "format": "float"}),
            Kind::Double => json!({"type": "number", "format": "double"}),
            Kind::Enum(descriptor) => self.enumeration(descriptor),
            // Nothing stands for null there.
            Kind::Message(wrapper)
                if place == Place::Url && codec::is_wrapper(wrapper.full_name()) =>
            {
                match wrapper.get_field(1) {
                    Some(value) => self.kind(&value.kind(), place),
                    None => json!({}),
                }
            }
            Kind::Message(descriptor) => self.message(descriptor),
        }
    }

    /// A reference to the schema of a message, which is made where it is not there; the schema itself
    /// for the types with a mapping of their own.
    pub(super) fn message(&mut self, message: &MessageDescriptor) -> Value {
        if let Some(schema) = well_known(message.full_name()) {
            return schema;
        }
        let name = message.full_name();
        if !self.components.contains_key(name) {
            // Before its fields, which may be of this type.
            self.components.insert(name.to_owned(), Value::Null);
            let schema = self.message_without(message, &[]);
            self.components.insert(name.to_owned(), schema);
        }
        reference(name)
    }

    /// The schema of a message without some fields, each named from the message down: those that a
    /// path gives are not asked for in the body.
    pub(super) fn message_without(
        &mut self,
        message: &MessageDescriptor,
        left_out: &[&[FieldDescriptor]],
    ) -> Value {
        let mut properties = Map::new();
        let mut required = Vec::new();
        for field in message.fields() {
            let within: Vec<_> = left_out
                .iter()
                .filter_map(|path| path.split_first())
                .filter_map(|(first, deeper)| (*first == field).then_some(deeper))
                .collect();
            let kind = field.kind();
            let schema = match (within.iter().any(|deeper| deeper.is_empty()), &kind) {
                (true, _) => continue,
                (_, Kind::Message(inner)) if !within.is_empty() => {
                    self.message_without(inner, &within)
                }
                _ => self.field(&field, Place::Json),
            };
            properties.insert(field.json_name().to_owned(), schema);
            if self.is_required(&field) {
                required.push(field.json_name().to_owned());
            }
        }
        let mut schema = json!({"type": "object", "properties": properties});
        if !required.is_empty() {
            schema["required"] = required.into();
        }
        describe(&mut schema, self.comments.message(message));
        schema
    }

    /// The schema of an error.
    pub(super) fn status(&mut self, pool: &DescriptorPool) -> Value {
        match pool.get_message_by_name("google.rpc.Status") {
            Some(status) => self.message(&status),
            None => json!({"type": "object"}),
        }
    }

    fn enumeration(&mut self, descriptor: &EnumDescriptor) -> Value {
        if descriptor.full_name() == "google.protobuf.NullValue" {
            return json!({"type": "null"});
        }
        let name = descriptor.full_name();
        if !self.components.contains_key(name) {
            let names: Vec<_> = descriptor
                .values()
                .map(|value| value.name().to_owned())
                .collect();
            let mut schema = json!({"type": "string", "enum": names});
            let mut description = self.comments.enumeration(descriptor).to_owned();
            for value in descriptor.values() {
                let comment = self.comments.enum_value(&value).replace('\n', " ");
                if !comment.is_empty() {
                    description.push_str(&format!("\n- `{}`: {comment}", value.name()));
                }
            }
            describe(&mut schema, description.trim_start());
            self.components.insert(name.to_owned(), schema);
        }
        reference(name)
    }
}

fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

/// Puts a description to a schema, if there is one.
pub(super) fn describe(schema: &mut Value, description: &str) {
    if !description.is_empty() {
        schema["description"] = description.into();
    }
}

fn well_known(name: &str) -> Option<Value> {
    Some(match name.strip_prefix("google.protobuf.")? {
        "Timestamp" => json!({"type": "string", "format": "date-time"}),
        "Duration" => json!({
            "type": "string",
            "pattern": "^-?[0-9]+([.][0-9]{1,9})?s$",
            "example": "3.5s",
        }),
        "FieldMask" => json!({"type": "string", "example": "name,child.longName"}),
        "Empty" => json!({"type": "object"}),
        "Struct" => json!({"type": "object", "additionalProperties": true}),
        "Value" => json!({}),
        "ListValue" => json!({"type": "array", "items": {}}),
        "Any" => json!({
            "type": "object",
            "properties": {
                "@type": {
                    "type": "string",
                    "description": "`type.googleapis.com/` and the full name of the message, whose fields stand beside this one.",
                },
            },
            "required": ["@type"],
            "additionalProperties": true,
        }),
        "BoolValue" => json!({"type": ["boolean", "null"]}),
        "StringValue" => json!({"type": ["string", "null"]}),
        "BytesValue" => json!({"type": ["string", "null"], "contentEncoding": "base64"}),
        "Int32Value" => json!({"type": ["integer", "null"], "format": "int32"}),
        "UInt32Value" => json!({"type": ["integer", "null"], "minimum": 0, "maximum": u32::MAX}),
        "Int64Value" => json!({"type": ["string", "null"], "format": "int64"}),
        "UInt64Value" => json!({"type": ["string", "null"], "format": "uint64"}),
        "FloatValue" => json!({"type": ["number", "null"], "format": "float"}),
        "DoubleValue" => json!({"type": ["number", "null"], "format": "double"}),
        _ => return None,
    })
}
