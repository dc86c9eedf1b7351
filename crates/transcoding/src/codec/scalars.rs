//! JSON to wire bytes for values that are not messages.

use std::borrow::Cow;

use super::{
    base64_text,
    error::JsonError,
    integers::{expected_integer, put_integer, range},
    numbers::{NotWhole, whole},
    reader::number_length,
    schema::{Enum, Kind},
    to_wire::{Builder, Put},
    wire,
};

impl<'j> Builder<'_, 'j> {
    /// Puts a value that is neither enum nor message.
    pub(super) fn scalar(&mut self, kind: Kind, out: &mut Vec<u8>) -> Result<Put, JsonError> {
        let is_default = match kind {
            Kind::Float => {
                let value: f32 = self.float("32-bit", f32::is_finite)?;
                out.extend_from_slice(&value.to_le_bytes());
                value.to_bits() == 0
            }
            Kind::Double => {
                let value: f64 = self.float("64-bit", f64::is_finite)?;
                out.extend_from_slice(&value.to_le_bytes());
                value.to_bits() == 0
            }
            Kind::Bool => {
                let value = self.boolean()?;
                out.push(value.into());
                !value
            }
            Kind::String => {
                let value = self.string("a string")?;
                wire::put_bytes(value.as_bytes(), out);
                value.is_empty()
            }
            Kind::Bytes => {
                let value = self.string("base64 in a string")?;
                let start = wire::open_length(out);
                if !base64_text::put_decoded(&value, out) {
                    return Err(self
                        .reader
                        .data("invalid value: expected base64 in either alphabet"));
                }
                wire::close_length(start, out);
                out.len() == start
            }
            kind => {
                let value = self.integer(kind)?;
                put_integer(kind, value, out);
                value == 0
            }
        };
        Ok(if is_default { Put::Default } else { Put::Value })
    }

    /// Puts an enum value, by its name or its number.
    pub(super) fn enum_value(
        &mut self,
        enumeration: &Enum,
        out: &mut Vec<u8>,
    ) -> Result<Put, JsonError> {
        let number = match self.reader.peek()? {
            b'n' if enumeration.is_null => {
                self.reader.literal("null")?;
                0
            }
            b'"' => {
                let name = self.reader.string()?;
                match enumeration.number_of(&name) {
                    Some(number) => number,
                    None if self.settings.ignore_unknown => return Ok(Put::Unknown),
                    None => {
                        let known = known_values(enumeration);
                        let problem = format!("unrecognized enum value '{name}': expected {known}");
                        return Err(self.reader.data(problem));
                    }
                }
            }
            b'-' | b'0'..=b'9' => self.integer(Kind::Int32)? as i32,
            _ => return Err(self.reader.unexpected(&known_values(enumeration))),
        };
        put_integer(Kind::Int32, number.into(), out);
        Ok(if number == 0 {
            Put::Default
        } else {
            Put::Value
        })
    }

    /// Takes a string.
    pub(super) fn string(&mut self, expected: &str) -> Result<Cow<'j, str>, JsonError> {
        match self.reader.peek()? {
            b'"' => self.reader.string(),
            _ => Err(self.reader.unexpected(expected)),
        }
    }

    pub(super) fn boolean(&mut self) -> Result<bool, JsonError> {
        match self.reader.peek()? {
            b't' => self.reader.literal("true").map(|()| true),
            b'f' => self.reader.literal("false").map(|()| false),
            _ => Err(self.reader.unexpected("a boolean")),
        }
    }

    /// Takes a whole number within the range of an integer kind, in a string or not.
    fn integer(&mut self, kind: Kind) -> Result<i128, JsonError> {
        let (number, text) = match self.reader.peek()? {
            b'"' => {
                let text = self.reader.string()?;
                (whole(&text), text)
            }
            b'-' | b'0'..=b'9' => {
                let text = self.reader.number()?;
                (whole(text), Cow::Borrowed(text))
            }
            _ => return Err(self.reader.unexpected(&expected_integer(kind))),
        };
        let (least, greatest) = range(kind);
        let problem = match number {
            Ok(value) if least <= value && value <= greatest => return Ok(value),
            Ok(_) | Err(NotWhole::TooLarge) => format!("number out of range: {text}"),
            Err(NotWhole::Fraction) => format!("not a whole number: {text}"),
            Err(NotWhole::NotANumber) => format!("invalid value: string {text:?}"),
        };
        let expected = expected_integer(kind);
        Err(self.reader.data(format!("{problem}, expected {expected}")))
    }

    /// Takes a floating point number, in a string or not.
    pub(super) fn float<F: std::str::FromStr + Copy>(
        &mut self,
        width: &str,
        is_finite: fn(F) -> bool,
    ) -> Result<F, JsonError> {
        let text = match self.reader.peek()? {
            b'"' => self.reader.string()?,
            b'-' | b'0'..=b'9' => Cow::Borrowed(self.reader.number()?),
            _ => return Err(self.reader.unexpected("a number, \"NaN\" or \"Infinity\"")),
        };
        let is_word = matches!(&*text, "NaN" | "Infinity" | "-Infinity");
        if !is_word && number_length(text.as_bytes()) != Ok(text.len()) {
            let problem =
                "invalid value: expected a number, \"NaN\", \"Infinity\" or \"-Infinity\"";
            return Err(self.reader.data(problem));
        }
        // The words of JSON are also the language's.
        match text.parse() {
            Ok(value) if is_word || is_finite(value) => Ok(value),
            _ => Err(self.reader.data(format!(
                "number out of range: {text}, expected one of a {width} floating point number"
            ))),
        }
    }
}

fn known_values(enumeration: &Enum) -> String {
    let names = enumeration.descriptor.values();
    let names: Vec<_> = names
        .take(10)
        .map(|value| value.name().to_owned())
        .collect();
    let name = enumeration.descriptor.name();
    format!(
        "a name or a number of the enum {name} ({})",
        names.join(", ")
    )
}
