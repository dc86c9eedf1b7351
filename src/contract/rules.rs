//! Checks of requests against the field options of the contract, in code that the build
//! generates from them. All failing fields are found in one pass.

use std::sync::OnceLock;

use prost_reflect::FieldDescriptor;
use regex::Regex;

use super::{desktopimages, yandex};

/// One failing field: its path in the request, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    pub field: String,
    pub description: String,
}

/// The rules that a request violates, in the order of its fields.
#[derive(Debug, Default)]
pub struct Violations(Vec<Violation>);

/// A message with rules on its fields.
pub trait Check {
    /// Adds what this message violates to `found`.
    fn check(&self, found: &mut Violations);
}

/// All that `request` violates; empty for a request within the contract.
pub fn violations(request: &impl Check) -> Vec<Violation> {
    let mut found = Violations::default();
    request.check(&mut found);
    found.0
}

/// The rules of a text: its length in Unicode characters, inclusive, and what the whole matches.
struct TextRule {
    length: Range,
    pattern: Option<&'static Pattern>,
}

/// Inclusive bounds, either of which may be open.
pub type Range = (Option<i64>, Option<i64>);

/// The limits that the options of a field set to its value: of each element where it is a list, of each value
/// where it is a map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// Whether it must be there, and not empty.
    pub required: bool,
    /// The value of a number.
    pub value: Range,
    /// How many elements a list or a map has.
    pub size: Range,
    /// How many Unicode characters a text has.
    pub length: Range,
    /// A regular expression that a whole text matches.
    pub pattern: Option<&'static str>,
    /// The length of the keys of a map.
    pub key_length: Range,
    /// The pattern that the keys of a map match.
    pub key_pattern: Option<&'static str>,
}

/// The limits of a field: none where it is in no request.
pub fn limits(field: &FieldDescriptor) -> Limits {
    let table = &generated::LIMITS;
    let found = table.binary_search_by_key(&field.full_name(), |(name, _)| name);
    found.map(|index| table[index].1).unwrap_or_default()
}

/// A regular expression of the contract, compiled at its first use.
struct Pattern {
    text: &'static str,
    compiled: OnceLock<Regex>,
}

impl Pattern {
    const fn new(text: &'static str) -> Self {
        Self {
            text,
            compiled: OnceLock::new(),
        }
    }

    #[expect(
        clippy::expect_used,
        reason = "the build has parsed the pattern with the same syntax"
    )]
    fn matches_whole(&self, value: &str) -> bool {
        self.compiled
            .get_or_init(|| {
                Regex::new(&format!(r"\A(?:{})\z", self.text)).expect("the pattern is valid")
            })
            .is_match(value)
    }
}

impl Violations {
    fn add(&mut self, field: impl Into<String>, description: impl Into<String>) {
        self.0.push(Violation {
            field: field.into(),
            description: description.into(),
        });
    }

    fn missing(&mut self, field: &str) {
        self.add(field, "Field is required");
    }

    fn none_of(&mut self, oneof: &str, members: &[&str]) {
        self.add(
            oneof,
            format!("Exactly one of {} is required", members.join(", ")),
        );
    }

    fn size(&mut self, field: &str, size: usize, range: Range) -> bool {
        let fits = within(size as i64, range);
        if !fits {
            let wanted = describe(range);
            self.add(field, format!("Must have {wanted} elements, has {size}"));
        }
        fits
    }

    fn number(&mut self, field: &str, value: i64, range: Range, zero_is_unset: bool) {
        let unset = zero_is_unset && value == 0;
        if !unset && !within(value, range) {
            self.add(field, format!("Must be {}, is {value}", describe(range)));
        }
    }

    fn text(&mut self, field: &str, value: &str, required: bool, rule: &TextRule) {
        if required && value.is_empty() {
            self.missing(field);
        } else if let Some(description) = rule.violation("", value) {
            self.add(field, description);
        }
    }

    /// Adds the violations of a message in a field, by the path of its fields.
    fn nested(&mut self, field: &str, message: &impl Check) {
        let before = self.0.len();
        message.check(self);
        for violation in &mut self.0[before..] {
            violation.field = format!("{field}.{}", violation.field);
        }
    }

    fn map_entry(
        &mut self,
        field: &str,
        key: &str,
        value: &str,
        key_rule: &TextRule,
        value_rule: &TextRule,
    ) {
        let shown: String = key.chars().take(63).flat_map(char::escape_debug).collect();
        if let Some(description) = key_rule.violation("Key ", key) {
            self.add(format!("{field}[{shown}]"), description);
        }
        if let Some(description) = value_rule.violation("Value ", value) {
            self.add(format!("{field}[{shown}]"), description);
        }
    }
}

impl TextRule {
    /// The description of a wrong value; `what` is empty or a word before "must".
    fn violation(&self, what: &str, value: &str) -> Option<String> {
        let must = if what.is_empty() {
            "Must".to_owned()
        } else {
            format!("{what}must")
        };
        // The stores keep text as it is, and U+0000 has no place in PostgreSQL's.
        if value.contains('\0') {
            return Some(format!("{must} not contain U+0000"));
        }
        let length = value.chars().count() as i64;
        if !within(length, self.length) {
            let wanted = describe(self.length);
            return Some(format!("{must} have {wanted} characters, has {length}"));
        }
        match self.pattern {
            Some(pattern) if !pattern.matches_whole(value) => {
                Some(format!("{must} match {}", pattern.text))
            }
            _ => None,
        }
    }
}

fn within(value: i64, (least, most): Range) -> bool {
    least.is_none_or(|least| value >= least) && most.is_none_or(|most| value <= most)
}

fn describe(range: Range) -> String {
    match range {
        (Some(least), Some(most)) => format!("from {least} to {most}"),
        (Some(least), None) => format!("at least {least}"),
        (None, Some(most)) => format!("at most {most}"),
        (None, None) => "any number of".to_owned(),
    }
}

#[rustfmt::skip]
#[allow(deprecated, unreachable_pub, unused_variables, clippy::all)]
mod generated {
    use super::*;
    include!(concat!(env!("OUT_DIR"), "/rules.rs"));
}
