//! Random message types and random messages of them, made of a tape of choices: what proptest makes
//! shorter and smaller makes them simpler.

use prost::Message;
use prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor,
    ReflectMessage, Value,
};
use prost_types::{
    DescriptorProto, EnumDescriptorProto, EnumValueDescriptorProto, FieldDescriptorProto,
    FieldOptions, FileDescriptorProto, MessageOptions, OneofDescriptorProto,
    field_descriptor_proto::{Label, Type},
};

/// Choices made one after the other; behind the end each is the first.
pub(super) struct Tape<'t> {
    choices: &'t [u32],
}

impl<'t> Tape<'t> {
    pub(super) fn new(choices: &'t [u32]) -> Self {
        Self { choices }
    }

    pub(super) fn next(&mut self) -> u32 {
        match self.choices.split_first() {
            Some((choice, rest)) => {
                self.choices = rest;
                *choice
            }
            None => 0,
        }
    }

    pub(super) fn below(&mut self, bound: u32) -> u32 {
        self.next() % bound
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u32) as usize].clone()
    }

    fn next_64(&mut self) -> u64 {
        u64::from(self.next()) << 32 | u64::from(self.next())
    }
}

const WELL_KNOWN: [&str; 17] = [
    "Timestamp",
    "Duration",
    "FieldMask",
    "Struct",
    "Value",
    "ListValue",
    "Any",
    "Empty",
    "BoolValue",
    "BytesValue",
    "DoubleValue",
    "FloatValue",
    "Int32Value",
    "Int64Value",
    "StringValue",
    "UInt32Value",
    "UInt64Value",
];

const SCALARS: [Type; 15] = [
    Type::Int32,
    Type::Int64,
    Type::Uint32,
    Type::Uint64,
    Type::Sint32,
    Type::Sint64,
    Type::Fixed32,
    Type::Fixed64,
    Type::Sfixed32,
    Type::Sfixed64,
    Type::Float,
    Type::Double,
    Type::Bool,
    Type::String,
    Type::Bytes,
];

const KEYS: [Type; 12] = [
    Type::String,
    Type::Int32,
    Type::Int64,
    Type::Uint32,
    Type::Uint64,
    Type::Sint32,
    Type::Sint64,
    Type::Fixed32,
    Type::Fixed64,
    Type::Sfixed32,
    Type::Sfixed64,
    Type::Bool,
];

/// How many message types a random file has.
const MESSAGES: u32 = 3;

/// The well-known types, and the messages `r.M0` to `r.M2` with random fields.
pub(super) fn pool(tape: &mut Tape<'_>) -> DescriptorPool {
    let mut pool = DescriptorPool::global();
    let value = |(name, number): (&str, i32)| EnumValueDescriptorProto {
        name: Some(name.to_owned()),
        number: Some(number),
        options: None,
    };
    let mut dependency: Vec<_> = pool.files().map(|file| file.name().to_owned()).collect();
    dependency.retain(|name| name.starts_with("google/protobuf/"));
    let file = FileDescriptorProto {
        name: Some("random.proto".to_owned()),
        package: Some("r".to_owned()),
        dependency,
        message_type: (0..MESSAGES)
            .map(|index| message_type(index, tape))
            .collect(),
        enum_type: vec![EnumDescriptorProto {
            name: Some("E".to_owned()),
            value: [("ZERO", 0), ("ONE", 1), ("FAR", 1000), ("NEGATIVE", -5)]
                .map(value)
                .to_vec(),
            ..Default::default()
        }],
        syntax: Some("proto3".to_owned()),
        ..Default::default()
    };
    pool.add_file_descriptor_proto(file)
        .expect("the file is right");
    pool
}

