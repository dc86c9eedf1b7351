//! The HTTP rules of the test services, read by prost-reflect alone. Each target uses a part.
#![allow(dead_code)]

use prost_reflect::{DynamicMessage, MethodDescriptor, ReflectMessage, Value};

use super::things::THINGS;

pub const SERVICES: [&str; 2] = ["transcoding.test.Things", "transcoding.test.Corners"];

pub struct HttpRule {
    pub method: MethodDescriptor,
    /// GET and the like, `*` for any.
    pub verb: String,
    pub path: String,
    pub body: String,
}

/// All rules of the test services, in the order of the files.
pub fn rules() -> Vec<HttpRule> {
    let extension = THINGS.pool.get_extension_by_name("google.api.http");
    let extension = extension.expect("things.proto imports it");
    let mut rules = Vec::new();
    for name in SERVICES {
        let service = THINGS.pool.get_service_by_name(name).expect("it is there");
        for method in service.methods() {
            let options = method.options();
            if !options.has_extension(&extension) {
                rules.push(HttpRule {
                    verb: "POST".to_owned(),
                    path: format!("/{name}/{}", method.name()),
                    body: "*".to_owned(),
                    method,
                });
                continue;
            }
            let Value::Message(first) = options.get_extension(&extension).into_owned() else {
                unreachable!("a rule is a message");
            };
            let additional = first.get_field_by_name("additional_bindings");
            let additional = additional.expect("a rule has them").into_owned();
            let additional = additional.as_list().expect("a list").to_vec();
            for rule in std::iter::once(Value::Message(first)).chain(additional) {
                rules.push(read(&method, rule.as_message().expect("a rule")));
            }
        }
    }
    rules
}

fn read(method: &MethodDescriptor, rule: &DynamicMessage) -> HttpRule {
    let text = |message: &DynamicMessage, name: &str| {
        let value = message.get_field_by_name(name).expect("a field");
        value.as_str().expect("a text").to_owned()
    };
    let pattern = rule.descriptor().oneofs().next().expect("the pattern");
    let set = pattern.fields().find(|field| rule.has_field(field));
    let set = set.expect("every rule has a pattern");
    let (verb, path) = match rule.get_field(&set).as_ref() {
        Value::Message(custom) => (text(custom, "kind"), text(custom, "path")),
        _ => (set.name().to_uppercase(), text(rule, set.name())),
    };
    HttpRule {
        method: method.clone(),
        verb,
        path,
        body: text(rule, "body"),
    }
}
