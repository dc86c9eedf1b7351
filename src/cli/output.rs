//! The output of commands: messages and lists as text for people, JSON or YAML for programs.

use std::io::Write;

use prost::{Message, Name};
use prost_reflect::{DynamicMessage, Kind, MessageDescriptor, ReflectMessage, SerializeOptions};
use prost_types::{Any, Timestamp};
use serde::{Serialize, Serializer};
use serde_norway::Value;

use super::errors::{Error, Result};
use crate::contract::{descriptor, descriptor_pool};

/// How results are printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    /// Tables and `key: value` lines for people
    #[default]
    Text,
    /// The standard JSON mapping of protobuf
    Json,
    /// The same as YAML
    Yaml,
}

/// Writes a text to the standard output.
pub(super) fn print(text: &str) -> Result<()> {
    let mut output = std::io::stdout().lock();
    output
        .write_all(text.as_bytes())
        .and_then(|()| output.flush())
        .map_err(|error| Error::output(&error))
}

/// Prints one message.
pub(super) fn print_message<M: Message + Name>(format: Format, message: &M) -> Result<()> {
    print(&render(format, &dynamic(message)?)?)
}

/// Writes a line to the standard error. Where that is closed, nobody can be told.
pub(super) fn complain(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// One message of a stream: JSON in one line, or a document of YAML.
pub(super) fn streamed<M: Message + Name>(format: Format, message: &M) -> Result<String> {
    let message = dynamic(message)?;
    match format {
        Format::Json => serde_json::to_string(&standard(&message)?)
            .map(|text| text + "\n")
            .map_err(|error| Error::failed("cannot print the result", &error)),
        Format::Text | Format::Yaml => Ok(format!("---\n{}", render(format, &message)?)),
    }
}

/// Prints a list: rows of text under a heading, or an array of the messages.
pub(super) fn print_list<M: Message + Name, const COLUMNS: usize>(
    format: Format,
    items: &[M],
    heading: [&str; COLUMNS],
    row: impl Fn(&M) -> [String; COLUMNS],
) -> Result<()> {
    if format == Format::Text {
        let rows: Vec<_> = items.iter().map(row).collect();
        return print(&table(heading, &rows));
    }
    let items: Vec<_> = items.iter().map(dynamic).collect::<Result<_>>()?;
    let values: Vec<_> = items.iter().map(standard).collect::<Result<_>>()?;
    print(&encoded(format, &values)?)
}

/// The message within an `Any`, by the descriptors of the contract.
pub(super) fn unpacked(any: &Any) -> Result<DynamicMessage> {
    let name = any.type_url.rsplit('/').next().unwrap_or_default();
    let descriptor = descriptor_pool()
        .get_message_by_name(name)
        .ok_or_else(|| Error::Failed(format!("the server sent an unknown type, {name:?}")))?;
    DynamicMessage::decode(descriptor, any.value.as_slice())
        .map_err(|error| Error::failed("cannot read what the server sent", &error))
}

/// A message in a format, with a line break at its end.
pub(super) fn render(format: Format, message: &DynamicMessage) -> Result<String> {
    match format {
        Format::Text => encoded(Format::Yaml, &ordered(&Readable(message), message)?),
        Format::Json | Format::Yaml => encoded(format, &standard(message)?),
    }
}

/// A generated message as one that its descriptor describes.
pub(super) fn dynamic<M: Message + Name>(message: &M) -> Result<DynamicMessage> {
    let mut dynamic = DynamicMessage::new(descriptor::<M>());
    dynamic
        .transcode_from(message)
        .map_err(|error| Error::failed("cannot read what the server sent", &error))?;
    Ok(dynamic)
}

/// A value in a format, with a line break at its end.
pub(super) fn value(format: Format, value: &serde_json::Value) -> Result<String> {
    encoded(format, value)
}

fn encoded(format: Format, value: &impl Serialize) -> Result<String> {
    let failed = |error: &dyn std::error::Error| Error::failed("cannot print the result", error);
    match format {
        Format::Json => serde_json::to_string_pretty(value)
            .map(|text| text + "\n")
            .map_err(|error| failed(&error)),
        Format::Text | Format::Yaml => {
            serde_norway::to_string(value).map_err(|error| failed(&error))
        }
    }
}

/// The standard JSON mapping, with defaults.
struct Standard<'a>(&'a DynamicMessage);

