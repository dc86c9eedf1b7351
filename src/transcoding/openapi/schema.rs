//! JSON schemas of messages by the protobuf JSON mapping.

use std::collections::BTreeMap;

use prost_reflect::{EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor};
use serde_json::{Map, Value, json};

use super::comments::Comments;

/// Schemas of the messages and enums that were referred to, by full name.
pub struct Schemas<'c> {
    pub comments: &'c Comments,
    components: BTreeMap<String, Value>,
}

impl<'c> Schemas<'c> {
    pub fn new(comments: &'c Comments) -> Self {
        Self {
            comments,
            components: BTreeMap::new(),
        }
    }

    pub fn into_components(self) -> Map<String, Value> {
        self.components.into_iter().collect()
    }

    /// The schema of a field's value, with its comment.
    pub fn field(&mut self, field: &FieldDescriptor) -> Value {
        let mut schema = match field.kind() {
            Kind::Message(entry) if field.is_map() => {
                let values = self.kind(&entry.map_entry_value_field().kind());
                json!({"type": "object", "additionalProperties": values})
            }
            kind if field.is_list() => json!({"type": "array", "items": self.kind(&kind)}),
            kind => self.kind(&kind),
        };
        let mut description = self.comments.field(field).to_owned();
        if let Some(oneof) = field.containing_oneof()
            && !oneof.is_synthetic()
        {
            let names: Vec<_> = oneof
                .fields()
                .map(|field| format!("`{}`", field.json_name()))
                .collect();
            if !description.is_empty() {
                description.push_str("\n\n");
            }
            description.push_str(&format!("Only one of {} can be set.", names.join(", ")));
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
    pub fn kind(&mut self, kind: &Kind) -> Value {
        match kind {
            Kind::String => json!({"type": "string"}),
            Kind::Bytes => json!({"type": "string", "contentEncoding": "base64"}),
            Kind::Bool => json!({"type": "boolean"}),
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => {
                json!({"type": "integer", "format": "int32"})
            }
            Kind::Uint32 | Kind::Fixed32 => {
                json!({"type": "integer", "minimum": 0, "maximum": u32::MAX})
            }
            // 64 bits do not fit the numbers of JavaScript.
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => {
                json!({"type": "string", "format": "int64"})
            }
            Kind::Uint64 | Kind::Fixed64 => json!({"type": "string", "format": "uint64"}),
            Kind::Float => json!({"type": "number", "format": "float"}),
            Kind::Double => json!({"type": "number", "format": "double"}),
            Kind::Enum(descriptor) => self.enumeration(descriptor),
            Kind::Message(descriptor) => self.message(descriptor),
        }
    }

    /// A reference to the schema of a message, which is made where it is not there; the schema itself
    /// for the types with a mapping of their own.
    pub fn message(&mut self, message: &MessageDescriptor) -> Value {
        if let Some(schema) = well_known(message.full_name()) {
            return schema;
        }
        let name = message.full_name();
        if !self.components.contains_key(name) {
            // Before its fields, which may be of this type.
            self.components.insert(name.to_owned(), Value::Null);
            let properties: Map<_, _> = message
                .fields()
                .map(|field| (field.json_name().to_owned(), self.field(&field)))
                .collect();
            let mut schema = json!({"type": "object", "properties": properties});
            describe(&mut schema, self.comments.message(message));
            self.components.insert(name.to_owned(), schema);
        }
        reference(name)
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
pub fn describe(schema: &mut Value, description: &str) {
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
            "examples": ["3.5s"],
        }),
        "FieldMask" => json!({"type": "string", "examples": ["name,child.longName"]}),
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
