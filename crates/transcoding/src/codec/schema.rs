//! Descriptors as tables: everything that does not depend on a message is worked out once.

use std::collections::HashMap;

use prost_reflect::{
    DescriptorPool, EnumDescriptor, FieldDescriptor, Kind as FieldKind, MessageDescriptor,
};

use super::{
    json_text::{JsonText, Piece},
    settings::Settings,
    text,
    wire::{FIXED32, FIXED64, LENGTH, START_GROUP, VARINT},
};

/// All message and enum types of a pool.
pub(super) struct Schema {
    pub messages: Vec<Message>,
    pub enums: Vec<Enum>,
    names: Names<usize>,
}

/// A message type.
pub(super) struct Message {
    pub descriptor: MessageDescriptor,
    pub form: Form,
    /// By number.
    pub fields: Vec<Field>,
    /// How many oneofs have several members.
    pub oneofs: usize,
    /// JSON names and proto names, with the index of the field.
    names: Names<usize>,
}

/// How a message is written in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// As an object of its fields.
    Plain,
    Any,
    Timestamp,
    Duration,
    FieldMask,
    Struct,
    Value,
    ListValue,
    /// As the value of its only field.
    Wrapper,
    /// As an object without fields, which inside Any has a `value` like the other well-known types.
    Empty,
}

/// A field of a message.
pub(super) struct Field {
    pub number: u32,
    pub kind: Kind,
    pub shape: Shape,
    /// The tag of one value, in front of a list's only where it is not packed.
    pub tag: u32,
    /// Whether the field knows if it was set, so that a default value is written like any other.
    pub presence: bool,
    /// Whether it is one string outside of a oneof of several: what there is most of.
    pub is_text: bool,
    /// The index of the oneof, if that has several members.
    pub oneof: Option<usize>,
    /// The name in the proto file.
    pub name: String,
    /// The text before the value in JSON: `,"name":`.
    pub key: Piece,
    /// The JSON of the field where it is not set: `,"name":0`, or nothing.
    pub absent: Piece,
}

/// How many values a field has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    Single,
    List {
        packed: bool,
    },
    /// The field's kind is that of the values.
    Map {
        key: Kind,
    },
}

/// The type of one value; enums and messages by their index in the schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Int32,
    Int64,
    Uint32,
    Uint64,
    Sint32,
    Sint64,
    Fixed32,
    Fixed64,
    Sfixed32,
    Sfixed64,
    Float,
    Double,
    Bool,
    String,
    Bytes,
    Enum(usize),
    Message(usize),
    Group { message: usize, number: u32 },
}

/// An enum type.
pub(super) struct Enum {
    pub descriptor: EnumDescriptor,
    /// `google.protobuf.NullValue`.
    pub is_null: bool,
    /// Numbers with the names as JSON strings, by number.
    values: Vec<(i32, Piece)>,
    names: Names<i32>,
}

/// Names in the order of length and bytes.
struct Names<T>(Vec<(Box<str>, T)>);

impl<T: Copy> Names<T> {
    /// The first of equal names counts.
    fn new(names: impl IntoIterator<Item = (String, T)>) -> Self {
        let mut names: Vec<_> = names
            .into_iter()
            .map(|(name, value)| (name.into_boxed_str(), value))
            .collect();
        names.sort_by(|(left, _), (right, _)| (left.len(), left).cmp(&(right.len(), right)));
        names.dedup_by(|second, first| second.0 == first.0);
        Self(names)
    }

    fn find(&self, name: &str) -> Option<T> {
        let order = |(have, _): &(Box<str>, T)| (have.len(), &**have).cmp(&(name.len(), name));
        self.0.binary_search_by(order).ok().map(|at| self.0[at].1)
    }
}

impl Schema {
    pub(super) fn new(pool: &DescriptorPool, settings: &Settings) -> Self {
        let index = |(index, name): (usize, String)| (name, index);
        let name = |message: MessageDescriptor| message.full_name().to_owned();
        let indices: HashMap<_, _> = pool
            .all_messages()
            .map(name)
            .enumerate()
            .map(index)
            .collect();
        let enums = pool.all_enums();
        let enum_indices = enums.map(|enumeration| enumeration.full_name().to_owned());
        let enum_indices: HashMap<_, _> = enum_indices.enumerate().map(index).collect();
        let enums: Vec<_> = pool.all_enums().map(Enum::new).collect();
        let compiler = Compiler {
            messages: &indices,
            enum_indices: &enum_indices,
            enums: &enums,
            settings,
        };
        let messages = pool
            .all_messages()
            .map(|message| compiler.message(message))
            .collect();
        Self {
            messages,
            enums,
            names: Names::new(indices),
        }
    }

    /// The index of the type that an Any holds, or what is wrong with its type URL.
    pub(super) fn find_by_url(&self, type_url: &str) -> Result<usize, String> {
        let name = type_url.rsplit_once('/').map(|(_, name)| name);
        let name = name.ok_or_else(|| {
            format!("{type_url:?} is no type URL as in type.googleapis.com/package.Message")
        })?;
        self.find(name)
            .ok_or_else(|| format!("the message type {name:?} is not known"))
    }

