//! One HTTP rule as an operation: its parameters, its body, its replies.

use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor, MethodDescriptor};
use serde_json::{Map, Value, json};

use super::{
    comments, object,
    paths::{Part, parts},
    schema::{Place, Schemas, describe},
};
use crate::{
    router::Route,
    rules::{Binding, BodyRule},
    template::{Segment, Template, Variable},
    values,
};

/// The deepest field that is written out as a query parameter, in names. Deeper ones work, too.
const MAX_NAMES: usize = 4;

/// The description of the forms of a stream.
const STREAM: &str = "\n\nOne after another: as a JSON array, as lines of one message each, or as \
    server-sent events with one in the `data` of each and an event `end` behind them. A failure on the \
    way is the last element: a `google.rpc.Status` with `@type`, as an event of the name `error`.";

/// The operation of a rule; `names` are those of the parameters in its path.
pub(super) fn operation(
    route: &Route<Binding>,
    method: &MethodDescriptor,
    names: &[String],
    schemas: &mut Schemas<'_>,
) -> Map<String, Value> {
    let binding = &route.value;
    let service = method.parent_service();
    let mut parameters = path_parameters(route, names, schemas);
    if binding.body != BodyRule::Whole {
        let body = match &binding.body {
            BodyRule::Field(body) => Some(body),
            _ => None,
        };
        let mut query = Query {
            left_out: body.into_iter().cloned().collect(),
            variables: &binding.variables,
            schemas: &mut *schemas,
            parameters: &mut parameters,
        };
        query.fields(&method.input(), &mut Vec::new());
    }
    let comment = schemas.comments.method(method);
    let mut operation = object([
        (
            "operationId",
            format!("{}_{}", service.name(), method.name()).into(),
        ),
        ("tags", json!([service.name()])),
        (
            "responses",
            json!({
                "200": reply(binding, method, schemas),
                "default": {"$ref": "#/components/responses/Error"},
            }),
        ),
    ]);
    if !comment.is_empty() {
        operation.insert("summary".to_owned(), comments::summary(comment).into());
        operation.insert("description".to_owned(), comment.into());
    }
    if !parameters.is_empty() {
        operation.insert("parameters".to_owned(), parameters.into());
    }
    if let Some(body) = request_body(binding, method, schemas) {
        operation.insert("requestBody".to_owned(), body);
    }
    let options = method.method_descriptor_proto().options.as_ref();
    if options.is_some_and(|options| options.deprecated()) {
        operation.insert("deprecated".to_owned(), true.into());
    }
    operation
}

fn path_parameters(
    route: &Route<Binding>,
    names: &[String],
    schemas: &mut Schemas<'_>,
) -> Vec<Value> {
    let template = &route.template;
    let inputs = parts(template).into_iter().filter_map(|part| match part {
        Part::Literal(_) => None,
        Part::Variable(variable) => Some(Some(variable)),
        Part::Wildcard => Some(None),
    });
    inputs
        .zip(names)
        .map(|(variable, name)| {
            let position =
                |variable: &&Variable| template.variables.iter().position(|own| own == *variable);
            let field = variable
                .as_ref()
                .and_then(position)
                .and_then(|index| route.value.variables.get(index)?.last());
            let mut parameter = json!({"name": name, "in": "path", "required": true});
            let mut description = match field {
                Some(field) => described(&mut parameter, schemas.field(field, Place::Url)),
                None => {
                    parameter["schema"] = json!({"type": "string"});
                    String::new()
                }
            };
            if let Some(variable) = variable
                && variable.several_segments
            {
                description.push_str(&format!(
                    "\n\nMatches `{}`; its slashes stand in the path as they are.",
                    pattern(template, variable)
                ));
            }
            describe(&mut parameter, description.trim());
            parameter
        })
        .collect()
}

/// The pattern of a variable, as templates write it.
fn pattern(template: &Template, variable: &Variable) -> String {
    let segments = template.segments.get(variable.start..variable.end);
    let segments = segments.unwrap_or_default().iter();
    let texts: Vec<_> = segments
        .map(|segment| match segment {
            Segment::Literal(text) => text.as_str(),
            Segment::Single => "*",
            Segment::Multi => "**",
        })
        .collect();
    texts.join("/")
}

/// The parameters of a query that holds the fields of a message, but for those of the names.
pub(super) fn query(
    message: &MessageDescriptor,
    left_out: &[&str],
    schemas: &mut Schemas<'_>,
) -> Vec<Value> {
    let mut parameters = Vec::new();
    let left_out = left_out
        .iter()
        .filter_map(|name| message.get_field_by_name(name));
    let mut query = Query {
        left_out: left_out.collect(),
        variables: &[],
        schemas,
        parameters: &mut parameters,
    };
    query.fields(message, &mut Vec::new());
    parameters
}

