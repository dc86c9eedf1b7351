//! Reads JSON token by token. What is taken is RFC 8259 and no more, with bounded depth.

use std::{borrow::Cow, collections::HashSet, hash::Hash};

use super::{error::JsonError, text::plain_length, wire::MAX_DEPTH};

/// A place in a JSON text.
pub(super) struct Reader<'j> {
    text: &'j str,
    at: usize,
    /// Behind the name of the member read last.
    name_end: usize,
    /// How many objects and lists are open.
    depth: u32,
}

/// Whether an object or a list has had a member.
#[derive(Clone, Copy)]
pub(super) struct IsFirst(bool);

impl<'j> Reader<'j> {
    pub(super) fn new(text: &'j [u8]) -> Result<Self, JsonError> {
        let text = std::str::from_utf8(text)
            .map_err(|error| JsonError::syntax(error.valid_up_to(), "not valid UTF-8"))?;
        Ok(Self {
            text,
            at: 0,
            name_end: 0,
            depth: 0,
        })
    }

    /// The first byte of the next token.
    #[inline]
    pub(super) fn peek(&mut self) -> Result<u8, JsonError> {
        let bytes = self.text.as_bytes();
        while let Some(byte) = bytes.get(self.at) {
            match byte {
                b' ' | b'\n' | b'\r' | b'\t' => self.at += 1,
                byte => return Ok(*byte),
            }
        }
        Err(self.ended())
    }

    /// Nothing but white space may be left.
    pub(super) fn end(&mut self) -> Result<(), JsonError> {
        match self.peek() {
            Ok(_) => Err(JsonError::syntax(self.at, "trailing characters")),
            Err(_) => Ok(()),
        }
    }

    /// An error of the value read last.
    #[cold]
    pub(super) fn data(&self, problem: impl Into<String>) -> JsonError {
        JsonError::data(self.at.saturating_sub(1), problem)
    }

    /// An error of the name of the member read last.
    #[cold]
    pub(super) fn name(&self, problem: impl Into<String>) -> JsonError {
        JsonError::data(self.name_end.saturating_sub(1), problem)
    }

    #[cold]
    fn ended(&self) -> JsonError {
        JsonError::syntax(self.text.len().saturating_sub(1), "the text ends too early")
    }

    #[cold]
    fn syntax(&self, problem: &str) -> JsonError {
        match self.at < self.text.len() {
            true => JsonError::syntax(self.at, problem),
            false => self.ended(),
        }
    }

    /// The next value is of another type than this. It is read as far as the error says.
    #[cold]
    pub(super) fn unexpected(&mut self, expected: &str) -> JsonError {
        let found = match self.peek() {
            Err(error) => return error,
            Ok(b'{') => Ok("map".to_owned()),
            Ok(b'[') => Ok("sequence".to_owned()),
            Ok(b'"') => self.string().map(|text| format!("string {text:?}")),
            Ok(b'-' | b'0'..=b'9') => self.number().map(|number| {
                match number
                    .bytes()
                    .all(|byte| byte == b'-' || byte.is_ascii_digit())
                {
                    true => format!("integer `{number}`"),
                    false => format!("floating point `{number}`"),
                }
            }),
            Ok(b'n') => self.literal("null").map(|()| "null".to_owned()),
            Ok(b't') => self.literal("true").map(|()| "boolean `true`".to_owned()),
            Ok(_) => self.literal("false").map(|()| "boolean `false`".to_owned()),
        };
        match found {
            Ok(found) => self.data(format!("invalid type: {found}, expected {expected}")),
            Err(error) => error,
        }
    }

    /// Takes one of the words of JSON.
    pub(super) fn literal(&mut self, word: &str) -> Result<(), JsonError> {
        match self.text.as_bytes()[self.at..].starts_with(word.as_bytes()) {
            true => {
                self.at += word.len();
                Ok(())
            }
            false => Err(self.syntax("expected a value")),
        }
    }

