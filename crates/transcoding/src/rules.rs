//! Reads the `google.api.http` rules of services out of their descriptors into a router. A method
//! without a rule is served as `POST /package.Service/Method`, its request as the body.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::uri::PathAndQuery;
use prost::encoding::WireType;
use prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, MethodDescriptor,
};
use prost_types::method_options::IdempotencyLevel;

use super::{
    codec::{Codec, MessageType},
    router::{Route, RouteMethod, Router},
    template::{Template, TemplateError},
    values,
};

const HTTP_EXTENSION: &str = "google.api.http";
/// The message that stands for a body which is not JSON.
const HTTP_BODY: &str = "google.api.HttpBody";

/// Why the rules of some services make no router.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A service that the pool does not have.
    #[error("the descriptors have no service {0}")]
    UnknownService(String),
    /// A rule whose path is not a template.
    #[error("{method}: {source}")]
    BadTemplate {
        /// The gRPC method.
        method: String,
        /// The problem, and where it is.
        source: TemplateError,
    },
    /// A rule that cannot be served.
    #[error("{method}: its HTTP rule {rule}: {problem}")]
    BadRule {
        /// The gRPC method.
        method: String,
        /// The rule, as `GET /path`.
        rule: String,
        /// The problem, and what would be right.
        problem: String,
    },
    /// Two rules that match the same requests.
    #[error("{second} conflicts with {first}: the same method and shape of path")]
    Conflict {
        /// The rule that was there first, with its gRPC method.
        first: String,
        /// The other.
        second: String,
    },
}

/// A gRPC method that HTTP rules lead to.
///
/// None of these types can be printed: prost-reflect prints a message type with those of its fields,
/// and never ends with a type that holds itself.
pub(crate) struct Method {
    /// `package.Service/Method`, for messages.
    pub name: String,
    /// `/package.Service/Method`.
    pub path: PathAndQuery,
    /// The type of the request.
    pub input: MessageDescriptor,
    /// The type of the reply.
    pub output: MessageDescriptor,
    /// The type of the request in the codec.
    pub input_type: MessageType,
    /// The type of the reply in the codec.
    pub output_type: MessageType,
    /// Whether requests are streams.
    pub client_streaming: bool,
    /// Whether replies are streams.
    pub server_streaming: bool,
    /// Whether it is marked as one without side effects.
    pub is_safe: bool,
}

/// One HTTP rule of a method.
#[derive(Clone)]
pub(crate) struct Binding {
    /// The method.
    pub method: Arc<Method>,
    /// The target of the body.
    pub body: BodyRule,
    /// Whether the body is taken as it is, into a `google.api.HttpBody`.
    pub takes_raw_body: bool,
    /// The field of the reply that is answered, where it is not the whole.
    pub reply_field: Option<FieldDescriptor>,
    /// Whether what is answered is a `google.api.HttpBody`, sent as it is.
    pub gives_raw_body: bool,
    /// The fields of the template's variables, each from the request message down.
    pub variables: Vec<Vec<FieldDescriptor>>,
    /// For each of these that is nothing but a text in the request message: its key on the wire, and
    /// whether it is there where it is empty.
    pub texts: Vec<Option<(u32, bool)>>,
    /// The rule as `GET /path`.
    rule: String,
}

/// The target of the body of a request.
#[derive(Clone, PartialEq)]
pub(crate) enum BodyRule {
    /// There is none.
    None,
    /// The body is the whole request message.
    Whole,
    /// The body is this field of the request message.
    Field(FieldDescriptor),
}

impl Binding {
    /// The rule, as `GET /path`.
    pub(crate) fn rule(&self) -> &str {
        &self.rule
    }

    fn title(&self) -> String {
        format!("{} ({})", self.rule, self.method.name)
    }
}

/// The router of every rule of the named services. The codec is that of the same pool.
pub(crate) fn compile<I>(
    pool: &DescriptorPool,
    codec: &Codec,
    services: I,
) -> Result<Router<Binding>, BuildError>
where
    I: IntoIterator<Item: AsRef<str>>,
{
    let mut router = Router::default();
    for name in services {
        let name = name.as_ref();
        let service = pool
            .get_service_by_name(name)
            .ok_or_else(|| BuildError::UnknownService(name.to_owned()))?;
        for method in service.methods() {
            add_rules(&mut router, codec, &method, http_rule(&method).as_ref())?;
        }
    }
    Ok(router)
}

fn http_rule(method: &MethodDescriptor) -> Option<DynamicMessage> {
    let extension = method.parent_pool().get_extension_by_name(HTTP_EXTENSION)?;
    let options = method.options();
    if !options.has_extension(&extension) {
        return None;
    }
    options.get_extension(&extension).as_message().cloned()
}

