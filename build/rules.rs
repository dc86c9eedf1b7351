//! Turns the field options of `yandex/cloud/validation.proto` into Rust code, one `Check`
//! implementation for each message that an rpc takes. A rule that this generator does not
//! understand stops the build: a constraint must never be dropped in silence.

use std::error::Error;
use std::fmt::Write;

use prost_reflect::{
    Cardinality, DescriptorPool, DynamicMessage, ExtensionDescriptor, FieldDescriptor, Kind,
    MessageDescriptor, Value,
};

use super::names::{pascal_case, rust_module, rust_path};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const OUR_PACKAGES: [&str; 2] = ["desktopimages.", "yandex.cloud."];

/// The text of `rules.rs`, included by `src/contract/rules.rs`.
pub fn generate(pool: &DescriptorPool) -> Result<String> {
    let options = Options::new(pool)?;
    let mut requests: Vec<MessageDescriptor> = pool
        .services()
        .filter(|service| is_ours(service.full_name()))
        .flat_map(|service| service.methods().map(|m| m.input()).collect::<Vec<_>>())
        .collect();
    add_nested(&mut requests);
    requests.sort_by(|a, b| a.full_name().cmp(b.full_name()));
    requests.dedup();

    let mut code = String::new();
    for request in &requests {
        generate_message(&mut code, &options, request)?;
    }
    code.push_str(&limits(&options, &requests)?);
    Ok(code)
}

/// A table of the same rules, by the full name of their field, for descriptions of the API.
fn limits(options: &Options, messages: &[MessageDescriptor]) -> Result<String> {
    let mut rows = Vec::new();
    for field in messages.iter().flat_map(MessageDescriptor::fields) {
        let rules = options.rules(&field)?;
        let mut length = rules.length.unwrap_or_default();
        if rules.required || options.is_chosen_text(&field) {
            length.0 = length.0.or((field.kind() == Kind::String).then_some(1));
        }
        rows.push(format!(
            "({:?}, Limits {{ required: {}, value: {:?}, size: {:?}, length: {length:?}, \
             pattern: {:?}, key_length: {:?}, key_pattern: {:?} }}),\n",
            field.full_name(),
            rules.required,
            rules.value.unwrap_or_default(),
            rules.size.unwrap_or_default(),
            rules.pattern,
            rules.key_length.unwrap_or_default(),
            rules.key_pattern
        ));
    }
    rows.sort();
    Ok(format!(
        "pub static LIMITS: [(&str, Limits); {}] = [\n{}];\n",
        rows.len(),
        rows.concat()
    ))
}

fn is_ours(full_name: &str) -> bool {
    OUR_PACKAGES
        .iter()
        .any(|package| full_name.starts_with(package))
}

/// Adds the messages of our packages that are fields of those, at any depth.
fn add_nested(messages: &mut Vec<MessageDescriptor>) {
    let mut next = 0;
    while let Some(message) = messages.get(next) {
        let nested: Vec<MessageDescriptor> = message
            .fields()
            .filter_map(|field| nested_message(&field))
            .filter(|nested| !messages.contains(nested))
            .collect();
        messages.extend(nested);
        next += 1;
    }
}

/// The type of a field that holds one message of our packages.
fn nested_message(field: &FieldDescriptor) -> Option<MessageDescriptor> {
    match field.kind() {
        Kind::Message(message) if !field.is_map() && is_ours(message.full_name()) => Some(message),
        _ => None,
    }
}

fn generate_message(
    code: &mut String,
    options: &Options,
    message: &MessageDescriptor,
) -> Result<()> {
    let mut body = String::new();
    for field in message.fields() {
        let mut rules = options.rules(&field)?;
        let text = match field.containing_oneof() {
            // An `optional` field.
            Some(oneof) if oneof.is_synthetic() => {
                let Some(check) = check_value(&rules, &field, "value")? else {
                    continue;
                };
                format!(
                    "if let Some(value) = &self.{} {{ {check} }}\n",
                    field.name()
                )
            }
            Some(oneof) => {
                rules.required |= options.is_chosen_text(&field);
                let Some(check) = check_value(&rules, &field, "value")? else {
                    continue;
                };
                format!(
                    "if let Some({}::{}::{}(value)) = &self.{} {{ {check} }}\n",
                    rust_module(message),
                    pascal_case(oneof.name()),
                    pascal_case(field.name()),
                    oneof.name()
                )
            }
            None => check_field(&rules, &field)?,
        };
        body.push_str(&text);
    }
    for oneof in message.oneofs() {
        if options.exactly_one(&oneof.options()) {
            let names: Vec<String> = oneof.fields().map(|f| f.name().to_owned()).collect();
            writeln!(
                body,
                "if self.{}.is_none() {{ found.none_of({:?}, &{names:?}); }}",
                oneof.name(),
                oneof.name()
            )?;
        }
    }
    writeln!(
        code,
        "impl Check for {} {{\nfn check(&self, found: &mut Violations) {{\n{body}}}\n}}",
        rust_path(message)
    )?;
    Ok(())
}

