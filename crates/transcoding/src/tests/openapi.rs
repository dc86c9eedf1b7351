//! The OpenAPI document of the services made for tests.

use serde_json::{Value, json};

use super::{
    super::{Info, Limits, openapi},
    pool,
};

/// Limits of some fields, as a product would read them out of options of its own.
fn limits(field: &prost_reflect::FieldDescriptor) -> Limits {
    let limits = Limits::default();
    match field.full_name() {
        "transcoding.test.Thing.text" => Limits {
            required: true,
            length: (Some(1), Some(50)),
            pattern: Some("a|b".to_owned()),
            ..limits
        },
        "transcoding.test.Thing.long_number" => Limits {
            value: (Some(0), Some(1000)),
            ..limits
        },
        "transcoding.test.Thing.signed_number" => Limits {
            value: (None, Some(7)),
            ..limits
        },
        "transcoding.test.Thing.tags" => Limits {
            size: (Some(1), Some(3)),
            length: (None, Some(4)),
            ..limits
        },
        "transcoding.test.Thing.labels" => Limits {
            size: (None, Some(64)),
            length: (None, Some(63)),
            key_length: (Some(1), Some(63)),
            key_pattern: Some("[a-z]*".to_owned()),
            ..limits
        },
        _ => limits,
    }
}

fn document() -> Value {
    let info = Info {
        title: "t",
        version: "1",
        description: "d",
    };
    let services = ["transcoding.test.Things", "transcoding.test.Corners"];
    openapi(pool(), services, info, limits).expect("the rules are right")
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
        json!({
            "type": "array", "minItems": 1, "maxItems": 3,
            "items": {"type": "string", "maxLength": 4},
        })
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
    // A method that OpenAPI does not have is in no path, but in the words for people.
    assert!(paths["/v1/things/{text}"].get("purge").is_none());
    let description = document["info"]["description"].as_str();
    assert_eq!(
        description,
        Some(
            "d\n\nServed, too, by methods that OpenAPI has no place for:\n\n\
             - `PURGE /v1/things/{text}` (transcoding.test.Things/Create)\n\
             - `SEARCH /v2/one/{name}` (transcoding.test.Corners/Find)"
        )
    );
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
    let element = json!({"anyOf": [
        {"$ref": "#/components/schemas/transcoding.test.Corner"},
        {"allOf": [{"$ref": "#/components/schemas/google.rpc.Status"}, {"required": ["@type"]}]},
    ]});
    assert_eq!(
        watch["application/json"]["schema"],
        json!({"type": "array", "items": element})
    );
    assert_eq!(watch["application/x-ndjson"]["schema"], element);
    assert!(watch["text/event-stream"].is_object());
    assert_eq!(
        get["responses"]["default"]["$ref"],
        "#/components/responses/Error"
    );
    let error = &document["components"]["responses"]["Error"]["content"]["application/json"];
    assert_eq!(
        error["schema"]["$ref"],
        "#/components/schemas/google.rpc.Status"
    );
    let status = &document["components"]["schemas"]["google.rpc.Status"]["properties"];
    assert_eq!(
        status["details"]["items"]["properties"]["@type"]["type"],
        "string"
    );
    let download = &paths["/v2/bodies/{name}"]["get"]["responses"]["200"]["content"];
    assert!(download["*/*"].is_object());
}

#[test]
fn fields_have_their_limits() {
    let document = document();
    let thing = &document["components"]["schemas"]["transcoding.test.Thing"];
    assert_eq!(thing["required"], json!(["text"]));
    let properties = &thing["properties"];
    let text = json!({"type": "string", "minLength": 1, "maxLength": 50, "pattern": "^(?:a|b)$"});
    assert_eq!(properties["text"], text);
    // In JSON a string, as it is written; words say the bounds, which nothing compares with a string.
    assert_eq!(
        properties["longNumber"],
        json!({
            "type": "string", "format": "int64", "minimum": 0, "maximum": 1000,
            "description": "From 0 to 1000.",
        })
    );
    assert_eq!(
        properties["signedNumber"],
        json!({"type": "integer", "format": "int32", "maximum": 7, "description": "At most 7."})
    );
    let labels = json!({
        "type": "object", "maxProperties": 64,
        "additionalProperties": {"type": "string", "maxLength": 63},
        "propertyNames": {"minLength": 1, "maxLength": 63, "pattern": "^(?:[a-z]*)$"},
    });
    assert_eq!(properties["labels"], labels);

    // In a query there is but one form of a number, and null has none.
    let query = &document["paths"]["/v1/query"]["get"];
    let long = parameter(query, "longNumber");
    assert_eq!(
        (&long["schema"], &long["description"]),
        (
            &json!({"type": "integer", "format": "int64", "minimum": 0, "maximum": 1000}),
            &json!("From 0 to 1000.")
        )
    );
    assert_eq!(
        parameter(query, "wrappedNumber")["schema"],
        json!({"type": "integer", "format": "int64"})
    );
    assert_eq!(parameter(query, "labels")["schema"], labels);
    assert_eq!(parameter(query, "text")["required"], true);
    assert_eq!(
        parameter(query, "child.text").get("required"),
        None,
        "only where child is given"
    );
    let path = parameter(&document["paths"]["/v1/things/{text}"]["get"], "text");
    assert_eq!(path["schema"], text);

    // What must be there makes the body needed; what the path gives is not asked for again.
    let body = |path: &str, method: &str| &document["paths"][path][method]["requestBody"];
    let create = body("/v1/things", "post");
    assert_eq!(create["required"], true);
    let update = body("/v1/things/{text}", "patch");
    assert_eq!(update.get("required"), None);
    let schema = &update["content"]["application/json"]["schema"];
    assert!(schema["properties"].get("text").is_none(), "{schema}");
    assert_eq!(schema["properties"]["labels"], labels);
    assert_eq!(schema.get("required"), None);
    let deep = body("/v1/things/{child.child.text}/child", "patch");
    let schema = &deep["content"]["application/json"]["schema"];
    assert_eq!(schema["required"], json!(["text"]));
    let child = &schema["properties"]["child"];
    assert_eq!(child["required"], json!(["text"]));
    let grandchild = &child["properties"]["child"];
    assert!(grandchild["properties"].get("text").is_none());
    assert_eq!(grandchild.get("required"), None);
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
        thing["properties"]["longUnsignedNumber"],
        json!({"type": "string", "format": "uint64"})
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
