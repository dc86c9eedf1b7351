//! JSON texts of single values.

use super::json_text::{JsonText, escapes};

/// The length of the part at the front without anything to escape.
#[inline]
pub(super) fn plain_length(bytes: &[u8]) -> usize {
    let mut at = 0;
    for chunk in bytes.as_chunks().0 {
        if escapes(u64::from_le_bytes(*chunk)) != 0
            && let Some(found) = chunk.iter().position(|byte| is_special(*byte))
        {
            return at + found;
        }
        at += chunk.len();
    }
    // The last eight bytes overlap what was looked at, which is quicker than byte by byte.
    if at > 0
        && let Some(last) = bytes.last_chunk()
        && escapes(u64::from_le_bytes(*last)) == 0
    {
        return bytes.len();
    }
    let rest = bytes[at..].iter();
    at + rest.take_while(|byte| !is_special(**byte)).count()
}

#[inline]
fn is_special(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\'
}

/// Puts a string from bytes that must be UTF-8; tells if they are.
#[inline]
#[must_use]
pub(super) fn put_string(bytes: &[u8], out: &mut JsonText) -> bool {
    out.put_plain_string(bytes) || put_special_string(bytes, out)
}

/// [`put_string`] of what has something to escape, or is no UTF-8.
#[cold]
fn put_special_string(bytes: &[u8], out: &mut JsonText) -> bool {
    if std::str::from_utf8(bytes).is_err() {
        return false;
    }
    out.push(b'"');
    put_escaped(bytes, out);
    out.push(b'"');
    true
}

/// A string of a text.
pub(super) fn quoted(text: &str) -> Vec<u8> {
    let mut out = JsonText::default();
    out.push(b'"');
    put_escaped(text.as_bytes(), &mut out);
    out.push(b'"');
    out.into_bytes()
}

fn put_escaped(mut bytes: &[u8], out: &mut JsonText) {
    loop {
        let (plain, rest) = bytes.split_at(plain_length(bytes));
        out.put(plain);
        let [special, rest @ ..] = rest else {
            return;
        };
        match special {
            b'"' => out.put(b"\\\""),
            b'\\' => out.put(b"\\\\"),
            b'\n' => out.put(b"\\n"),
            b'\r' => out.put(b"\\r"),
            b'\t' => out.put(b"\\t"),
            0x08 => out.put(b"\\b"),
            0x0c => out.put(b"\\f"),
            control => {
                const DIGITS: &[u8; 16] = b"0123456789abcdef";
                out.put(b"\\u00");
                out.push(DIGITS[usize::from(control >> 4)]);
                out.push(DIGITS[usize::from(control & 15)]);
            }
        }
        bytes = rest;
    }
}

#[inline]
pub(super) fn put_integer(value: impl itoa::Integer, out: &mut JsonText) {
    out.put(itoa::Buffer::new().format(value).as_bytes());
}

/// 64-bit integers are strings: readers take JSON numbers for doubles.
#[inline]
pub(super) fn put_quoted_integer(value: impl itoa::Integer, out: &mut JsonText) {
    let mut buffer = itoa::Buffer::new();
    let digits = buffer.format(value).as_bytes();
    out.put_by(digits.len() + 2, |room| {
        if let [first, inside @ .., last] = room {
            (*first, *last) = (b'"', b'"');
            inside.copy_from_slice(digits);
        }
        digits.len() + 2
    });
}

pub(super) fn put_double(value: f64, out: &mut JsonText) {
    if value.is_finite() {
        out.put(zmij::Buffer::new().format_finite(value).as_bytes());
    } else {
        out.put(not_finite(value));
    }
}

pub(super) fn put_float(value: f32, out: &mut JsonText) {
    if value.is_finite() {
        out.put(zmij::Buffer::new().format_finite(value).as_bytes());
    } else {
        out.put(not_finite(value.into()));
    }
}

fn not_finite(value: f64) -> &'static [u8] {
    if value.is_nan() {
        b"\"NaN\""
    } else if value > 0.0 {
        b"\"Infinity\""
    } else {
        b"\"-Infinity\""
    }
}

pub(super) fn put_bool(value: bool, out: &mut JsonText) {
    match value {
        true => out.put(b"true"),
        false => out.put(b"false"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_as_serde_json_writes_them() {
        let mut texts: Vec<String> = (0..=0x2ff)
            .filter_map(char::from_u32)
            .map(|character| format!("seven77{character}behind it"))
            .collect();
        texts.extend((0..40).map(|length| "x".repeat(length) + "\"\\\u{1}я"));
        for text in texts {
            let mut out = JsonText::default();
            assert!(put_string(text.as_bytes(), &mut out));
            let out = out.into_bytes();
            assert_eq!(out, serde_json::to_vec(&text).expect("a text"), "{text:?}");
            assert_eq!(out, quoted(&text));
        }
        assert!(!put_string(b"a\xff", &mut JsonText::default()));
        // A surrogate in UTF-8, and an overlong form.
        assert!(!put_string(b"\xed\xa0\x80", &mut JsonText::default()));
        assert!(!put_string(b"\xc0\xaf", &mut JsonText::default()));
    }
}
