//! Any path leads through any router where a slow matcher says. Templates and paths are made of few
//! words, so that they meet.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use transcoding::template::Template;
use transcoding_reference::{matcher, routers};

#[derive(Arbitrary, Debug)]
struct Input<'i> {
    rules: Vec<Rule>,
    method: Method,
    path: Path<'i>,
}

#[derive(Arbitrary, Debug)]
struct Rule {
    method: Method,
    serves_head: bool,
    segments: Vec<Segment>,
    verb: Option<Word>,
}

#[derive(Arbitrary, Debug)]
enum Segment {
    Plain(Pattern),
    Variable(Vec<Pattern>),
}

#[derive(Arbitrary, Debug)]
enum Pattern {
    Literal(Word),
    Single,
    Multi,
}

#[derive(Arbitrary, Debug)]
enum Path<'i> {
    Words(Vec<Word>),
    Text(&'i str),
}

/// Picks one of [`METHODS`].
#[derive(Arbitrary, Debug)]
struct Method(u8);

/// Picks one of [`WORDS`].
#[derive(Arbitrary, Debug)]
struct Word(u8);

const METHODS: [&str; 6] = ["GET", "*", "POST", "HEAD", "OPTIONS", "SEARCH"];

/// The last few are none of a template.
const WORDS: [&str; 20] = [
    "a", "b", "%61", "a%2Fb", "a%2fb", "a%3Ab", "a:b", "a:%62", "ab", "%C3%A4", "%252F", "%2A",
    "a:", ":b", "", "*", "%", "%6", "%ff", "ä",
];

fuzz_target!(|input: Input| {
    let rules = input.rules.iter().take(12);
    let (router, rules) = routers::build(rules.filter_map(|rule| {
        let template = template(rule);
        Some(matcher::Rule {
            method: METHODS[usize::from(rule.method.0) % METHODS.len()].to_owned(),
            serves_head: rule.serves_head,
            template: Template::parse(&template).ok()?,
        })
    }));
    let method = match METHODS[usize::from(input.method.0) % METHODS.len()] {
        "*" => "DELETE",
        method => method,
    };
    let path = match input.path {
        Path::Text(text) => text.to_owned(),
        Path::Words(words) => words
            .iter()
            .map(|word| format!("/{}", word.text()))
            .collect(),
    };
    routers::compare(&router, &rules, method, &path);
});

impl Word {
    fn text(&self) -> &'static str {
        WORDS[usize::from(self.0) % WORDS.len()]
    }
}

fn template(rule: &Rule) -> String {
    let mut text = String::new();
    for (index, segment) in rule.segments.iter().enumerate() {
        match segment {
            Segment::Plain(pattern) => text.push_str(&format!("/{}", self::pattern(pattern))),
            Segment::Variable(patterns) => {
                let patterns: Vec<_> = patterns.iter().map(pattern).collect();
                text.push_str(&format!("/{{v{index}={}}}", patterns.join("/")));
            }
        }
    }
    if let Some(verb) = &rule.verb {
        text.push_str(&format!(":{}", verb.text()));
    }
    text
}

fn pattern(pattern: &Pattern) -> &'static str {
    match pattern {
        Pattern::Literal(word) => word.text(),
        Pattern::Single => "*",
        Pattern::Multi => "**",
    }
}