    /// The index of a message type by its full name.
    pub(super) fn find(&self, full_name: &str) -> Option<usize> {
        self.names.find(full_name)
    }
}

impl Message {
    /// The index of a field by its number, tried first at `likely`.
    #[inline]
    pub(super) fn field_by_number(&self, number: u32, likely: usize) -> Option<usize> {
        match self.fields.get(likely) {
            Some(field) if field.number == number => Some(likely),
            _ => self
                .fields
                .binary_search_by_key(&number, |field| field.number)
                .ok(),
        }
    }

    /// The index of a field by its JSON name or proto name, tried first at `likely`.
    #[inline]
    pub(super) fn field_by_name(&self, name: &str, likely: usize) -> Option<usize> {
        match self.fields.get(likely) {
            Some(field) if is_key(field.key.as_bytes(), name) => Some(likely),
            _ => self.names.find(name),
        }
    }
}

/// Whether `,"name":` is the key of this name. Names of fields have nothing to escape.
#[inline]
fn is_key(key: &[u8], name: &str) -> bool {
    key.len() == name.len() + 4 && &key[2..key.len() - 2] == name.as_bytes()
}

impl Kind {
    /// The wire type of one value.
    pub(super) fn wire_type(self) -> u32 {
        match self {
            Self::Fixed32 | Self::Sfixed32 | Self::Float => FIXED32,
            Self::Fixed64 | Self::Sfixed64 | Self::Double => FIXED64,
            Self::String | Self::Bytes | Self::Message(_) => LENGTH,
            Self::Group { .. } => START_GROUP,
            _ => VARINT,
        }
    }

    /// Whether a list of these may be packed.
    pub(super) fn is_packable(self) -> bool {
        !matches!(self.wire_type(), LENGTH | START_GROUP)
    }

    /// The default of a kind that is neither enum nor message, in JSON.
    pub(super) fn default_json(self) -> &'static [u8] {
        match self {
            Self::Int64 | Self::Uint64 | Self::Sint64 | Self::Fixed64 | Self::Sfixed64 => b"\"0\"",
            Self::Float | Self::Double => b"0.0",
            Self::Bool => b"false",
            Self::String | Self::Bytes => b"\"\"",
            Self::Message(_) | Self::Group { .. } => b"{}",
            _ => b"0",
        }
    }
}

impl Enum {
    fn new(descriptor: EnumDescriptor) -> Self {
        let proto = descriptor.enum_descriptor_proto();
        let declared = || {
            let values = proto.value.iter();
            values.map(|value| (value.name().to_owned(), value.number()))
        };
        let mut values: Vec<_> = declared()
            .map(|(name, number)| (number, Piece::new(&text::quoted(&name))))
            .collect();
        // Stable: of several names of a number the first declared is written.
        values.sort_by_key(|(number, _)| *number);
        values.dedup_by_key(|(number, _)| *number);
        Self {
            is_null: descriptor.full_name() == "google.protobuf.NullValue",
            names: Names::new(declared()),
            values,
            descriptor,
        }
    }

    /// The name of a number as a JSON string.
    #[inline]
    pub(super) fn name_of(&self, number: i32) -> Option<&Piece> {
        // Most enums count from 0 on.
        let likely = usize::try_from(number).ok();
        let value = match likely.and_then(|at| self.values.get(at)) {
            Some(value) if value.0 == number => value,
            _ => {
                let at = self.values.binary_search_by_key(&number, |value| value.0);
                &self.values[at.ok()?]
            }
        };
        Some(&value.1)
    }

    pub(super) fn number_of(&self, name: &str) -> Option<i32> {
        self.names.find(name)
    }

    /// Writes a value by its name where it has one.
    #[inline]
    pub(super) fn put(&self, number: i32, as_number: bool, out: &mut JsonText) {
        if self.is_null {
            out.put(b"null");
            return;
        }
        match self.name_of(number) {
            Some(name) if !as_number => out.put_piece(name),
            _ => text::put_integer(number, out),
        }
    }
}

struct Compiler<'p> {
    messages: &'p HashMap<String, usize>,
    enum_indices: &'p HashMap<String, usize>,
    enums: &'p [Enum],
    settings: &'p Settings,
}