fn message_type(index: u32, tape: &mut Tape<'_>) -> DescriptorProto {
    let mut message = DescriptorProto {
        name: Some(format!("M{index}")),
        ..Default::default()
    };
    let (mut number, mut oneof) = (0, None);
    let mut optional = Vec::new();
    for at in 0..1 + tape.below(12) {
        // Numbers whose tags take one, two and three bytes, and gaps.
        number += match tape.below(8) {
            7 => 3000,
            6 => 17,
            step => 1 + step as i32 / 3,
        };
        // Names of one letter and with what camel case does to underscores and digits.
        let name = match tape.below(4) {
            0 => format!("f{at}"),
            1 => format!("long_name_{at}"),
            2 => format!("x_{at}y"),
            _ => format!("Upper_{at}_"),
        };
        let mut field = FieldDescriptorProto {
            name: Some(name),
            number: Some(number),
            label: Some(Label::Optional.into()),
            ..Default::default()
        };
        set_type(&mut field, tape);
        match tape.below(8) {
            0..=2 => oneof = None,
            3 | 4 => {
                oneof = None;
                field.label = Some(Label::Repeated.into());
                let is_packable =
                    !matches!(field.r#type(), Type::String | Type::Bytes | Type::Message);
                if is_packable && tape.below(3) == 2 {
                    field.options = Some(FieldOptions {
                        packed: Some(false),
                        ..Default::default()
                    });
                }
            }
            5 => {
                oneof = None;
                make_map(&mut message, &mut field, tape);
            }
            6 => {
                let index = *oneof.get_or_insert_with(|| {
                    message.oneof_decl.push(OneofDescriptorProto {
                        name: Some(format!("o{at}")),
                        options: None,
                    });
                    message.oneof_decl.len() as i32 - 1
                });
                field.oneof_index = Some(index);
            }
            _ => {
                oneof = None;
                field.proto3_optional = Some(true);
                optional.push(message.field.len());
            }
        }
        message.field.push(field);
    }
    // The oneofs that `optional` stands for come last.
    for at in optional {
        message.field[at].oneof_index = Some(message.oneof_decl.len() as i32);
        message.oneof_decl.push(OneofDescriptorProto {
            name: Some(format!("_{}", message.field[at].name())),
            options: None,
        });
    }
    message
}

fn set_type(field: &mut FieldDescriptorProto, tape: &mut Tape<'_>) {
    let (kind, name) = match tape.below(9) {
        0..=4 => (tape.pick(&SCALARS), None),
        5 => (
            Type::Enum,
            Some(
                tape.pick(&[".r.E", ".google.protobuf.NullValue"])
                    .to_owned(),
            ),
        ),
        6 => (Type::Message, Some(format!(".r.M{}", tape.below(MESSAGES)))),
        _ => (
            Type::Message,
            Some(format!(".google.protobuf.{}", tape.pick(&WELL_KNOWN))),
        ),
    };
    field.r#type = Some(kind.into());
    field.type_name = name;
}

fn make_map(message: &mut DescriptorProto, field: &mut FieldDescriptorProto, tape: &mut Tape<'_>) {
    // The name that the compiler gives to the type of entries.
    let mut entry = String::new();
    let mut upper = true;
    for letter in field.name().chars() {
        match letter {
            '_' => upper = true,
            letter if upper => {
                entry.push(letter.to_ascii_uppercase());
                upper = false;
            }
            letter => entry.push(letter),
        }
    }
    entry.push_str("Entry");
    let part = |name: &str, number| FieldDescriptorProto {
        name: Some(name.to_owned()),
        number: Some(number),
        label: Some(Label::Optional.into()),
        ..Default::default()
    };
    let key = FieldDescriptorProto {
        r#type: Some(tape.pick(&KEYS).into()),
        ..part("key", 1)
    };
    let value = FieldDescriptorProto {
        r#type: field.r#type,
        type_name: field.type_name.take(),
        ..part("value", 2)
    };
    field.r#type = Some(Type::Message.into());
    field.type_name = Some(format!(".r.{}.{entry}", message.name()));
    field.label = Some(Label::Repeated.into());
    message.nested_type.push(DescriptorProto {
        name: Some(entry),
        field: vec![key, value],
        options: Some(MessageOptions {
            map_entry: Some(true),
            ..Default::default()
        }),
        ..Default::default()
    });
}

/// A message that has a form in JSON.
pub(super) fn message(
    descriptor: &MessageDescriptor,
    levels: u32,
    tape: &mut Tape<'_>,
) -> DynamicMessage {
    let mut message = DynamicMessage::new(descriptor.clone());
    let mut set = |number, value| {
        message
            .try_set_field_by_number(number, value)
            .unwrap_or_else(|_| panic!("of its type"));
    };
    match descriptor.full_name() {
        "google.protobuf.Timestamp" => {
            let seconds = tape.next_64() % 315_537_897_600;
            set(1, Value::I64(seconds as i64 - 62_135_596_800));
            set(2, Value::I32(nanos(tape)));
        }
        "google.protobuf.Duration" => {
            let sign = tape.pick(&[1, -1]);
            set(
                1,
                Value::I64(sign * (tape.next_64() % 315_576_000_001) as i64),
            );
            set(2, Value::I32(sign as i32 * nanos(tape)));
        }
        "google.protobuf.FieldMask" => {
            let path = |tape: &mut Tape<'_>| {
                Value::String(tape.pick(&["a", "long_name.x_y", "b1_c"]).to_owned())
            };
            let paths = (0..tape.below(3)).map(|_| path(tape)).collect();
            set(1, Value::List(paths));
        }
        "google.protobuf.Value" => json_value(&mut message, levels, tape),
        "google.protobuf.Any" => {
            let pool = descriptor.parent_pool();
            let name = match tape.below(3) {
                0 => format!("r.M{}", tape.below(MESSAGES)),
                _ => format!("google.protobuf.{}", tape.pick(&WELL_KNOWN)),
            };
            let held = pool.get_message_by_name(&name).expect("it is there");
            // The reference takes no Any that holds nothing.
            let held = match levels {
                0 => pool
                    .get_message_by_name("google.protobuf.Empty")
                    .expect("it is there"),
                _ => held,
            };
            let inner = self::message(&held, levels.saturating_sub(1), tape);
            set(
                1,
                Value::String(format!("type.googleapis.com/{}", held.full_name())),
            );
            set(2, Value::Bytes(inner.encode_to_vec().into()));
        }
        _ => {
            for field in descriptor.fields() {
                // An Any that the message must have ends it.
                if tape.below(3) == 0 {
                    continue;
                }
                let one = |kind: &Kind, tape: &mut Tape<'_>| value(kind, levels, tape);
                if field.is_map() {
                    let Kind::Message(entry) = field.kind() else {
                        continue;
                    };
                    let (key, kind) = (
                        entry.map_entry_key_field().kind(),
                        entry.map_entry_value_field().kind(),
                    );
                    let entries = 0..tape.below(5);
                    let entries = entries.filter_map(|_| {
                        let key = map_key(&key, tape);
                        Some((key, one(&kind, tape)?))
                    });
                    let entries = entries.collect();
                    put(&mut message, &field, Value::Map(entries));
                } else if field.is_list() {
                    let values = 0..tape.below(5);
                    let values = values.filter_map(|_| one(&field.kind(), tape)).collect();
                    put(&mut message, &field, Value::List(values));
                } else if let Some(value) = one(&field.kind(), tape) {
                    put(&mut message, &field, value);
                }
            }
        }
    }
    finite(message)
}