/// The checks of a field that is not a member of a oneof.
fn check_field(rules: &Rules, field: &FieldDescriptor) -> Result<String> {
    let (name, member) = (field.name(), format!("self.{}", field.name()));
    let mut code = String::new();
    if field.is_map() {
        // Too many entries are not looked at one by one.
        let size = rules.size.unwrap_or((None, None));
        writeln!(code, "if found.size({name:?}, {member}.len(), {size:?}) {{")?;
        let Kind::Message(entry) = field.kind() else {
            return Err(format!("{}: a map without an entry", field.full_name()).into());
        };
        let value_kind = entry.map_entry_value_field().kind();
        if !matches!(value_kind, Kind::String) {
            return Err(format!("{}: only maps of text are supported", field.full_name()).into());
        }
        writeln!(
            code,
            "for (key, value) in &{member} {{\nfound.map_entry({name:?}, key, value, &{}, &{});\n}}\n}}",
            rules.key_text(),
            rules.text()
        )?;
    } else if field.cardinality() == Cardinality::Repeated {
        if let Some(size) = rules.size {
            writeln!(code, "found.size({name:?}, {member}.len(), {size:?});")?;
        }
        if let Some(check) = check_value(rules, field, "value")? {
            writeln!(code, "for value in &{member} {{ {check} }}")?;
        }
    } else {
        if let Kind::Message(_) = field.kind() {
            if rules.required {
                writeln!(code, "if {member}.is_none() {{ found.missing({name:?}); }}")?;
            }
            if let Some(check) = check_value(rules, field, "value")? {
                writeln!(code, "if let Some(value) = &{member} {{ {check} }}")?;
            }
        } else if let Some(check) = check_value(rules, field, &format!("&{member}"))? {
            writeln!(code, "{check}")?;
        }
    }
    Ok(code)
}

/// The check of one value, an expression of type `&T`; none where there is nothing to check.
fn check_value(rules: &Rules, field: &FieldDescriptor, value: &str) -> Result<Option<String>> {
    let name = field.name();
    match field.kind() {
        Kind::String => Ok(Some(format!(
            "found.text({name:?}, {value}, {}, &{});",
            rules.required,
            rules.text()
        ))),
        Kind::Int64 => Ok(rules.value.map(|range| {
            let unset = rules.zero_is_unset;
            format!("found.number({name:?}, *{value}, {range:?}, {unset});")
        })),
        Kind::Message(_) if nested_message(field).is_some() => {
            Ok(Some(format!("found.nested({name:?}, {value});")))
        }
        _ => Ok(None),
    }
}

/// The rules of one field, as written in its options.
#[derive(Default)]
struct Rules {
    required: bool,
    pattern: Option<String>,
    value: Option<(Option<i64>, Option<i64>)>,
    /// A number that may be left out, although zero is outside its range.
    zero_is_unset: bool,
    size: Option<(Option<i64>, Option<i64>)>,
    length: Option<(Option<i64>, Option<i64>)>,
    key_pattern: Option<String>,
    key_length: Option<(Option<i64>, Option<i64>)>,
}

impl Rules {
    /// Refuses a rule for which a field of this kind has no check.
    fn check_kind(&self, field: &FieldDescriptor) -> Result<()> {
        let (map, list) = (field.is_map(), field.is_list());
        let text = !map && field.kind() == Kind::String;
        let message = !map && !list && matches!(field.kind(), Kind::Message(_));
        let fits = [
            (self.required, (text || message) && !list),
            (self.pattern.is_some(), map || text),
            (self.length.is_some(), map || text),
            (self.size.is_some(), map || list),
            (self.value.is_some(), field.kind() == Kind::Int64 && !list),
            (self.key_pattern.is_some() || self.key_length.is_some(), map),
        ];
        if fits.iter().any(|(stated, checked)| *stated && !checked) {
            return Err(format!("{}: a rule that is not for its type", field.full_name()).into());
        }
        Ok(())
    }