impl Compiler<'_> {
    fn message(&self, descriptor: MessageDescriptor) -> Message {
        let oneofs: Vec<_> = descriptor
            .oneofs()
            .filter(|oneof| oneof.fields().len() > 1)
            .collect();
        let mut fields = Vec::with_capacity(descriptor.fields().len());
        for field in descriptor.fields() {
            let oneof = field.containing_oneof();
            let oneof = oneof.and_then(|oneof| oneofs.iter().position(|one| *one == oneof));
            fields.push(self.field(&field, oneof));
        }
        let json_names = descriptor.fields().enumerate();
        let json_names = json_names.map(|(index, field)| (field.json_name().to_owned(), index));
        let names = descriptor.fields().enumerate();
        let names = names.map(|(index, field)| (field.name().to_owned(), index));
        Message {
            form: form(&descriptor, &fields),
            oneofs: oneofs.len(),
            names: Names::new(json_names.chain(names)),
            fields,
            descriptor,
        }
    }

    fn field(&self, descriptor: &FieldDescriptor, oneof: Option<usize>) -> Field {
        let number = descriptor.number();
        let (kind, shape) = match descriptor.kind() {
            FieldKind::Message(entry) if descriptor.is_map() => {
                let key = self.kind(&entry.map_entry_key_field());
                (
                    self.kind(&entry.map_entry_value_field()),
                    Shape::Map { key },
                )
            }
            _ if descriptor.is_list() => {
                let packed = descriptor.is_packed();
                (self.kind(descriptor), Shape::List { packed })
            }
            _ => (self.kind(descriptor), Shape::Single),
        };
        let wire_type = match shape {
            Shape::Map { .. } => LENGTH,
            _ => kind.wire_type(),
        };
        let presence = descriptor.supports_presence();
        let name = match self.settings.proto_names {
            true => descriptor.name(),
            false => descriptor.json_name(),
        };
        let mut key = vec![b','];
        key.extend_from_slice(&text::quoted(name));
        key.push(b':');
        let mut absent = JsonText::default();
        if self.settings.print_defaults && (!presence || shape != Shape::Single) {
            absent.put(&key);
            match shape {
                Shape::Single => self.put_default(kind, &mut absent),
                Shape::List { .. } => absent.put(b"[]"),
                Shape::Map { .. } => absent.put(b"{}"),
            }
        }
        Field {
            number,
            kind,
            shape,
            tag: number << 3 | wire_type,
            presence,
            is_text: shape == Shape::Single && kind == Kind::String && oneof.is_none(),
            oneof,
            name: descriptor.name().to_owned(),
            key: Piece::new(&key),
            absent: Piece::new(absent.as_bytes()),
        }
    }

    fn kind(&self, field: &FieldDescriptor) -> Kind {
        match field.kind() {
            FieldKind::Double => Kind::Double,
            FieldKind::Float => Kind::Float,
            FieldKind::Int32 => Kind::Int32,
            FieldKind::Int64 => Kind::Int64,
            FieldKind::Uint32 => Kind::Uint32,
            FieldKind::Uint64 => Kind::Uint64,
            FieldKind::Sint32 => Kind::Sint32,
            FieldKind::Sint64 => Kind::Sint64,
            FieldKind::Fixed32 => Kind::Fixed32,
            FieldKind::Fixed64 => Kind::Fixed64,
            FieldKind::Sfixed32 => Kind::Sfixed32,
            FieldKind::Sfixed64 => Kind::Sfixed64,
            FieldKind::Bool => Kind::Bool,
            FieldKind::String => Kind::String,
            FieldKind::Bytes => Kind::Bytes,
            // A pool holds the types of all its fields.
            FieldKind::Message(message) if field.is_group() => Kind::Group {
                message: self.messages[message.full_name()],
                number: field.number(),
            },
            FieldKind::Message(message) => Kind::Message(self.messages[message.full_name()]),
            FieldKind::Enum(enumeration) => Kind::Enum(self.enum_indices[enumeration.full_name()]),
        }
    }

    /// Puts the default of a kind without presence.
    fn put_default(&self, kind: Kind, out: &mut JsonText) {
        match kind {
            Kind::Enum(index) => {
                self.enums[index].put(0, self.settings.enum_numbers, out);
            }
            kind => out.put(kind.default_json()),
        }
    }
}

/// The form of a message; a type that only has the name of a well-known one is a plain one.
fn form(descriptor: &MessageDescriptor, fields: &[Field]) -> Form {
    let only = match fields {
        [field] if field.number == 1 => Some(field.shape),
        _ => None,
    };
    match (descriptor.full_name(), only) {
        ("google.protobuf.Any", _) => Form::Any,
        ("google.protobuf.Timestamp", _) => Form::Timestamp,
        ("google.protobuf.Duration", _) => Form::Duration,
        ("google.protobuf.FieldMask", _) => Form::FieldMask,
        ("google.protobuf.Struct", Some(Shape::Map { .. })) => Form::Struct,
        ("google.protobuf.ListValue", Some(Shape::List { .. })) => Form::ListValue,
        ("google.protobuf.Value", _) if fields.len() == 6 => Form::Value,
        ("google.protobuf.Empty", _) => Form::Empty,
        (name, Some(Shape::Single)) if is_wrapper(name) => Form::Wrapper,
        _ => Form::Plain,
    }
}

/// Whether a type is one of the wrappers, by its full name.
pub(crate) fn is_wrapper(name: &str) -> bool {
    matches!(
        name,
        "google.protobuf.FloatValue"
            | "google.protobuf.DoubleValue"
            | "google.protobuf.Int32Value"
            | "google.protobuf.Int64Value"
            | "google.protobuf.UInt32Value"
            | "google.protobuf.UInt64Value"
            | "google.protobuf.BoolValue"
            | "google.protobuf.StringValue"
            | "google.protobuf.BytesValue"
    )
}
