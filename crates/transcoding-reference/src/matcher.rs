//! The binding that a path leads to, found by trying every template in turn.

use std::collections::BTreeSet;

use transcoding::template::{Segment, Template, Variable};

/// A route without its value.
#[derive(Debug)]
pub struct Rule {
    /// `*` is any.
    pub method: String,
    pub serves_head: bool,
    pub template: Template,
}

/// The answer for a path.
#[derive(Debug, PartialEq)]
pub enum Answer {
    /// The index of the rule, and its captures; `None` is one that is not text.
    Found(usize, Vec<Option<String>>),
    BadPath,
    NotFound,
    /// The value of `Allow`.
    NotAllowed(String),
}

/// Whether two rules match the same requests.
pub fn conflict(one: &Rule, other: &Rule) -> bool {
    one.method == other.method
        && one.template.segments == other.template.segments
        && one.template.verb == other.template.verb
}

/// Says where a raw path leads.
pub fn find(rules: &[Rule], method: &str, path: &str) -> Answer {
    let Some(path) = path.strip_prefix('/') else {
        return Answer::NotFound;
    };
    if !has_whole_escapes(path) {
        return Answer::BadPath;
    }
    if let Some((before, verb)) = path.rsplit_once(':')
        && !verb.contains('/')
    {
        match find_with_verb(rules, method, before, Some(decode(verb, |_| true))) {
            Answer::NotFound => {}
            answer => return answer,
        }
    }
    find_with_verb(rules, method, path, None)
}

fn find_with_verb(rules: &[Rule], method: &str, path: &str, verb: Option<Vec<u8>>) -> Answer {
    let path: Vec<_> = path.split('/').collect();
    let fits = |rule: &Rule| {
        let own = rule.template.verb.as_ref();
        own.map(|own| own.as_bytes()) == verb.as_deref() && fits(&rule.template.segments, &path)
    };
    let fitting = || rules.iter().enumerate().filter(|(_, rule)| fits(rule));
    let best = fitting()
        .filter_map(|(index, rule)| {
            Some((order(&rule.template.segments), serves(rule, method)?, index))
        })
        .min();
    if let Some((.., index)) = best {
        return Answer::Found(index, captures(&rules[index].template, &path));
    }
    let mut allow = BTreeSet::new();
    for (_, rule) in fitting() {
        match rule.method.as_str() {
            "*" => allow.extend(["DELETE", "GET", "PATCH", "POST", "PUT"]),
            method => allow.extend([method]),
        }
        allow.extend(rule.serves_head.then_some("HEAD"));
        allow.insert("OPTIONS");
    }
    match allow.is_empty() {
        true => Answer::NotFound,
        false => Answer::NotAllowed(Vec::from_iter(allow).join(", ")),
    }
}

/// Whether a rule serves a method, and how well: 0 is best.
fn serves(rule: &Rule, method: &str) -> Option<u8> {
    let serves = match method {
        _ if rule.method == method => return Some(0),
        "OPTIONS" => false,
        "HEAD" => rule.serves_head,
        _ => rule.method == "*",
    };
    serves.then_some(1)
}

fn fits(segments: &[Segment], path: &[&str]) -> bool {
    match (segments, path) {
        ([], path) => path.is_empty(),
        ([Segment::Multi, rest @ ..], path) => {
            (0..=path.len()).any(|taken| fits(rest, &path[taken..]))
        }
        (_, []) => false,
        ([Segment::Single, rest @ ..], [first, path @ ..]) => !first.is_empty() && fits(rest, path),
        ([Segment::Literal(text), rest @ ..], [first, path @ ..]) => {
            decode(first, |_| true) == text.as_bytes() && fits(rest, path)
        }
    }
}

/// The order of templates that fit the same path, best first: segment by segment a literal, `*`, the
/// end, `**`; behind the same `**` the one that leaves it less.
fn order(segments: &[Segment]) -> Vec<usize> {
    let mut order = Vec::new();
    for (index, segment) in segments.iter().enumerate() {
        match segment {
            Segment::Literal(_) => order.push(0),
            Segment::Single => order.push(1),
            Segment::Multi => order.extend([3, usize::MAX - (segments.len() - index)]),
        }
    }
    order.push(2);
    order
}

fn captures(template: &Template, path: &[&str]) -> Vec<Option<String>> {
    // Where each segment of the template starts in the path, and the end.
    let mut starts = vec![0];
    for segment in &template.segments {
        let taken = match segment {
            Segment::Multi => path.len() + 1 - template.segments.len(),
            _ => 1,
        };
        starts.push(starts[starts.len() - 1] + taken);
    }
    let of = |variable: &Variable| {
        let raw = path[starts[variable.start]..starts[variable.end]].join("/");
        let keeps = |byte: u8| variable.several_segments && b":/?#[]@!$&'()*+,;=".contains(&byte);
        String::from_utf8(decode(&raw, |byte| !keeps(byte))).ok()
    };
    template.variables.iter().map(of).collect()
}

/// Whether two hexadecimal digits follow each `%`.
pub fn has_whole_escapes(text: &str) -> bool {
    let digits = |at| text.as_bytes().get(at + 1..at + 3);
    let is_whole = |at| digits(at).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit));
    text.match_indices('%').all(|(at, _)| is_whole(at))
}

/// Replaces the escapes, all of which are whole, of the bytes asked for.
fn decode(text: &str, replaces: impl Fn(u8) -> bool) -> Vec<u8> {
    let mut parts = text.split('%');
    let mut decoded = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let (digits, rest) = part.split_at(2);
        match u8::from_str_radix(digits, 16) {
            Ok(byte) if replaces(byte) => decoded.push(byte),
            _ => decoded.extend(format!("%{digits}").bytes()),
        }
        decoded.extend(rest.bytes());
    }
    decoded
}
