//! Routers beside the slow matcher.

use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use transcoding::{
    router::{Miss, Route, RouteMethod, Router},
    template::{Segment, Template},
};

use crate::matcher::{self, Answer, Rule};

/// Characters that a capture of several segments keeps as they are in the path, escaped or not.
const RESERVED: &str = ":/?#[]@!$&'()*+,;=";

/// A router of the rules that do not conflict, and these. A route's value is its index.
pub fn build(rules: impl IntoIterator<Item = Rule>) -> (Router<usize>, Vec<Rule>) {
    let mut router = Router::default();
    let mut taken: Vec<Rule> = Vec::new();
    for rule in rules {
        let method = match rule.method.as_str() {
            "*" => RouteMethod::Any,
            method => RouteMethod::Exactly(method.parse().expect("a method")),
        };
        let told = router.insert(Route {
            method,
            serves_head: rule.serves_head,
            template: rule.template.clone(),
            value: taken.len(),
        });
        let first = taken
            .iter()
            .position(|other| matcher::conflict(other, &rule));
        assert_eq!(told.err().copied(), first, "the conflicting route");
        if first.is_none() {
            taken.push(rule);
        }
    }
    (router, taken)
}

/// Demands that a path leads to the same place by both, and its captures, put into the template, too.
pub fn compare(router: &Router<usize>, rules: &[Rule], method: &str, path: &str) {
    let found = answer(router, method, path);
    assert_eq!(
        found,
        matcher::find(rules, method, path),
        "{method} {path:?}"
    );
    let Answer::Found(rule, captures) = &found else {
        return;
    };
    let template = &rules[*rule].template;
    if let Some(captures) = captures.iter().cloned().collect::<Option<Vec<_>>>()
        && let Some(again) = fill(template, &captures, path)
    {
        assert_eq!(answer(router, method, &again), found, "{again:?}");
    }
}

fn answer(router: &Router<usize>, method: &str, path: &str) -> Answer {
    match router.find(&method.parse().expect("a method"), path) {
        Ok(found) => Answer::Found(
            router.route(found).value,
            router
                .captures(found, path)
                .map(|(_, text)| text.ok().map(|text| text.into_owned()))
                .collect(),
        ),
        Err(Miss::BadPath(_)) => Answer::BadPath,
        Err(Miss::NotFound) => Answer::NotFound,
        Err(Miss::MethodNotAllowed(allow)) => Answer::NotAllowed(allow),
    }
}

/// A template with its variables replaced by texts. None where the texts do not tell all: a wildcard
/// outside of variables, and a `%` that may have been escaped and looks like an escape now.
fn fill(template: &Template, captures: &[String], path: &str) -> Option<String> {
    let mut filled = String::new();
    let mut index = 0;
    while let Some(segment) = template.segments.get(index) {
        filled.push('/');
        index += 1;
        let mut variables = template.variables.iter().zip(captures);
        match (
            variables.find(|(variable, _)| variable.start == index - 1),
            segment,
        ) {
            (Some((variable, _)), _) if variable.several_segments && path.contains("%25") => {
                return None;
            }
            (Some((variable, text)), _) => {
                index = variable.end;
                match variable.several_segments {
                    true => encode_several(text, &mut filled),
                    false => filled.push_str(&encode(text)),
                }
            }
            (None, Segment::Literal(literal)) => filled.push_str(&encode(literal)),
            (None, _) => return None,
        }
    }
    if let Some(verb) = &template.verb {
        filled.push_str(&format!(":{}", encode(verb)));
    }
    Some(filled)
}

/// Escapes all that can be escaped.
pub fn encode(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

fn encode_several(text: &str, out: &mut String) {
    for (at, character) in text.char_indices() {
        let escape = text.get(at..at + 3).filter(|_| character == '%');
        let escaped = escape.and_then(|escape| percent_decode_str(escape).decode_utf8().ok());
        match RESERVED.contains(character) || escaped.is_some_and(|text| RESERVED.contains(&*text))
        {
            true => out.push(character),
            false => out.push_str(&encode(character.encode_utf8(&mut [0; 4]))),
        }
    }
}
