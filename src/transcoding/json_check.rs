//! What must hold for a JSON text before prost-reflect reads it, and what prost-reflect takes
//! silently: no field twice in one object, under either of its names, and bounded depth.

use std::{borrow::Cow, collections::HashSet, fmt};

use prost_reflect::{Kind, MessageDescriptor};
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// The deepest nesting of objects and lists taken: what protobuf decoders take of nested messages.
pub const MAX_DEPTH: usize = 100;

/// Walks a whole JSON value of this message type.
pub fn check(text: &str, message: &MessageDescriptor) -> Result<(), serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    Walk {
        shape: Shape::of_message(message),
        depth: 0,
    }
    .deserialize(&mut deserializer)?;
    deserializer.end()
}

/// What the names in a JSON object are.
#[derive(Clone)]
enum Shape {
    /// Fields of a message.
    Message(MessageDescriptor),
    /// Keys of a map field, whose entry type this is.
    Map(MessageDescriptor),
    /// Just names: values without objects, and well-known types with a mapping of their own.
    Plain,
}

impl Shape {
    fn of(kind: &Kind) -> Self {
        match kind {
            Kind::Message(message) => Self::of_message(message),
            _ => Self::Plain,
        }
    }

    fn of_message(message: &MessageDescriptor) -> Self {
        if message.is_map_entry() {
            Self::Map(message.clone())
        } else if message.package_name() == "google.protobuf" {
            Self::Plain
        } else {
            Self::Message(message.clone())
        }
    }

    /// A name in the form in which equal ones are the same, and the shape of its value.
    fn member<'n>(&self, name: Cow<'n, str>) -> (Name<'n>, Self) {
        match self {
            Self::Message(message) => {
                let field = message
                    .get_field_by_json_name(&name)
                    .or_else(|| message.get_field_by_name(&name));
                match field {
                    Some(field) => (Name::Field(field.number()), Self::of(&field.kind())),
                    None => (Name::Text(name), Self::Plain),
                }
            }
            Self::Map(entry) => {
                let value = Self::of(&entry.map_entry_value_field().kind());
                let is_text = entry.map_entry_key_field().kind() == Kind::String;
                match name.parse() {
                    Ok(number) if !is_text => (Name::Number(number), value),
                    _ => (Name::Text(name), value),
                }
            }
            Self::Plain => (Name::Text(name), Self::Plain),
        }
    }
}

#[derive(PartialEq, Eq, Hash)]
enum Name<'n> {
    Field(u32),
    Number(i128),
    Text(Cow<'n, str>),
}

struct Walk {
    shape: Shape,
    depth: usize,
}

impl Walk {
    fn deeper<E: Error>(&self, shape: Shape) -> Result<Self, E> {
        if self.depth == MAX_DEPTH {
            return Err(E::custom(format_args!(
                "nested more than {MAX_DEPTH} levels deep"
            )));
        }
        Ok(Self {
            shape,
            depth: self.depth + 1,
        })
    }
}

impl<'de> DeserializeSeed<'de> for Walk {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

/// A name, borrowed from the text where it has no escapes.
struct NameSeed;

impl<'de> DeserializeSeed<'de> for NameSeed {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for NameSeed {
    type Value = Cow<'de, str>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a name")
    }

    fn visit_borrowed_str<E: Error>(self, name: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(name))
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(name.to_owned()))
    }
}

impl<'de> Visitor<'de> for Walk {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen = HashSet::new();
        while let Some(name) = map.next_key_seed(NameSeed)? {
            let (canonical, shape) = self.shape.member(name.clone());
            if !seen.insert(canonical) {
                return Err(A::Error::custom(format_args!("duplicate name \"{name}\"")));
            }
            map.next_value_seed(self.deeper(shape)?)?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<(), A::Error> {
        while sequence
            .next_element_seed(self.deeper(self.shape.clone())?)?
            .is_some()
        {}
        Ok(())
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }
}