/// Collects the fields that go into the query.
struct Query<'q, 'c> {
    /// Fields of the message itself that go elsewhere.
    left_out: Vec<FieldDescriptor>,
    /// Fields that the path gives.
    variables: &'q [Vec<FieldDescriptor>],
    schemas: &'q mut Schemas<'c>,
    parameters: &'q mut Vec<Value>,
}

impl Query<'_, '_> {
    fn fields(&mut self, message: &MessageDescriptor, above: &mut Vec<FieldDescriptor>) {
        for field in message.fields() {
            let is_elsewhere = above.is_empty() && self.left_out.contains(&field);
            if is_elsewhere || above.contains(&field) {
                continue;
            }
            above.push(field.clone());
            if !self.variables.contains(above) {
                self.field(&field, above);
            }
            above.pop();
        }
    }

    fn field(&mut self, field: &FieldDescriptor, above: &mut Vec<FieldDescriptor>) {
        let names: Vec<_> = above.iter().map(FieldDescriptor::json_name).collect();
        let mut parameter = json!({"name": names.join("."), "in": "query"});
        match field.kind() {
            Kind::Message(entry) if field.is_map() => {
                if !has_text(&entry.map_entry_value_field().kind()) {
                    return;
                }
                // name[key]=value
                parameter["style"] = "deepObject".into();
                parameter["explode"] = true.into();
            }
            kind if has_text(&kind) => {}
            Kind::Message(message) if !field.is_list() && above.len() < MAX_NAMES => {
                if message.package_name() != "google.protobuf" {
                    self.fields(&message, above);
                }
                return;
            }
            _ => return,
        }
        if above.len() == 1 && self.schemas.is_required(field) {
            parameter["required"] = true.into();
        }
        let description = described(&mut parameter, self.schemas.field(field, Place::Url));
        describe(&mut parameter, &description);
        self.parameters.push(parameter);
    }
}

/// Puts a schema into a parameter, which says itself what the field is; returns that.
fn described(parameter: &mut Value, mut schema: Value) -> String {
    let mut description = None;
    if let Value::Object(schema) = &mut schema {
        if let Some(deprecated) = schema.remove("deprecated") {
            parameter["deprecated"] = deprecated;
        }
        description = schema.remove("description");
    }
    parameter["schema"] = schema;
    let description = description.as_ref().and_then(Value::as_str);
    description.unwrap_or_default().to_owned()
}

/// Whether a value of this kind is written as one text.
fn has_text(kind: &Kind) -> bool {
    match kind {
        Kind::Message(message) => values::is_text_message(message),
        _ => true,
    }
}

fn request_body(
    binding: &Binding,
    method: &MethodDescriptor,
    schemas: &mut Schemas<'_>,
) -> Option<Value> {
    if binding.takes_raw_body {
        return Some(json!({"content": {"*/*": {}}}));
    }
    let in_path: Vec<_> = binding.variables.iter().map(Vec::as_slice).collect();
    let input = method.input();
    let (schema, required) = match &binding.body {
        BodyRule::None => return None,
        BodyRule::Whole if in_path.is_empty() => {
            let required = input.fields().any(|field| schemas.is_required(&field));
            (schemas.message(&input), required)
        }
        BodyRule::Whole => {
            let schema = schemas.message_without(&input, &in_path);
            let required = schema.get("required").is_some();
            (schema, required)
        }
        BodyRule::Field(field) => {
            let schema = schemas.field(field, Place::Json);
            (schema, schemas.is_required(field))
        }
    };
    let mut body = json!({"content": {"application/json": {"schema": schema}}});
    if required {
        body["required"] = true.into();
    }
    Some(body)
}

fn reply(binding: &Binding, method: &MethodDescriptor, schemas: &mut Schemas<'_>) -> Value {
    let output = method.output();
    let comment = schemas.comments.message(&output);
    let mut description = match comments::summary(comment) {
        summary if summary.is_empty() => "The reply.".to_owned(),
        summary => summary,
    };
    if binding.gives_raw_body {
        return json!({"description": description, "content": {"*/*": {}}});
    }
    let schema = match &binding.reply_field {
        None => schemas.message(&output),
        Some(field) => schemas.field(field, Place::Json),
    };
    let content = if binding.method.server_streaming {
        description.push_str(STREAM);
        let error = schemas.status(method.parent_pool());
        let error = json!({"allOf": [error, {"required": ["@type"]}]});
        let element = json!({"anyOf": [schema, error]});
        json!({
            "application/json": {"schema": {"type": "array", "items": element}},
            "application/x-ndjson": {"schema": element},
            "text/event-stream": {"schema": {"type": "string"}},
        })
    } else {
        json!({"application/json": {"schema": schema}})
    };
    json!({"description": description, "content": content})
}
