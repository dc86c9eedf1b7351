//! What the OpenAPI document says of the services made for tests.

use serde_json::{Value, json};

use super::{
    super::{Info, openapi},
    pool,
};

fn document() -> Value {
    let info = Info {
        title: "t",
        version: "1",
        description: "d",
    };
    let services = ["transcoding.test.Things", "transcoding.test.Corners"];
    openapi(pool(), services, info).expect("the rules are right")
}

fn parameter(operation: &Value, name: &str) -> Value {
    let parameters = operation["parameters"].as_array().expect("parameters");
    let mut found = parameters.iter().filter(|own| own["name"] == name);
    let parameter = found
        .next()
        .unwrap_or_else(|| panic!("no {name}: {operation}"));
    assert!(found.next().is_none(), "{name} is there once");
    parameter.clone()
}

#[test]
fn paths_have_their_methods_and_parameters() {
    let document = document();
    let paths = &document["paths"];
    let get = &paths["/v1/things/{text}"]["get"];
    assert_eq!(get["operationId"], "Things_Get");
    assert_eq!(get["tags"], json!(["Things"]));
    let path = parameter(get, "text");
    assert_eq!(
        (&path["in"], &path["required"]),
        (&json!("path"), &json!(true))
    );
    let expected = json!({"name": "flag", "in": "query", "schema": {"type": "boolean"}});
    assert_eq!(parameter(get, "flag"), expected);
    assert_eq!(parameter(get, "child.flag")["schema"], expected["schema"]);
    assert_eq!(
        parameter(get, "tags")["schema"],
        json!({"type": "array", "items": {"type": "string"}})
    );
    let labels = parameter(get, "labels");
    assert_eq!(labels["style"], "deepObject");
    assert_eq!(parameter(get, "time")["schema"]["format"], "date-time");
    assert_eq!(get.get("requestBody"), None);
    assert_eq!(
        get["responses"]["200"]["content"]["application/json"]["schema"]["$ref"],
        "#/components/schemas/transcoding.test.Thing"
    );
    // A field in the body is no parameter, and one in the path is none in the query.
    let put = &paths["/v1/things/{text}"]["put"];
    let names: Vec<_> = put["parameters"]
        .as_array()
        .expect("a list")
        .iter()
        .collect();
    assert!(!names.iter().any(|own| {
        own["name"]
            .as_str()
            .is_some_and(|name| name.starts_with("child"))
    }));
    assert_eq!(names.iter().filter(|own| own["name"] == "text").count(), 1);
    assert!(put["requestBody"]["content"]["application/json"].is_object());
    // Everything is in the body.
    assert_eq!(paths["/v1/things"]["post"].get("parameters"), None);
    // A method that OpenAPI does not have.
    assert!(paths["/v1/things/{text}"].get("purge").is_none());
    assert!(paths["/v1/things/{text}:cancel"]["get"].is_object());
    assert!(paths["/v2/a%20b/{name}"]["get"].is_object());
    for method in ["get", "put", "post", "delete", "patch"] {
        assert!(paths["/v2/every/{name}"][method].is_object(), "{method}");
    }
    let deep = &paths["/v2/deep/{inner.inner.name}"]["get"];
    let deep = parameter(deep, "inner.inner.name");
    let description = deep["description"].as_str().unwrap_or_default();
    assert!(description.contains("`x/*/y/**`"), "{description}");
    // A method without a rule, and streams.
    assert!(paths["/transcoding.test.Things/WithoutRule"]["post"].is_object());
    assert!(
        paths.get("/v2/corners:collect").is_none(),
        "a stream of requests"
    );
    let watch = &paths["/v2/corners/{name}:watch"]["get"]["responses"]["200"]["content"];
    assert_eq!(watch["application/json"]["schema"]["type"], "array");
    assert!(watch["text/event-stream"].is_object());
    let download = &paths["/v2/bodies/{name}"]["get"]["responses"]["200"]["content"];
    assert!(download["*/*"].is_object());
}

#[test]
fn comments_and_names_are_those_of_the_protos() {
    let document = document();
    let cancel = &document["paths"]["/v1/things/{text}:cancel"]["get"];
    assert_eq!(cancel["summary"], "Bound to GET, with effects");
    assert_eq!(
        document["tags"][0],
        json!({"name": "Things", "description": "Unless said otherwise a method replies with its request."})
    );
    let thing = &document["components"]["schemas"]["transcoding.test.Thing"];
    assert_eq!(
        thing["properties"]["longNumber"],
        json!({"type": "string", "format": "int64"})
    );
    let either = thing["properties"]["eitherText"]["description"].as_str();
    assert_eq!(
        either,
        Some("Only one of `eitherText`, `eitherNumber`, `eitherChild` can be set.")
    );
    let failure = &document["components"]["schemas"]["transcoding.test.Failure"];
    let comment = &failure["properties"]["inTrailers"]["description"];
    assert_eq!(
        comment,
        "Whether the status follows in trailers, behind headers."
    );
}

#[test]
fn every_operation_has_its_own_id_and_every_reference_a_schema() {
    let document = document();
    let mut ids = std::collections::HashSet::new();
    for (path, item) in document["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("a path") {
            let id = operation["operationId"].as_str().expect("an id");
            assert!(ids.insert(id.to_owned()), "{method} {path}: {id}");
        }
    }
    let text = document.to_string();
    for part in text.split("\"$ref\":\"#").skip(1) {
        let pointer = part.split('"').next().expect("a reference");
        assert!(
            document.pointer(pointer).is_some_and(Value::is_object),
            "{pointer}"
        );
    }
}
