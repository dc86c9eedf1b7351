//! An OpenAPI 3.1 document of the HTTP rules of services, with the comments of their protos.
//!
//! Generators of clients read 3.0 rather than 3.1, so the document keeps to what both mean alike, where it
//! can: one type for each value, `format` for numbers and bytes, no `null`. Numbers of 64 bits are strings in
//! JSON, as they are written.
//!
//! Prose tells what OpenAPI 3.1 has no words for: methods of an API's own making (`custom`) are
//! listed in the description of the whole, and that a variable may hold slashes in that of the
//! parameter. Streams of requests, which are served over gRPC only, are left out.

mod comments;
mod limits;
mod operation;
mod paths;
mod schema;

use http::Method;
use prost_reflect::{DescriptorPool, FieldDescriptor, MessageDescriptor, MethodDescriptor};
use serde_json::{Map, Value, json};

use super::{
    codec::{self, Codec},
    router::{Route, RouteMethod},
    rules::{self, Binding, BuildError},
};
use comments::Comments;
pub use limits::{Bounds, Limits};
use paths::Paths;
use schema::Schemas;

/// The methods of HTTP that a rule for all of them is written out for.
const ANY: [Method; 5] = [
    Method::GET,
    Method::PUT,
    Method::POST,
    Method::DELETE,
    Method::PATCH,
];

/// The head of a document, which describes the whole API.
#[derive(Debug, Clone, Copy)]
pub struct Info<'i> {
    /// The name of the API.
    pub title: &'i str,
    /// The version of the API.
    pub version: &'i str,
    /// The purpose of the API, in CommonMark.
    pub description: &'i str,
}

/// The document of all methods of the named services; `limits` tells what the fields of requests may
/// hold.
///
/// # Errors
///
/// [`BuildError::UnknownService`], [`BuildError::BadTemplate`], [`BuildError::BadRule`] and [`BuildError::Conflict`].
pub fn openapi(
    pool: &DescriptorPool,
    services: impl IntoIterator<Item = impl AsRef<str>>,
    info: Info<'_>,
    limits: impl Fn(&FieldDescriptor) -> Limits,
) -> Result<Value, BuildError> {
    let comments = Comments::of(pool);
    let codec = Codec::new(pool, codec::Settings::default());
    let mut schemas = Schemas::new(&comments, &limits);
    let mut paths = Paths::default();
    let mut untold = Vec::new();
    let mut tags = Vec::new();
    for service in services {
        let service = service.as_ref();
        let router = rules::compile(pool, &codec, [service])?;
        let Some(descriptor) = pool.get_service_by_name(service) else {
            continue;
        };
        let mut tag = json!({"name": descriptor.name()});
        schema::describe(&mut tag, comments.service(&descriptor));
        tags.push(tag);
        for route in router.routes() {
            let mut methods = descriptor.methods();
            let name = route.value.method.name.rsplit('/').next();
            if let Some(method) = methods.find(|method| Some(method.name()) == name) {
                untold.extend(add(route, &method, &mut paths, &mut schemas));
            }
        }
    }
    let mut description = info.description.to_owned();
    if !untold.is_empty() {
        description.push_str("\n\nServed, too, by methods that OpenAPI has no place for:\n");
        description.push_str(&untold.concat());
    }
    let error = schemas.status(pool);
    Ok(json!({
        "openapi": "3.1.0",
        "info": {
            "title": info.title,
            "version": info.version,
            "description": description,
        },
        "tags": tags,
        "paths": paths.into_json(),
        "components": {
            "schemas": Value::Object(schemas.into_components()),
            "responses": {
                "Error": {
                    "description": "The call failed; the body says why.",
                    "content": {"application/json": {"schema": error}},
                },
            },
        },
    }))
}

/// The parameters of a query that holds the fields of a message, as those of [`openapi`]: for what is served
/// beside gRPC methods. Fields of the names are left out.
pub fn openapi_query(
    message: &MessageDescriptor,
    left_out: &[&str],
    limits: impl Fn(&FieldDescriptor) -> Limits,
) -> Vec<Value> {
    let comments = Comments::of(message.parent_pool());
    operation::query(message, left_out, &mut Schemas::new(&comments, &limits))
}

/// Adds the operations of a route. What has no place among them is returned, as an item of a list.
fn add(
    route: &Route<Binding>,
    method: &MethodDescriptor,
    paths: &mut Paths,
    schemas: &mut Schemas<'_>,
) -> Option<String> {
    if route.value.method.client_streaming {
        return None;
    }
    let mut untold = None;
    let served: &[Method] = match &route.method {
        RouteMethod::Any => &ANY,
        RouteMethod::Exactly(method) => std::slice::from_ref(method),
    };
    for http_method in served {
        let Some(key) = path_item_key(http_method) else {
            let (rule, name) = (route.value.rule(), &route.value.method.name);
            untold = Some(format!("\n- `{rule}` ({name})"));
            continue;
        };
        let (path, names) = paths.of(&route.template);
        let operation = operation::operation(route, method, &names, schemas);
        paths.insert(&path, key, operation);
    }
    untold
}

/// The member of a path that a method has in OpenAPI.
fn path_item_key(method: &Method) -> Option<&'static str> {
    Some(match method.as_str() {
        "GET" => "get",
        "PUT" => "put",
        "POST" => "post",
        "DELETE" => "delete",
        "OPTIONS" => "options",
        "HEAD" => "head",
        "PATCH" => "patch",
        "TRACE" => "trace",
        _ => return None,
    })
}

/// An object of these members.
fn object(members: impl IntoIterator<Item = (&'static str, Value)>) -> Map<String, Value> {
    let members = members.into_iter();
    members
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}