/// Adds every rule of a method, or the one that stands for none.
fn add_rules(
    router: &mut Router<Binding>,
    codec: &Codec,
    descriptor: &MethodDescriptor,
    rule: Option<&DynamicMessage>,
) -> Result<(), BuildError> {
    let name = format!(
        "{}/{}",
        descriptor.parent_service().full_name(),
        descriptor.name()
    );
    let bad_method = |problem: String| BuildError::BadRule {
        method: name.clone(),
        rule: "is left out".to_owned(),
        problem,
    };
    let (input, output) = (descriptor.input(), descriptor.output());
    let message_type = |message: &MessageDescriptor| {
        let found = codec.find(message);
        found.ok_or_else(|| bad_method(format!("the codec has no {}", message.full_name())))
    };
    let options = &descriptor.method_descriptor_proto().options;
    let method = Arc::new(Method {
        path: PathAndQuery::from_maybe_shared(lasting(format!("/{name}")))
            .map_err(|_| bad_method("the name of the method makes no path".to_owned()))?,
        input_type: message_type(&input)?,
        output_type: message_type(&output)?,
        name: name.clone(),
        input,
        output,
        client_streaming: descriptor.is_client_streaming(),
        server_streaming: descriptor.is_server_streaming(),
        is_safe: options
            .as_ref()
            .is_some_and(|options| options.idempotency_level() == IdempotencyLevel::NoSideEffects),
    });
    let Some(rule) = rule else {
        return add_rule(router, &method, &Rule::of_no_rule(&method));
    };
    add_rule(router, &method, &Rule::read(rule))?;
    for additional in list_field(rule, "additional_bindings") {
        if !list_field(&additional, "additional_bindings").is_empty() {
            return Err(BuildError::BadRule {
                method: method.name.clone(),
                rule: Rule::read(&additional).title(),
                problem: "an additional binding has additional bindings of its own".to_owned(),
            });
        }
        add_rule(router, &method, &Rule::read(&additional))?;
    }
    Ok(())
}

/// One `google.api.HttpRule`, read.
struct Rule {
    /// GET and the like, `*` for any method; empty where the rule has none.
    verb: String,
    path: String,
    body: String,
    response_body: String,
}

impl Rule {
    fn read(rule: &DynamicMessage) -> Self {
        let (verb, path) = pattern(rule);
        Self {
            verb,
            path,
            body: text_field(rule, "body"),
            response_body: text_field(rule, "response_body"),
        }
    }

    fn of_no_rule(method: &Method) -> Self {
        Self {
            verb: "POST".to_owned(),
            path: method.path.to_string(),
            body: "*".to_owned(),
            response_body: String::new(),
        }
    }

    fn title(&self) -> String {
        format!("{} {}", self.verb, self.path)
    }
}

fn add_rule(
    router: &mut Router<Binding>,
    method: &Arc<Method>,
    rule: &Rule,
) -> Result<(), BuildError> {
    let bad_rule = |problem: String| BuildError::BadRule {
        method: method.name.clone(),
        rule: rule.title(),
        problem,
    };
    let route_method = match rule.verb.as_str() {
        "" => return Err(bad_rule("it has no method".to_owned())),
        "*" => RouteMethod::Any,
        verb => RouteMethod::Exactly(
            verb.parse()
                .map_err(|_| bad_rule(format!("\"{verb}\" is no HTTP method")))?,
        ),
    };
    let template = Template::parse(&rule.path).map_err(|source| BuildError::BadTemplate {
        method: method.name.clone(),
        source,
    })?;
    let read = matches!(&route_method, RouteMethod::Any)
        || route_method == RouteMethod::Exactly(http::Method::GET);
    let binding = binding(method, rule, &template).map_err(bad_rule)?;
    let second = binding.title();
    let route = Route {
        method: route_method,
        serves_head: method.is_safe && read,
        template,
        value: binding,
    };
    router.insert(route).map_err(|first| BuildError::Conflict {
        first: first.title(),
        second,
    })
}

