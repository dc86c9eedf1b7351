//! Percent-encoding (RFC 3986, section 2.1) as the router and the query reader need it: bad escapes
//! are errors, never passed through.

use std::borrow::Cow;

/// Why a piece of a URL cannot be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// A `%` without two hexadecimal digits after it.
    #[error("has a '%' that is not followed by two hexadecimal digits")]
    BadEscape,
    /// The decoded bytes are not text.
    #[error("is not valid UTF-8 once its percent-encoding is decoded")]
    NotUtf8,
}

/// Whether there is anything to decode.
pub(crate) fn is_escaped(text: &str) -> bool {
    text.as_bytes().contains(&b'%')
}

/// Whether every `%` starts a complete escape.
pub(crate) fn check(text: &str) -> Result<(), DecodeError> {
    if !is_escaped(text) {
        return Ok(());
    }
    let mut rest = text.as_bytes();
    while let Some(at) = rest.iter().position(|byte| *byte == b'%') {
        match rest.get(at + 1..at + 3) {
            Some(digits) if digits.iter().all(u8::is_ascii_hexdigit) => rest = &rest[at + 3..],
            _ => return Err(DecodeError::BadEscape),
        }
    }
    Ok(())
}

/// Whether a text, whose escapes are complete, is another one once it is decoded.
pub(crate) fn decodes_to(text: &str, decoded: &str) -> bool {
    percent_encoding::percent_decode_str(text).eq(decoded.bytes())
}

/// Decodes every escape. Allocates only where there is one.
pub(crate) fn decode(text: &str) -> Result<Cow<'_, str>, DecodeError> {
    match is_escaped(text) {
        false => Ok(Cow::Borrowed(text)),
        true => decode_escaped(text),
    }
}

#[cold]
fn decode_escaped(text: &str) -> Result<Cow<'_, str>, DecodeError> {
    check(text)?;
    percent_encoding::percent_decode_str(text)
        .decode_utf8()
        .map_err(|_| DecodeError::NotUtf8)
}

/// Decodes every escape but those of reserved characters (RFC 3986, section 2.2), so that what a
/// capture of several segments was made of stays visible: `a%2Fb/c` keeps its `%2F`.
pub(crate) fn decode_unreserved(text: &str) -> Result<Cow<'_, str>, DecodeError> {
    if !is_escaped(text) {
        return Ok(Cow::Borrowed(text));
    }
    check(text)?;
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        match bytes.get(at + 1..at + 3) {
            Some(&[high, low]) if byte == b'%' => {
                let value = hex_digit(high) << 4 | hex_digit(low);
                if is_reserved(value) {
                    decoded.extend_from_slice(&[byte, high, low]);
                } else {
                    decoded.push(value);
                }
                at += 3;
            }
            _ => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8(decoded)
        .map(Cow::Owned)
        .map_err(|_| DecodeError::NotUtf8)
}

/// Decodes a name or a value of a query: `+` is a space, then the escapes.
pub(crate) fn decode_query(text: &str) -> Result<Cow<'_, str>, DecodeError> {
    if !text.contains('+') {
        return decode(text);
    }
    decode(&text.replace('+', " ")).map(|decoded| Cow::Owned(decoded.into_owned()))
}

fn hex_digit(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        b'A'..=b'F' => digit - b'A' + 10,
        _ => 0,
    }
}

fn is_reserved(byte: u8) -> bool {
    matches!(
        byte,
        b':' | b'/' | b'?' | b'#' | b'[' | b']' | b'@' // gen-delims
            | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=' // sub-delims
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_decoded_or_refused() {
        type Decoder = fn(&str) -> Result<Cow<'_, str>, DecodeError>;
        let cases: &[(Decoder, &str, Result<&str, DecodeError>)] = &[
            (decode, "plain", Ok("plain")),
            (decode, "a%2Fb%20c", Ok("a/b c")),
            (decode, "%D1%8F", Ok("я")),
            (decode, "a+b", Ok("a+b")),
            (decode, "%", Err(DecodeError::BadEscape)),
            (decode, "a%2", Err(DecodeError::BadEscape)),
            (decode, "%zz", Err(DecodeError::BadEscape)),
            (decode, "%я", Err(DecodeError::BadEscape)),
            (decode, "%ff", Err(DecodeError::NotUtf8)),
            (decode_unreserved, "a%2Fb/c%20d", Ok("a%2Fb/c d")),
            (decode_unreserved, "%3a%41%e2%82%ac", Ok("%3aA€")),
            (decode_unreserved, "%fe", Err(DecodeError::NotUtf8)),
            (decode_unreserved, "x%", Err(DecodeError::BadEscape)),
            (decode_query, "a+b%2Bc", Ok("a b+c")),
            (decode_query, "%4", Err(DecodeError::BadEscape)),
        ];
        for (decoder, text, expected) in cases {
            assert_eq!(
                decoder(text),
                expected.map(|text| Cow::Owned(text.to_owned())),
                "{text}"
            );
        }
    }
}