impl Serialize for Standard<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let options = SerializeOptions::new().skip_default_fields(false);
        self.0.serialize_with_options(serializer, &options)
    }
}

/// The form for people: the fields that are set, by the names of the contract, numbers as numbers.
struct Readable<'a>(&'a DynamicMessage);

impl Serialize for Readable<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let options = SerializeOptions::new()
            .use_proto_field_name(true)
            .stringify_64_bit_integers(false);
        self.0.serialize_with_options(serializer, &options)
    }
}

fn standard(message: &DynamicMessage) -> Result<Value> {
    ordered(&Standard(message), message)
}

/// A message as its serialization has it, but for its maps, whose entries are in the order of their keys:
/// equal messages are printed equally.
fn ordered(serialized: &impl Serialize, message: &DynamicMessage) -> Result<Value> {
    let mut value = serde_norway::to_value(serialized)
        .map_err(|error| Error::failed("cannot print the result", &error))?;
    sort_maps(&mut value, &message.descriptor());
    Ok(value)
}

fn sort_maps(value: &mut Value, message: &MessageDescriptor) {
    let within = value.get("@type").and_then(Value::as_str);
    let within = within.and_then(|url| {
        let name = url.rsplit('/').next()?;
        descriptor_pool().get_message_by_name(name)
    });
    let message = within.as_ref().unwrap_or(message);
    for (name, value) in value.as_mapping_mut().into_iter().flatten() {
        let name = name.as_str().unwrap_or_default();
        let field = message.get_field_by_json_name(name);
        let Some(field) = field.or_else(|| message.get_field_by_name(name)) else {
            continue;
        };
        let Kind::Message(inner) = field.kind() else {
            continue;
        };
        if field.is_map() {
            if let Some(entries) = value.as_mapping_mut() {
                let mut sorted: Vec<_> = std::mem::take(entries).into_iter().collect();
                sorted.sort_by(|(one, _), (other, _)| one.as_str().cmp(&other.as_str()));
                entries.extend(sorted);
            }
            if let Kind::Message(inner) = inner.map_entry_value_field().kind() {
                for (_, value) in value.as_mapping_mut().into_iter().flatten() {
                    sort_maps(value, &inner);
                }
            }
        } else if let Some(items) = value.as_sequence_mut() {
            for item in items {
                sort_maps(item, &inner);
            }
        } else {
            sort_maps(value, &inner);
        }
    }
}