    fn text(&self) -> String {
        text_rule(self.length, self.pattern.as_deref())
    }

    fn key_text(&self) -> String {
        text_rule(self.key_length, self.key_pattern.as_deref())
    }
}

fn text_rule(length: Option<(Option<i64>, Option<i64>)>, pattern: Option<&str>) -> String {
    let pattern = match pattern {
        Some(pattern) => {
            format!("Some({{ static PATTERN: Pattern = Pattern::new({pattern:?}); &PATTERN }})")
        }
        None => "None".to_owned(),
    };
    format!(
        "TextRule {{ length: {:?}, pattern: {pattern} }}",
        length.unwrap_or((None, None))
    )
}

/// The extensions of `yandex/cloud/validation.proto`.
struct Options {
    exactly_one: ExtensionDescriptor,
}

impl Options {
    fn new(pool: &DescriptorPool) -> Result<Self> {
        let exactly_one = pool
            .get_extension_by_name("yandex.cloud.exactly_one")
            .ok_or("yandex/cloud/validation.proto does not declare exactly_one")?;
        Ok(Self { exactly_one })
    }

    fn exactly_one(&self, options: &DynamicMessage) -> bool {
        options.has_extension(&self.exactly_one)
            && options.get_extension(&self.exactly_one).as_bool() == Some(true)
    }

    /// Whether a field is a text of which a oneof needs exactly one: chosen but empty is not chosen.
    fn is_chosen_text(&self, field: &FieldDescriptor) -> bool {
        let oneof = field.containing_oneof();
        field.kind() == Kind::String
            && oneof.is_some_and(|oneof| self.exactly_one(&oneof.options()))
    }

    fn rules(&self, field: &FieldDescriptor) -> Result<Rules> {
        let options = field.options();
        let mut rules = Rules::default();
        for (extension, value) in options.extensions() {
            let name = extension.full_name();
            let Some(rule) = name.strip_prefix("yandex.cloud.") else {
                continue;
            };
            let text = value.as_str().unwrap_or_default();
            match rule {
                "required" => rules.required = value.as_bool() == Some(true),
                "pattern" => rules.pattern = Some(checked_pattern(text)?),
                "value" => {
                    let range = parse_range(text)?;
                    rules.zero_is_unset = range.0.is_some_and(|least| least > 0);
                    rules.value = Some(range);
                }
                "size" => rules.size = Some(parse_range(text)?),
                "length" => rules.length = Some(parse_range(text)?),
                "map_key" => {
                    let Value::Message(spec) = value else {
                        return Err(format!("{}: map_key", field.full_name()).into());
                    };
                    for (part, value) in spec.fields() {
                        let text = value.as_str().unwrap_or_default();
                        match part.name() {
                            "pattern" => rules.key_pattern = Some(checked_pattern(text)?),
                            "length" => rules.key_length = Some(parse_range(text)?),
                            other => {
                                return Err(
                                    format!("{}: map_key.{other}", field.full_name()).into()
                                );
                            }
                        }
                    }
                }
                other => {
                    return Err(format!("{}: no code for ({other})", field.full_name()).into());
                }
            }
        }
        rules.check_kind(field)?;
        Ok(rules)
    }
}

fn checked_pattern(pattern: &str) -> Result<String> {
    regex_syntax::parse(pattern).map_err(|error| format!("pattern {pattern}: {error}"))?;
    Ok(pattern.to_owned())
}

/// `<=50`, `1-63`, `>0`, `0-1000`, `5` as an inclusive range.
fn parse_range(text: &str) -> Result<(Option<i64>, Option<i64>)> {
    let number = |text: &str| -> Result<i64> {
        text.trim()
            .parse()
            .map_err(|_| format!("not a range: {text:?}").into())
    };
    Ok(if let Some(rest) = text.strip_prefix("<=") {
        (None, Some(number(rest)?))
    } else if let Some(rest) = text.strip_prefix(">=") {
        (Some(number(rest)?), None)
    } else if let Some(rest) = text.strip_prefix('<') {
        (None, Some(number(rest)? - 1))
    } else if let Some(rest) = text.strip_prefix('>') {
        (Some(number(rest)? + 1), None)
    } else if let Some((least, most)) = text.split_once('-') {
        (Some(number(least)?), Some(number(most)?))
    } else {
        (Some(number(text)?), Some(number(text)?))
    })
}
