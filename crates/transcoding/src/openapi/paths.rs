//! The paths of a document: one for each shape of template, each operation with a name of its own.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value};

use crate::template::{Segment, Template, Variable};

/// The bytes that a literal of a path does not keep as they are.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

#[derive(Default)]
pub(super) struct Paths {
    /// Path and names of parameters by the shape of the template.
    shapes: HashMap<String, (String, Vec<String>)>,
    items: BTreeMap<String, Map<String, Value>>,
    operation_ids: BTreeSet<String>,
}

impl Paths {
    /// The path of a template, and the names of its parameters, in their order: for each variable,
    /// and for each segment of any text that no variable takes. Templates of one shape have one path,
    /// with the names of the first.
    pub(super) fn of(&mut self, template: &Template) -> (String, Vec<String>) {
        let mut shape = String::new();
        let mut path = String::new();
        let mut names = Vec::new();
        for part in parts(template) {
            let name = match part {
                Part::Literal(text) => {
                    let text = format!("/{}", utf8_percent_encode(text, ESCAPED));
                    shape.push_str(&text);
                    path.push_str(&text);
                    continue;
                }
                Part::Variable(variable) => variable.field_path.join("."),
                Part::Wildcard => format!("segment{}", names.len() + 1),
            };
            shape.push_str("/{}");
            path.push_str(&format!("/{{{name}}}"));
            names.push(name);
        }
        if let Some(verb) = &template.verb {
            let verb = format!(":{}", utf8_percent_encode(verb, ESCAPED));
            shape.push_str(&verb);
            path.push_str(&verb);
        }
        self.shapes.entry(shape).or_insert((path, names)).clone()
    }

    /// Adds an operation, whose `operationId` gets a number where it is taken. The first of a path
    /// and method stays.
    pub(super) fn insert(&mut self, path: &str, method: &str, mut operation: Map<String, Value>) {
        let item = self.items.entry(path.to_owned()).or_default();
        if item.contains_key(method) {
            return;
        }
        let wanted = operation.get("operationId").and_then(Value::as_str);
        let wanted = wanted.unwrap_or_default().to_owned();
        let mut id = wanted.clone();
        let mut number = 1;
        while !self.operation_ids.insert(id.clone()) {
            number += 1;
            id = format!("{wanted}_{number}");
        }
        operation.insert("operationId".to_owned(), id.into());
        item.insert(method.to_owned(), operation.into());
    }

    pub(super) fn into_json(self) -> Value {
        let items = self.items.into_iter();
        Value::Object(items.map(|(path, item)| (path, item.into())).collect())
    }
}

/// A piece of a template as OpenAPI has it.
pub(super) enum Part<'t> {
    Literal(&'t str),
    Variable(&'t Variable),
    /// `*` or `**` outside of a variable.
    Wildcard,
}

/// The pieces of a template in their order.
pub(super) fn parts(template: &Template) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    let mut at = 0;
    while let Some(segment) = template.segments.get(at) {
        let variable = template
            .variables
            .iter()
            .find(|variable| variable.start == at);
        match (variable, segment) {
            (Some(variable), _) => {
                parts.push(Part::Variable(variable));
                at = variable.end;
                continue;
            }
            (None, Segment::Literal(text)) => parts.push(Part::Literal(text)),
            (None, _) => parts.push(Part::Wildcard),
        }
        at += 1;
    }
    parts
}
