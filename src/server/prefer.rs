//! `Prefer` (RFC 7240): how a client would like to be answered.

use http::{HeaderMap, HeaderName, HeaderValue};

const PREFER: HeaderName = HeaderName::from_static("prefer");

/// Says that a preference was followed.
pub(crate) const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");
pub(crate) const STRICT: HeaderValue = HeaderValue::from_static("handling=strict");

/// Whether a client prefers `handling=strict`. Of a preference that is given twice the first counts.
pub(crate) fn is_strict(headers: &HeaderMap) -> bool {
    headers
        .get_all(PREFER)
        .iter()
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| split(line, ','))
        .find_map(|preference| {
            // Its parameters mean nothing here.
            let (name, value) = pair(split(preference, ';').next()?);
            name.eq_ignore_ascii_case("handling").then_some(value)
        })
        .is_some_and(|value| value.eq_ignore_ascii_case("strict"))
}

/// The parts of a text between separators that are not in quotes.
fn split(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    text.split(move |character| {
        match character {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ => return character == separator && !quoted,
        }
        false
    })
}

/// A name and its value, which may be missing.
fn pair(text: &str) -> (&str, String) {
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    let value = value.trim();
    let value = match value.strip_prefix('"').and_then(|it| it.strip_suffix('"')) {
        Some(quoted) => unescaped(quoted),
        None => value.to_owned(),
    };
    (name.trim(), value)
}

fn unescaped(quoted: &str) -> String {
    let mut escaped = false;
    let kept = quoted.chars().filter(|character| {
        escaped = *character == '\\' && !escaped;
        !escaped
    });
    kept.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn preferences_are_read_by_their_grammar() {
        for (lines, strict) in [
            (&[][..], false),
            (&["handling=strict"], true),
            (&["Handling = strict"], true),
            (&["handling=\"strict\""], true),
            (&["handling=\"st\\rict\""], true),
            (&["respond-async, wait=10, handling=strict"], true),
            (&["respond-async", "handling=strict"], true),
            (&["handling=strict; foo=\"a, b\""], true),
            (&["foo=\"a, handling=lenient\", handling=strict"], true),
            (&["foo=\"a\\\", handling=lenient\",,handling=strict"], true),
            (&["foo; handling=strict"], false),
            (&["foo=\", handling=strict\""], false),
            (&["handling=lenient"], false),
            (&["handling=lenient, handling=strict"], false),
            (&["handling=lenient", "handling=strict"], false),
            (&["handling=strict, handling=lenient"], true),
            (&["handling"], false),
            (&["handling=\"\""], false),
            (&["handling=strictly"], false),
            (&["strict"], false),
            (&["", ","], false),
        ] {
            let headers: HeaderMap = lines
                .iter()
                .map(|line| (PREFER, HeaderValue::from_str(line).expect("a value")))
                .collect();
            assert_eq!(is_strict(&headers), strict, "{lines:?}");
        }
    }
}