    /// Takes a number, as it is written.
    pub(super) fn number(&mut self) -> Result<&'j str, JsonError> {
        let rest = &self.text[self.at..];
        match number_length(rest.as_bytes()) {
            Ok(length) => {
                self.at += length;
                Ok(&rest[..length])
            }
            Err(at) => {
                self.at += at;
                Err(self.syntax("invalid number"))
            }
        }
    }

    /// Takes a string; the next byte must be its quote.
    #[inline]
    pub(super) fn string(&mut self) -> Result<Cow<'j, str>, JsonError> {
        let start = self.at + 1;
        let end = start + plain_length(&self.text.as_bytes()[start..]);
        if self.text.as_bytes().get(end) == Some(&b'"') {
            self.at = end + 1;
            return Ok(Cow::Borrowed(&self.text[start..end]));
        }
        self.escaped_string(start).map(Cow::Owned)
    }

    fn escaped_string(&mut self, start: usize) -> Result<String, JsonError> {
        let bytes = self.text.as_bytes();
        let mut unescaped = String::new();
        self.at = start;
        loop {
            let end = self.at + plain_length(&bytes[self.at..]);
            unescaped.push_str(&self.text[self.at..end]);
            self.at = end;
            match bytes.get(end) {
                None => return Err(self.ended()),
                Some(b'"') => {
                    self.at += 1;
                    return Ok(unescaped);
                }
                Some(b'\\') => unescaped.push(self.escape()?),
                Some(_) => {
                    return Err(self.syntax("a control character in a string must be escaped"));
                }
            }
        }
    }

    /// Takes an escape.
    fn escape(&mut self) -> Result<char, JsonError> {
        let Some(letter) = self.text.as_bytes().get(self.at + 1) else {
            return Err(self.ended());
        };
        let character = match letter {
            b'"' => '"',
            b'\\' => '\\',
            b'/' => '/',
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => return self.unicode_escape(),
            _ => return Err(self.syntax("invalid escape")),
        };
        self.at += 2;
        Ok(character)
    }

    /// Takes the escape `\u` with its four hexadecimal digits, two of them for a character beyond 16 bits.
    fn unicode_escape(&mut self) -> Result<char, JsonError> {
        let first = self.code_unit()?;
        let code = match first {
            0xd800..=0xdbff => match self.code_unit() {
                Ok(second @ 0xdc00..=0xdfff) => {
                    0x10000 + ((first - 0xd800) << 10) + second - 0xdc00
                }
                _ => return Err(self.syntax("lone surrogate in an escape")),
            },
            code => code,
        };
        char::from_u32(code).ok_or_else(|| self.syntax("lone surrogate in an escape"))
    }

    fn code_unit(&mut self) -> Result<u32, JsonError> {
        let rest = &self.text.as_bytes()[self.at..];
        let digits = rest.strip_prefix(b"\\u").and_then(|rest| rest.get(..4));
        let Some(digits) = digits else {
            return Err(self.syntax("invalid escape"));
        };
        let mut code = 0;
        for digit in digits {
            match char::from(*digit).to_digit(16) {
                Some(digit) => code = code << 4 | digit,
                None => return Err(self.syntax("invalid escape")),
            }
        }
        self.at += 6;
        Ok(code)
    }

    /// Takes the brace or bracket that begins an object or a list.
    pub(super) fn open(&mut self, bracket: u8, expected: &str) -> Result<IsFirst, JsonError> {
        if self.peek()? != bracket {
            return Err(self.unexpected(expected));
        }
        if self.depth > MAX_DEPTH {
            return Err(self.data(format!("nested more than {MAX_DEPTH} levels deep")));
        }
        self.depth += 1;
        self.at += 1;
        Ok(IsFirst(true))
    }

    /// Goes to the next member's name and behind its colon, or behind the end of the object.
    #[inline]
    pub(super) fn member(
        &mut self,
        first: &mut IsFirst,
    ) -> Result<Option<Cow<'j, str>>, JsonError> {
        if !self.next(first, b'}')? {
            return Ok(None);
        }
        if self.peek()? != b'"' {
            return Err(self.syntax("expected a name in quotes"));
        }
        let name = self.string()?;
        self.name_end = self.at;
        if self.peek().map_err(|error| error.within(&name))? != b':' {
            return Err(self.syntax("expected a colon").within(&name));
        }
        self.at += 1;
        Ok(Some(name))
    }

    /// Goes to the next element, or behind the end of the list.
    #[inline]
    pub(super) fn element(&mut self, first: &mut IsFirst) -> Result<bool, JsonError> {
        self.next(first, b']')
    }

    fn next(&mut self, first: &mut IsFirst, end: u8) -> Result<bool, JsonError> {
        match self.peek()? {
            byte if byte == end => {
                self.at += 1;
                self.depth -= 1;
                return Ok(false);
            }
            _ if first.0 => first.0 = false,
            b',' => {
                self.at += 1;
                if self.peek()? == end {
                    return Err(self.syntax("a comma before the end"));
                }
            }
            _ => return Err(self.syntax("expected a comma or the end")),
        }
        Ok(true)
    }

    /// Takes a value of any kind; no name may be twice in an object.
    pub(super) fn skip(&mut self) -> Result<(), JsonError> {
        match self.peek()? {
            b'{' => {
                let mut first = self.open(b'{', "")?;
                let mut names = Keys::default();
                while let Some(name) = self.member(&mut first)? {
                    if !names.insert(name.clone()) {
                        return Err(self.duplicate(&name));
                    }
                    self.skip().map_err(|error| error.within(&name))?;
                }
                Ok(())
            }
            b'[' => {
                let mut first = self.open(b'[', "")?;
                let mut index = 0;
                while self.element(&mut first)? {
                    self.skip().map_err(|error| error.at(index))?;
                    index += 1;
                }
                Ok(())
            }
            b'"' => self.string().map(|_| ()),
            b'n' => self.literal("null"),
            b't' => self.literal("true"),
            b'f' => self.literal("false"),
            b'-' | b'0'..=b'9' => self.number().map(|_| ()),
            _ => Err(self.syntax("expected a value")),
        }
    }

    /// The error of a name that an object has twice.
    #[cold]
    pub(super) fn duplicate(&self, name: &str) -> JsonError {
        self.name(format!("duplicate name \"{name}\"")).within(name)
    }

    /// Runs `look` from here, and comes back.
    pub(super) fn ahead<T>(
        &mut self,
        look: impl FnOnce(&mut Self) -> Result<T, JsonError>,
    ) -> Result<T, JsonError> {
        let (at, depth) = (self.at, self.depth);
        let found = look(self)?;
        (self.at, self.depth) = (at, depth);
        Ok(found)
    }
}