fn nanos(tape: &mut Tape<'_>) -> i32 {
    let nanos = tape.below(1_000_000_000) as i32;
    tape.pick(&[
        0,
        nanos,
        nanos / 1_000 * 1_000,
        nanos / 1_000_000 * 1_000_000,
    ])
}

fn put(message: &mut DynamicMessage, field: &FieldDescriptor, value: Value) {
    // Messages of a type that holds itself cannot be printed.
    assert!(value.is_valid_for_field(field), "{}", field.name());
    message.set_field(field, value);
}

/// A value, unless messages are too deep already.
fn value(kind: &Kind, levels: u32, tape: &mut Tape<'_>) -> Option<Value> {
    let small_or_any = |tape: &mut Tape<'_>| match tape.below(3) {
        0 => u64::from(tape.below(3)),
        1 => tape.next_64(),
        _ => tape.pick(&[u64::MAX, 1 << 63, 1 << 31, u64::from(u32::MAX), 127, 128]),
    };
    Some(match kind {
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => Value::I32(small_or_any(tape) as i32),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => Value::I64(small_or_any(tape) as i64),
        Kind::Uint32 | Kind::Fixed32 => Value::U32(small_or_any(tape) as u32),
        Kind::Uint64 | Kind::Fixed64 => Value::U64(small_or_any(tape)),
        Kind::Float => {
            let any = f32::from_bits(tape.next());
            // Its greatest value is refused by the reference, which reads it as a double; it drops a
            // negative zero.
            let any = if any.abs() > 1e38 || any == 0.0 {
                1.5
            } else {
                any
            };
            Value::F32(tape.pick(&[0.0, any, f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.1]))
        }
        Kind::Double => {
            let any = f64::from_bits(tape.next_64());
            let any = if any == 0.0 { 1.5 } else { any };
            Value::F64(tape.pick(&[0.0, any, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e300]))
        }
        Kind::Bool => Value::Bool(tape.below(2) == 1),
        Kind::String => Value::String(text(tape)),
        Kind::Bytes => Value::Bytes(text(tape).into_bytes().into()),
        Kind::Enum(enumeration) if enumeration.full_name() == "google.protobuf.NullValue" => {
            Value::EnumNumber(0)
        }
        Kind::Enum(_) => Value::EnumNumber(tape.pick(&[0, 1, 1000, -5, 7, i32::MIN])),
        Kind::Message(_) if levels == 0 => return None,
        Kind::Message(message) => Value::Message(self::message(message, levels - 1, tape)),
    })
}

