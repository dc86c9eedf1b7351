//! Filters.
//!
//! ```text
//! filter    = condition { "AND" condition }
//! condition = "name" ( ( "=" | "!=" ) value | [ "NOT" ] "IN" "(" value { "," value } ")" )
//! value     = '"' text '"' | "'" text "'"       ; with the escapes of C
//! ```
//!
//! Words are in any case, except for the field. White space separates and is otherwise free.

use crate::model::Condition;

/// The conditions of a filter, all of which must hold; empty text has none. The error says what
/// is wrong and where.
pub(super) fn parse(text: &str) -> Result<Vec<Condition>, String> {
    let mut parser = Parser { text, at: 0 };
    let mut conditions = Vec::new();
    parser.skip_space();
    if parser.rest().is_empty() {
        return Ok(conditions);
    }
    loop {
        conditions.push(parser.condition()?);
        parser.skip_space();
        if parser.rest().is_empty() {
            return Ok(conditions);
        }
        if !parser.word("and") {
            return Err(parser.expected("AND or the end"));
        }
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Parser<'a> {
    fn condition(&mut self) -> Result<Condition, String> {
        self.skip_space();
        let field: &str = self.leading_word();
        if field != "name" {
            return Err(match field {
                "" => self.expected("a field"),
                other => format!("unknown field {other:?}: the only field is name"),
            });
        }
        self.at += field.len();
        self.skip_space();
        if self.symbol("!=") {
            return self.one(true);
        }
        if self.symbol("=") {
            return self.one(false);
        }
        let negated = self.word("not");
        self.skip_space();
        if !self.word("in") {
            return Err(self.expected(if negated { "IN" } else { "=, !=, IN or NOT IN" }));
        }
        let values = self.list()?;
        Ok(Condition { negated, values })
    }

    fn one(&mut self, negated: bool) -> Result<Condition, String> {
        let values = vec![self.value()?];
        Ok(Condition { negated, values })
    }

    fn list(&mut self) -> Result<Vec<String>, String> {
        self.skip_space();
        if !self.symbol("(") {
            return Err(self.expected("a list in parentheses"));
        }
        let mut values = Vec::new();
        loop {
            values.push(self.value()?);
            self.skip_space();
            if self.symbol(")") {
                return Ok(values);
            }
            if !self.symbol(",") {
                return Err(self.expected("a comma or a closing parenthesis"));
            }
        }
    }

    fn value(&mut self) -> Result<String, String> {
        self.skip_space();
        let quote = match self.rest().chars().next() {
            Some(quote @ ('"' | '\'')) => quote,
            _ => return Err(self.expected("a value in quotes")),
        };
        let start = self.at;
        self.at += 1;
        // C's escapes make bytes, several of which may make one character.
        let mut bytes = Vec::new();
        loop {
            let Some(c) = self.next() else {
                return Err(format!("the value at {start} has no closing quote"));
            };
            match c {
                c if c == quote => break,
                '\\' => self.escape(&mut bytes)?,
                c => bytes.extend(c.encode_utf8(&mut [0; 4]).bytes()),
            }
        }
        String::from_utf8(bytes).map_err(|_| format!("the value at {start} is not UTF-8"))
    }

    /// Reads the escape that follows a backslash.
    fn escape(&mut self, bytes: &mut Vec<u8>) -> Result<(), String> {
        let start = self.at - 1;
        let wrong = || format!("unknown escape at {start}");
        let byte = match self.next().ok_or_else(wrong)? {
            c @ ('\\' | '"' | '\'' | '?') => c as u8,
            'a' => 0x07,
            'b' => 0x08,
            'f' => 0x0c,
            'n' => b'\n',
            'r' => b'\r',
            't' => b'\t',
            'v' => 0x0b,
            'x' => {
                let digits = self.digits(16, 2);
                u8::from_str_radix(digits, 16).map_err(|_| wrong())?
            }
            '0'..='7' => {
                self.at -= 1;
                let digits = self.digits(8, 3);
                u8::from_str_radix(digits, 8).map_err(|_| wrong())?
            }
            long @ ('u' | 'U') => {
                let length = if long == 'u' { 4 } else { 8 };
                let digits = self.digits(16, length);
                let c = u32::from_str_radix(digits, 16)
                    .ok()
                    .filter(|_| digits.len() == length)
                    .and_then(char::from_u32)
                    .ok_or_else(wrong)?;
                bytes.extend(c.encode_utf8(&mut [0; 4]).bytes());
                return Ok(());
            }
            _ => return Err(wrong()),
        };
        bytes.push(byte);
        Ok(())
    }

    fn digits(&mut self, radix: u32, most: usize) -> &'a str {
        let rest = self.rest();
        let length = rest
            .chars()
            .take(most)
            .take_while(|c| c.is_digit(radix))
            .count();
        self.at += length;
        &rest[..length]
    }

    fn next(&mut self) -> Option<char> {
        let c = self.rest().chars().next()?;
        self.at += c.len_utf8();
        Some(c)
    }

    fn symbol(&mut self, symbol: &str) -> bool {
        let found = self.rest().starts_with(symbol);
        if found {
            self.at += symbol.len();
        }
        found
    }

    /// Takes a word in any case.
    fn word(&mut self, word: &str) -> bool {
        let found = self.leading_word().eq_ignore_ascii_case(word);
        if found {
            self.at += word.len();
        }
        found
    }

    fn leading_word(&self) -> &'a str {
        let rest = self.rest();
        let end = rest
            .find(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '.' | '-')))
            .unwrap_or(rest.len());
        &rest[..end]
    }

    fn skip_space(&mut self) {
        self.at = self.text.len() - self.rest().trim_start().len();
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn expected(&self, what: &str) -> String {
        let found: String = self.rest().chars().take(20).collect();
        if found.is_empty() {
            format!("expected {what} at the end")
        } else {
            format!("expected {what} at {}, found {found:?}", self.at)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn condition(negated: bool, values: &[&str]) -> Condition {
        Condition {
            negated,
            values: values.iter().map(|value| (*value).to_owned()).collect(),
        }
    }

    #[test]
    fn filters() {
        for (text, expected) in [
            ("", vec![]),
            ("  ", vec![]),
            ("name=\"a\"", vec![condition(false, &["a"])]),
            ("name = 'a'", vec![condition(false, &["a"])]),
            ("name!='a b'", vec![condition(true, &["a b"])]),
            ("name IN ('a')", vec![condition(false, &["a"])]),
            ("name in(\"a\" , 'b')", vec![condition(false, &["a", "b"])]),
            ("name Not  iN ('a','b')", vec![condition(true, &["a", "b"])]),
            (
                "name != 'a' and name != 'b' AND name IN ('c')",
                vec![
                    condition(true, &["a"]),
                    condition(true, &["b"]),
                    condition(false, &["c"]),
                ],
            ),
            (
                r#"name = "\"\\\n\x41\101\u00e9""#,
                vec![condition(false, &["\"\\\nAAé"])],
            ),
            (r"name = '\xc3\xa9'", vec![condition(false, &["é"])]),
            ("name = 'AND'", vec![condition(false, &["AND"])]),
            ("name = 'это'", vec![condition(false, &["это"])]),
            ("name = ''", vec![condition(false, &[""])]),
        ] {
            assert_eq!(parse(text), Ok(expected), "{text:?}");
        }
    }

    #[test]
    fn wrong_filters_say_what_is_wrong() {
        for (text, expected) in [
            ("id = 'a'", "unknown field \"id\""),
            ("Name = 'a'", "unknown field \"Name\""),
            ("= 'a'", "expected a field"),
            ("name", "expected =, !=, IN or NOT IN at the end"),
            ("name > 'a'", "expected =, !=, IN or NOT IN at 5"),
            ("name == 'a'", "expected a value in quotes"),
            ("name = a", "expected a value in quotes at 7"),
            ("name = 'a", "no closing quote"),
            ("name = 'a\"", "no closing quote"),
            ("name = 'a' OR name = 'b'", "expected AND or the end"),
            ("name = 'a' AND", "expected a field"),
            ("name = 'a' name = 'b'", "expected AND"),
            ("name NOT 'a'", "expected IN"),
            ("name IN 'a'", "a list in parentheses"),
            ("name IN ()", "a value in quotes"),
            ("name IN ('a'", "a comma or a closing parenthesis"),
            ("name IN ('a',)", "a value in quotes"),
            (r"name = '\q'", "unknown escape at 8"),
            (r"name = '\x'", "unknown escape"),
            (r"name = '\400'", "unknown escape"),
            (r"name = '\u12'", "unknown escape"),
            (r"name = '\xff'", "not UTF-8"),
            (r"name = '\", "unknown escape"),
        ] {
            let wrong = parse(text).expect_err(text);
            assert!(wrong.contains(expected), "{text:?}: {wrong}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "(name|in|not|and|[=!(),'\"\\\\ x0-9é])*") {
            let _ = parse(&text);
        }

        #[test]
        fn a_quoted_value_comes_back(value in "[^\0]*") {
            let quoted: String = value
                .chars()
                .flat_map(|c| match c {
                    '\\' | '\'' => vec!['\\', c],
                    c => vec![c],
                })
                .collect();
            prop_assert_eq!(
                parse(&format!("name = '{quoted}'")),
                Ok(vec![condition(false, &[&value])])
            );
        }
    }
}
