//! Limits of the values of a field, beyond those of its type, in words of JSON Schema.

use prost_reflect::FieldDescriptor;
use serde_json::{Value, json};

/// Inclusive bounds, either of which may be open.
pub type Bounds = (Option<i64>, Option<i64>);

/// Limits of the values of a field. The limits of a value are those of each element where the field is a list,
/// and of each value where it is a map.
#[derive(Debug, Clone, Default)]
pub struct Limits {
    /// Whether a request must have it.
    pub required: bool,
    /// The value of a number.
    pub value: Bounds,
    /// How many elements a list or a map has.
    pub size: Bounds,
    /// How many characters a text has.
    pub length: Bounds,
    /// A regular expression that the whole of a text matches.
    pub pattern: Option<String>,
    /// The length of the keys of a map.
    pub key_length: Bounds,
    /// A regular expression that the keys of a map match.
    pub key_pattern: Option<String>,
}

impl Limits {
    /// Puts the limits of a field into its schema.
    pub(super) fn apply(&self, field: &FieldDescriptor, schema: &mut Value) {
        let value = if field.is_map() {
            bound(schema, ["minProperties", "maxProperties"], self.size);
            let mut names = json!({});
            text(&mut names, self.key_length, self.key_pattern.as_deref());
            if names != json!({}) {
                schema["propertyNames"] = names;
            }
            &mut schema["additionalProperties"]
        } else if field.is_list() {
            bound(schema, ["minItems", "maxItems"], self.size);
            &mut schema["items"]
        } else {
            schema
        };
        // 64 bits are a string, of which readers of schemas hold no bounds; people read them all the same.
        bound(value, ["minimum", "maximum"], self.value);
        text(value, self.length, self.pattern.as_deref());
    }

    /// The bounds of a number as a sentence, which holds for one in a string, too.
    pub(super) fn value_in_words(&self) -> Option<String> {
        match self.value {
            (None, None) => None,
            (Some(least), None) => Some(format!("At least {least}.")),
            (None, Some(most)) => Some(format!("At most {most}.")),
            (Some(least), Some(most)) => Some(format!("From {least} to {most}.")),
        }
    }
}

fn text(schema: &mut Value, length: Bounds, pattern: Option<&str>) {
    bound(schema, ["minLength", "maxLength"], length);
    if let Some(pattern) = pattern {
        // JSON Schema looks for a match anywhere.
        schema["pattern"] = format!("^(?:{pattern})$").into();
    }
}

fn bound(schema: &mut Value, [least, most]: [&str; 2], bounds: Bounds) {
    for (keyword, bound) in [(least, bounds.0), (most, bounds.1)] {
        if let Some(bound) = bound {
            schema[keyword] = bound.into();
        }
    }
}
