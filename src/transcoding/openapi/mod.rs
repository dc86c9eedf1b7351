//! An OpenAPI 3.1 document of the HTTP rules of services, with the comments of their protos.
//!
//! What OpenAPI has no words for is left out: methods of its own making (`custom`), and that a
//! variable may hold slashes, which is said in the parameter's description.

mod comments;
mod operation;
mod paths;
mod schema;

use http::Method;
use prost_reflect::{DescriptorPool, MethodDescriptor};
use serde_json::{Map, Value, json};

use super::{
    router::{Route, RouteMethod},
    rules::{self, Binding, BuildError},
};
use comments::Comments;
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

/// What a document says of the whole API.
#[derive(Debug, Clone, Copy)]
pub struct Info<'i> {
    /// The name of the API.
    pub title: &'i str,
    /// The version of the API.
    pub version: &'i str,
    /// What it is for, in CommonMark.
    pub description: &'i str,
}

/// The document of all methods of the named services.
pub fn openapi(
    pool: &DescriptorPool,
    services: impl IntoIterator<Item = impl AsRef<str>>,
    info: Info<'_>,
) -> Result<Value, BuildError> {
    let comments = Comments::of(pool);
    let mut schemas = Schemas::new(&comments);
    let mut paths = Paths::default();
    let mut tags = Vec::new();
    for service in services {
        let service = service.as_ref();
        let router = rules::compile(pool, [service])?;
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
                add(route, &method, &mut paths, &mut schemas);
            }
        }
    }
    let error = pool.get_message_by_name("google.rpc.Status").map_or_else(
        || json!({"type": "object"}),
        |status| schemas.message(&status),
    );
    Ok(json!({
        "openapi": "3.1.0",
        "info": {
            "title": info.title,
            "version": info.version,
            "description": info.description,
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

fn add(
    route: &Route<Binding>,
    method: &MethodDescriptor,
    paths: &mut Paths,
    schemas: &mut Schemas<'_>,
) {
    if route.value.method.client_streaming {
        return;
    }
    let served: &[Method] = match &route.method {
        RouteMethod::Any => &ANY,
        RouteMethod::Exactly(method) => std::slice::from_ref(method),
    };
    for http_method in served {
        let Some(key) = path_item_key(http_method) else {
            continue;
        };
        let (path, names) = paths.of(&route.template);
        let operation = operation::operation(route, method, &names, schemas);
        paths.insert(&path, key, operation);
    }
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