/// The length of the number at the front, or where it stops being one.
pub(super) fn number_length(bytes: &[u8]) -> Result<usize, usize> {
    let digits = |from: usize| {
        let rest = bytes[from..].iter();
        match rest.take_while(|byte| byte.is_ascii_digit()).count() {
            0 => Err(from),
            count => Ok(from + count),
        }
    };
    let start = usize::from(bytes.first() == Some(&b'-'));
    let mut end = match bytes.get(start) {
        Some(b'0') => start + 1,
        _ => digits(start)?,
    };
    // No digit may follow a leading zero.
    if bytes.get(end).is_some_and(u8::is_ascii_digit) {
        return Err(end);
    }
    if bytes.get(end) == Some(&b'.') {
        end = digits(end + 1)?;
    }
    if let Some(b'e' | b'E') = bytes.get(end) {
        let sign = matches!(bytes.get(end + 1), Some(b'+' | b'-'));
        end = digits(end + 1 + usize::from(sign))?;
    }
    Ok(end)
}

/// The keys seen in an object. Few are compared one by one, which needs no hashing.
pub(super) struct Keys<K> {
    few: Vec<K>,
    many: HashSet<K>,
}

impl<K> Default for Keys<K> {
    fn default() -> Self {
        Self {
            few: Vec::new(),
            many: HashSet::new(),
        }
    }
}

impl<K: Eq + Hash> Keys<K> {
    const FEW: usize = 16;

    /// Puts a key; tells if it was not there yet.
    pub(super) fn insert(&mut self, key: K) -> bool {
        if !self.many.is_empty() {
            return self.many.insert(key);
        }
        if self.few.contains(&key) {
            return false;
        }
        self.few.push(key);
        if self.few.len() > Self::FEW {
            self.many = self.few.drain(..).collect();
        }
        true
    }
}
