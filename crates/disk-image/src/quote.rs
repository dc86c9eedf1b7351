//! Names that an image carries, made fit to be shown: an image may hold any bytes where a name is due.

/// As many characters of a name are shown.
const SHOWN: usize = 120;

/// The name in double quotes: control characters, quotes and invalid UTF-8 escaped, and cut to a sane length.
pub(crate) fn quote(name: &[u8]) -> String {
    let mut quoted = String::from("\"");
    let mut shown = 0;
    for chunk in name.utf8_chunks() {
        for character in chunk.valid().chars() {
            if shown == SHOWN {
                return cut(quoted);
            }
            push(&mut quoted, character);
            shown += 1;
        }
        for byte in chunk.invalid() {
            if shown == SHOWN {
                return cut(quoted);
            }
            quoted.push_str(&format!("\\x{byte:02x}"));
            shown += 1;
        }
    }
    quoted.push('"');
    quoted
}

fn cut(mut quoted: String) -> String {
    quoted.push_str("...\"");
    quoted
}

fn push(quoted: &mut String, character: char) {
    // Besides control characters, `escape_debug` escapes what is invisible or joins to its neighbour; the listed
    // ones change the direction in which a terminal or a browser shows the rest of the line.
    match character {
        '\'' => quoted.push('\''),
        '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
            quoted.extend(character.escape_unicode());
        }
        _ => quoted.extend(character.escape_debug()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_shown_escaped_and_cut() {
        let long = vec![b'a'; 121];
        let exact = vec![b'a'; 120];
        let cases: [(&[u8], String); 8] = [
            (b"base.qcow2", "\"base.qcow2\"".to_owned()),
            (b"", "\"\"".to_owned()),
            (b"it's \"x\" \\", r#""it's \"x\" \\""#.to_owned()),
            (b"a\nb\x1b[2J\0", r#""a\nb\u{1b}[2J\0""#.to_owned()),
            (b"\xff\xfeok", r#""\xff\xfeok""#.to_owned()),
            (
                "диск\u{202e}gpj".as_bytes(),
                "\"диск\\u{202e}gpj\"".to_owned(),
            ),
            (&exact, format!("\"{}\"", "a".repeat(120))),
            (&long, format!("\"{}...\"", "a".repeat(120))),
        ];
        for (name, expected) in cases {
            assert_eq!(quote(name), expected);
        }
    }
}