fn binding(method: &Arc<Method>, rule: &Rule, template: &Template) -> Result<Binding, String> {
    let variables = template
        .variables
        .iter()
        .map(|variable| variable_field(&method.input, &variable.field_path))
        .collect::<Result<Vec<_>, _>>()?;
    let body = body_rule(&method.input, &rule.body)?;
    if let BodyRule::Field(field) = &body
        && variables
            .iter()
            .any(|path| path.as_slice() == [field.clone()])
    {
        return Err(format!(
            "the field {} is bound by the path and by the body",
            field.name()
        ));
    }
    let reply_field = match rule.response_body.as_str() {
        "" => None,
        name => Some(method.output.get_field_by_name(name).ok_or_else(|| {
            format!(
                "{} has no field {name} for the response body",
                method.output.full_name()
            )
        })?),
    };
    Ok(Binding {
        takes_raw_body: match &body {
            BodyRule::None => false,
            BodyRule::Whole => method.input.full_name() == HTTP_BODY,
            BodyRule::Field(field) => is_http_body(field),
        },
        gives_raw_body: match &reply_field {
            None => method.output.full_name() == HTTP_BODY,
            Some(field) => is_http_body(field),
        },
        method: Arc::clone(method),
        body,
        reply_field,
        texts: variables.iter().map(|fields| text_key(fields)).collect(),
        variables,
        rule: rule.title(),
    })
}

fn text_key(fields: &[FieldDescriptor]) -> Option<(u32, bool)> {
    let [field] = fields else {
        return None;
    };
    let key = field.number() << 3 | u32::from(WireType::LengthDelimited as u8);
    (field.kind() == Kind::String).then(|| (key, field.supports_presence()))
}

fn is_http_body(field: &FieldDescriptor) -> bool {
    let kind = field.kind();
    let message = kind.as_message();
    !field.is_list() && message.is_some_and(|message| message.full_name() == HTTP_BODY)
}

/// A text that is there until the process ends. All requests for a method have its path, and a count of its
/// users would go back and forth between all threads.
fn lasting(text: String) -> Bytes {
    // However many routers are built, each text is there once.
    static TEXTS: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
    let mut texts = TEXTS.lock().unwrap_or_else(PoisonError::into_inner);
    let known = texts.get(&*text).copied();
    let text = known.unwrap_or_else(|| text.leak());
    texts.insert(text);
    Bytes::from_static(text.as_bytes())
}

/// Method and path of a rule, empty where it has none.
fn pattern(rule: &DynamicMessage) -> (String, String) {
    for (field, verb) in [
        ("get", "GET"),
        ("put", "PUT"),
        ("post", "POST"),
        ("delete", "DELETE"),
        ("patch", "PATCH"),
    ] {
        if rule.has_field_by_name(field) {
            return (verb.to_owned(), text_field(rule, field));
        }
    }
    let custom = rule.get_field_by_name("custom");
    match custom.as_ref().and_then(|custom| custom.as_message()) {
        Some(custom) => (text_field(custom, "kind"), text_field(custom, "path")),
        None => (String::new(), String::new()),
    }
}

fn list_field(message: &DynamicMessage, name: &str) -> Vec<DynamicMessage> {
    let value = message.get_field_by_name(name);
    let list = value.as_ref().and_then(|value| value.as_list());
    let messages = list.unwrap_or_default().iter();
    messages
        .filter_map(|item| item.as_message().cloned())
        .collect()
}

fn text_field(message: &DynamicMessage, name: &str) -> String {
    let value = message.get_field_by_name(name);
    let text = value.as_ref().and_then(|value| value.as_str());
    text.unwrap_or_default().to_owned()
}

/// The fields that a variable's path names, the last of which takes one text.
fn variable_field(
    input: &MessageDescriptor,
    names: &[String],
) -> Result<Vec<FieldDescriptor>, String> {
    let mut fields: Vec<FieldDescriptor> = Vec::with_capacity(names.len());
    for name in names {
        let message = match fields.last() {
            None => input.clone(),
            Some(parent) => match parent.kind() {
                Kind::Message(message) if !parent.is_list() && !parent.is_map() => message,
                _ => return Err(format!("the field {} is not a message", parent.name())),
            },
        };
        let field = message
            .get_field_by_name(name)
            .ok_or_else(|| format!("{} has no field {name}", message.full_name()))?;
        fields.push(field);
    }
    if let Some(field) = fields.last() {
        let takes_text = match field.kind() {
            Kind::Message(message) => values::is_text_message(&message),
            _ => true,
        };
        if field.is_list() || field.is_map() || !takes_text {
            return Err(format!(
                "the field {} cannot be a variable: only scalars, enums and messages written as one \
                 text can",
                field.full_name()
            ));
        }
    }
    Ok(fields)
}

fn body_rule(input: &MessageDescriptor, body: &str) -> Result<BodyRule, String> {
    match body {
        "" => Ok(BodyRule::None),
        "*" => Ok(BodyRule::Whole),
        name => input
            .get_field_by_name(name)
            .map(BodyRule::Field)
            .ok_or_else(|| format!("{} has no field {name} for the body", input.full_name())),
    }
}