/// The reference writes null for a wrapped float that is not finite.
fn finite(mut message: DynamicMessage) -> DynamicMessage {
    let is_finite = match message.get_field_by_number(1).as_deref() {
        Some(Value::F32(value)) => value.is_finite(),
        Some(Value::F64(value)) => value.is_finite(),
        _ => true,
    };
    let name = message.descriptor();
    if !is_finite && name.full_name().starts_with("google.protobuf.") {
        message.clear_field_by_number(1);
    }
    message
}

fn text(tape: &mut Tape<'_>) -> String {
    const PARTS: [&str; 8] = [
        "plain text",
        "\"",
        "\\",
        "\n",
        "\u{1}",
        "я",
        "\u{1f980}",
        "</>",
    ];
    (0..tape.below(4)).map(|_| tape.pick(&PARTS)).collect()
}

fn map_key(kind: &Kind, tape: &mut Tape<'_>) -> MapKey {
    match kind {
        Kind::String => MapKey::String(text(tape)),
        kind => value(kind, 0, tape)
            .and_then(Value::into_map_key)
            .expect("of a key's type"),
    }
}

fn json_value(message: &mut DynamicMessage, levels: u32, tape: &mut Tape<'_>) {
    let descriptor = message.descriptor();
    let nested = |name, tape: &mut Tape<'_>| {
        let descriptor = descriptor
            .parent_pool()
            .get_message_by_name(name)
            .expect("it is there");
        Value::Message(self::message(&descriptor, levels - 1, tape))
    };
    let (number, value) = match tape.below(if levels == 0 { 4 } else { 6 }) {
        0 => (1, Value::EnumNumber(0)),
        1 => (2, Value::F64(f64::from(tape.next()) / 8.0)),
        2 => (3, Value::String(text(tape))),
        3 => (4, Value::Bool(tape.below(2) == 1)),
        4 => (5, nested("google.protobuf.Struct", tape)),
        _ => (6, nested("google.protobuf.ListValue", tape)),
    };
    message
        .try_set_field_by_number(number, value)
        .unwrap_or_else(|_| panic!("of its type"));
}
