//! Every line is a template or is refused. What is one is printed and read as the same again, and a
//! router of all of them tells which conflict, and leads the paths made of them where a slow matcher
//! says.
#![no_main]

mod rules;
mod seeds;
mod things;

use libfuzzer_sys::fuzz_target;
use transcoding::template::{Segment, Template};
use transcoding_reference::{
    matcher,
    routers::{self, encode},
};

/// More would make an input slow, not better.
const MOST_LINES: usize = 8;

fn plant() {
    let rules = rules::rules().into_iter();
    let mut templates: Vec<_> = rules.map(|rule| rule.path).collect();
    let together: Vec<_> = templates
        .chunks(MOST_LINES)
        .map(|some| some.join("\n"))
        .collect();
    templates.extend(together);
    seeds::plant("template", templates);
}

fuzz_target!(init: plant(), |text: &str| {
    let mut rules = Vec::new();
    for line in text.split('\n').take(MOST_LINES) {
        match Template::parse(line) {
            Ok(template) => {
                assert_eq!(Template::parse(&print(&template)), Ok(template.clone()));
                rules.push(matcher::Rule {
                    method: "GET".to_owned(),
                    serves_head: false,
                    template,
                });
            }
            Err(error) => assert!(error.to_string().contains(line)),
        }
    }
    let paths: Vec<_> = rules.iter().map(|rule| path(&rule.template)).collect();
    let (router, rules) = routers::build(rules);
    for path in paths {
        routers::compare(&router, &rules, "GET", &path);
    }
});

/// A template in the long form, with everything escaped that can be.
fn print(template: &Template) -> String {
    let mut text = String::new();
    for (index, segment) in template.segments.iter().enumerate() {
        text.push('/');
        let mut variables = template.variables.iter();
        if let Some(variable) = variables.find(|variable| variable.start == index) {
            text.push_str(&format!("{{{}=", variable.field_path.join(".")));
        }
        match segment {
            Segment::Literal(literal) => text.push_str(&encode(literal)),
            Segment::Single => text.push('*'),
            Segment::Multi => text.push_str("**"),
        }
        if template
            .variables
            .iter()
            .any(|variable| variable.end == index + 1)
        {
            text.push('}');
        }
    }
    if let Some(verb) = &template.verb {
        text.push_str(&format!(":{}", encode(verb)));
    }
    text
}

/// A path that fits a template.
fn path(template: &Template) -> String {
    let mut path = String::new();
    for segment in &template.segments {
        path.push('/');
        match segment {
            Segment::Literal(literal) => path.push_str(&encode(literal)),
            Segment::Single => path.push('x'),
            Segment::Multi => path.push_str("y/z"),
        }
    }
    if let Some(verb) = &template.verb {
        path.push_str(&format!(":{}", encode(verb)));
    }
    path
}