fn table<const COLUMNS: usize>(heading: [&str; COLUMNS], rows: &[[String; COLUMNS]]) -> String {
    let rows: Vec<[String; COLUMNS]> = std::iter::once(heading.map(str::to_owned))
        .chain(rows.iter().map(|row| row.clone().map(|cell| shown(&cell))))
        .collect();
    let mut widths = [0; COLUMNS];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            line.push_str(&format!("{cell:<width$}  "));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// A cell of a table: something where there is nothing, and nothing that a terminal obeys.
fn shown(cell: &str) -> String {
    match cell {
        "" => "-".to_owned(),
        cell => without_controls(cell),
    }
}

/// A text without the characters that move a terminal's cursor or change its colours; line breaks
/// are escaped too.
pub(super) fn without_controls(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for character in text.chars() {
        match character.is_control() {
            true => clean.extend(character.escape_default()),
            false => clean.push(character),
        }
    }
    clean
}

/// A time to the second, in UTC; empty when unset.
pub(super) fn time(time: Option<&Timestamp>) -> String {
    time.map_or_else(String::new, |time| {
        Timestamp {
            seconds: time.seconds,
            nanos: 0,
        }
        .to_string()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::yandex::cloud::clouddesktop::v1::api::DesktopImage;
    use crate::contract::yandex::cloud::operation::{Operation, operation};

    fn image() -> DesktopImage {
        DesktopImage {
            id: "e3v1".to_owned(),
            folder_id: "f".to_owned(),
            created_at: Some(Timestamp {
                seconds: 1_700_000_000,
                nanos: 0,
            }),
            status: 2,
            name: "windows".to_owned(),
            labels: [("a".to_owned(), "b".to_owned())].into(),
            storage_size: 0,
            min_disk_size: 64 << 20,
            description: String::new(),
        }
    }

    #[test]
    fn json_is_the_standard_mapping_in_the_order_of_the_contract() {
        let text = render(Format::Json, &dynamic(&image()).unwrap()).unwrap();
        assert_eq!(
            text,
            r#"{
  "id": "e3v1",
  "folderId": "f",
  "createdAt": "2023-11-14T22:13:20Z",
  "status": "ACTIVE",
  "name": "windows",
  "labels": {
    "a": "b"
  },
  "storageSize": "0",
  "minDiskSize": "67108864",
  "description": ""
}
"#
        );
    }

    #[test]
    fn labels_are_printed_in_the_order_of_their_keys_whatever_holds_them() {
        let letters = "qwertyuiopasdfghjklzxcvbnm"
            .split("")
            .filter(|it| !it.is_empty());
        let image = DesktopImage {
            labels: letters.map(|it| (it.to_owned(), "v".to_owned())).collect(),
            ..image()
        };
        let operation = Operation {
            result: Some(operation::Result::Response(Any::from_msg(&image).unwrap())),
            ..Operation::default()
        };
        // The order within a hash map differs from one map to the next.
        for _ in 0..5 {
            let (image, operation) = (dynamic(&image).unwrap(), dynamic(&operation).unwrap());
            for message in [image, operation] {
                for format in [Format::Text, Format::Json, Format::Yaml] {
                    let text = render(format, &message).unwrap();
                    let keys: Vec<&str> = text
                        .lines()
                        .filter_map(|line| line.trim().trim_end_matches(',').split_once(": "))
                        .filter(|(_, value)| value.trim_matches('"') == "v")
                        .map(|(key, _)| key.trim_matches(['"', '\'']))
                        .collect();
                    assert_eq!(keys.len(), 26, "{text}");
                    assert!(keys.is_sorted(), "{text}");
                }
            }
        }
    }

    #[test]
    fn yaml_says_the_same_as_json() {
        let message = dynamic(&image()).unwrap();
        let json: serde_json::Value =
            serde_json::from_str(&render(Format::Json, &message).unwrap()).unwrap();
        let yaml: serde_json::Value =
            serde_norway::from_str(&render(Format::Yaml, &message).unwrap()).unwrap();
        assert_eq!(json, yaml);
    }

    #[test]
    fn text_has_what_is_set_one_to_a_line() {
        let text = render(Format::Text, &dynamic(&image()).unwrap()).unwrap();
        assert_eq!(
            text,
            "id: e3v1\nfolder_id: f\ncreated_at: 2023-11-14T22:13:20Z\nstatus: ACTIVE\n\
             name: windows\nlabels:\n  a: b\nmin_disk_size: 67108864\n"
        );
    }

    #[test]
    fn what_an_operation_holds_is_printed_by_its_type() {
        let any = Any::from_msg(&image()).unwrap();
        let operation = Operation {
            id: "e3v2".to_owned(),
            done: true,
            result: Some(operation::Result::Response(any.clone())),
            ..Operation::default()
        };
        let text = render(Format::Json, &dynamic(&operation).unwrap()).unwrap();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            value["response"]["@type"],
            "type.googleapis.com/yandex.cloud.clouddesktop.v1.api.DesktopImage"
        );
        assert_eq!(value["response"]["name"], "windows");
        assert_eq!(unpacked(&any).unwrap(), dynamic(&image()).unwrap());
        let unknown = Any {
            type_url: "type.googleapis.com/unknown.Type".to_owned(),
            value: Vec::new(),
        };
        assert!(unpacked(&unknown).is_err());
    }

    #[test]
    fn columns_are_aligned_and_control_nothing() {
        let rows = [
            ["1".to_owned(), "имя".to_owned(), String::new()],
            ["22".to_owned(), "a\x1b[2J\nb".to_owned(), "x".to_owned()],
        ];
        assert_eq!(
            table(["ID", "NAME", "END"], &rows),
            "ID  NAME           END\n1   имя            -\n22  a\\u{1b}[2J\\nb  x\n"
        );
    }
}
