//! JSON texts to messages and back, by the protobuf JSON mapping, through prost-reflect.

use prost_reflect::{
    DeserializeOptions, DynamicMessage, FieldDescriptor, MessageDescriptor, SerializeOptions,
};

use super::{json_check, rejection::shortened};

/// Why a text is not the message asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{what} (line {line}, column {column}{}): {problem}",
    .field.as_ref().map(|field| format!(", field \"{field}\"")).unwrap_or_default()
)]
pub struct JsonError {
    what: &'static str,
    line: usize,
    column: usize,
    /// What is wrong.
    pub problem: String,
    /// The field concerned, by the names the client wrote, as `a.b[0].c`.
    pub field: Option<String>,
}

/// Reads a message: unknown and repeated names, trailing text, too much depth are errors.
pub fn read(text: &[u8], message: &MessageDescriptor) -> Result<DynamicMessage, JsonError> {
    let text = utf8(text)?;
    read_text(text, message).map_err(|error| JsonError::new(&error, text, 0))
}

/// Reads the value of one field of a message into a new message that has nothing else.
pub fn read_field(text: &[u8], field: &FieldDescriptor) -> Result<DynamicMessage, JsonError> {
    let text = utf8(text)?;
    // Alone first, so that what follows is known to be one value.
    serde_json::from_str::<serde::de::IgnoredAny>(text)
        .map_err(|error| JsonError::new(&error, text, 0))?;
    let name = field.name();
    let prefix = format!("{{\"{name}\":");
    let wrapped = format!("{prefix}{text}}}");
    read_text(&wrapped, field.parent_message())
        .map_err(|error| JsonError::new(&error, &wrapped, prefix.len()))
}

/// Writes a message: default scalars and enums, empty lists and maps are printed, what is unset and
/// has presence is not; 64-bit integers are strings.
pub fn write(message: &DynamicMessage) -> Result<Vec<u8>, serde_json::Error> {
    let mut text = Vec::with_capacity(512);
    let options = SerializeOptions::new().skip_default_fields(false);
    message.serialize_with_options(&mut serde_json::Serializer::new(&mut text), &options)?;
    Ok(text)
}

fn utf8(text: &[u8]) -> Result<&str, JsonError> {
    std::str::from_utf8(text).map_err(|error| {
        let before = &text[..error.valid_up_to()];
        let line_start = before.iter().rposition(|byte| *byte == b'\n');
        JsonError {
            what: "the body is not valid JSON",
            line: before.iter().filter(|byte| **byte == b'\n').count() + 1,
            column: before.len() - line_start.map_or(0, |newline| newline + 1) + 1,
            problem: "not valid UTF-8".to_owned(),
            field: None,
        }
    })
}

fn read_text(text: &str, message: &MessageDescriptor) -> Result<DynamicMessage, serde_json::Error> {
    json_check::check(text, message)?;
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let options = DeserializeOptions::new().deny_unknown_fields(true);
    let message =
        DynamicMessage::deserialize_with_options(message.clone(), &mut deserializer, &options)?;
    deserializer.end()?;
    Ok(message)
}

impl JsonError {
    /// `shift` is how much of the first line the client did not write.
    fn new(error: &serde_json::Error, text: &str, shift: usize) -> Self {
        let (line, column) = (error.line(), error.column());
        let full = error.to_string();
        let position = format!(" at line {line} column {column}");
        let problem = full.strip_suffix(&position).unwrap_or(&full);
        Self {
            what: match error.classify() {
                serde_json::error::Category::Data => "the body does not fit the request",
                _ => "the body is not valid JSON",
            },
            line,
            column: match line {
                1 => column.saturating_sub(shift),
                _ => column,
            },
            problem: shortened(problem),
            field: path_at(text, line, column),
        }
    }
}

/// The member of a JSON text at a position: line and column counted from 1, the column in bytes.
/// The text need not be valid behind it.
fn path_at(text: &str, line: usize, column: usize) -> Option<String> {
    enum Level {
        Object {
            name: Option<String>,
            before_colon: bool,
        },
        List {
            index: usize,
        },
    }
    let line_start = match line {
        0 | 1 => 0,
        _ => text.match_indices('\n').nth(line - 2)?.0 + 1,
    };
    // The last byte read may already be what comes after the member.
    let end = (line_start + column).saturating_sub(1);
    let bytes = text.as_bytes();
    let mut levels = Vec::new();
    let mut at = 0;
    while at < end.min(bytes.len()) {
        match bytes[at] {
            b'{' => levels.push(Level::Object {
                name: None,
                before_colon: true,
            }),
            b'[' => levels.push(Level::List { index: 0 }),
            b'}' | b']' => {
                levels.pop();
            }
            b':' => {
                if let Some(Level::Object { before_colon, .. }) = levels.last_mut() {
                    *before_colon = false;
                }
            }
            b',' => match levels.last_mut() {
                Some(Level::Object { name, before_colon }) => {
                    *name = None;
                    *before_colon = true;
                }
                Some(Level::List { index }) => *index += 1,
                None => {}
            },
            b'"' => {
                let start = at;
                at += 1;
                while at < bytes.len() && bytes[at] != b'"' {
                    at += if bytes[at] == b'\\' { 2 } else { 1 };
                }
                if let Some(Level::Object { name, before_colon }) = levels.last_mut()
                    && *before_colon
                {
                    *name = text
                        .get(start..=at)
                        .and_then(|literal| serde_json::from_str(literal).ok());
                }
            }
            _ => {}
        }
        at += 1;
    }
    let mut path = String::new();
    for level in levels {
        match level {
            Level::Object { name, .. } => {
                let Some(name) = name else { break };
                if !path.is_empty() {
                    path.push('.');
                }
                path.push_str(&name);
            }
            // A list at the top has no name to stand behind.
            Level::List { index } if !path.is_empty() => path.push_str(&format!("[{index}]")),
            Level::List { .. } => {}
        }
    }
    (!path.is_empty()).then(|| shortened(&path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_named_by_its_field() {
        let text = "{\"a\": {\"b,\\\"\": [1, {\"c\": 2}]},\n \"d\": \"x:{\", \"e\": 3}";
        let cases = [
            ("1, {", Some("a.b,\"[0]")),
            ("2}]", Some("a.b,\"[1].c")),
            ("x:{", Some("d")),
            ("3}", Some("e")),
            ("{\"a", None),
        ];
        for (place, expected) in cases {
            let offset = text.find(place).expect("the place is in the text");
            let line = text[..offset].matches('\n').count() + 1;
            let column = offset - text[..offset].rfind('\n').map_or(0, |at| at + 1) + 1;
            let path = path_at(text, line, column);
            assert_eq!(path.as_deref(), expected, "{place}");
        }
    }
}
