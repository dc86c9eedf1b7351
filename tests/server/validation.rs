//! Every rule that the contract states by options, violated: the requests are made from them.

use std::collections::BTreeSet;

use desktop_images::contract;
use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor, Value as Reflected};
use serde_json::{Map, Value, json};
use test_support::{Disk, Fill, Method, TestServer, Transport};
use tonic::Code;

/// The value of an option of the contract on a field.
fn option(field: &FieldDescriptor, name: &str) -> Option<String> {
    let name = format!("yandex.cloud.{name}");
    let extension = contract::descriptor_pool().get_extension_by_name(&name)?;
    let options = field.options();
    options
        .has_extension(&extension)
        .then(|| match &*options.get_extension(&extension) {
            Reflected::String(text) => text.clone(),
            Reflected::Bool(flag) => flag.to_string(),
            other => format!("{other:?}"),
        })
}

fn is_required(field: &FieldDescriptor) -> bool {
    option(field, "required").as_deref() == Some("true")
}

/// The upper bound of a range such as `<=50` or `0-1000`.
fn most(range: &str) -> i64 {
    let digits = range.rsplit(['-', '=']).next().unwrap_or_default();
    digits
        .parse()
        .unwrap_or_else(|_| panic!("the range {range:?} has no upper bound"))
}

/// A request that violates nothing.
fn valid(message: &MessageDescriptor) -> Value {
    let mut request = Map::new();
    for field in message.fields().filter(is_required) {
        request.insert(field.json_name().to_owned(), json!("x"));
    }
    // An update without a mask resets what is left out, and a name cannot be.
    if message.get_field_by_name("update_mask").is_some() {
        request.insert("name".to_owned(), json!("x"));
    }
    for oneof in message.oneofs().filter(|oneof| !oneof.is_synthetic()) {
        let first = oneof.fields().next().expect("a member");
        request.insert(first.json_name().to_owned(), json!("x"));
    }
    Value::Object(request)
}

/// Values of a field that violate its rules, with the path that the refusal names.
fn violating(field: &FieldDescriptor) -> Vec<(Value, String)> {
    let name = field.name();
    let length = option(field, "length");
    let pattern = option(field, "pattern");
    let mut values = Vec::new();
    if field.is_map() {
        let too_many: Map<String, Value> = (0..65)
            .map(|number| (format!("k{number}"), json!("")))
            .collect();
        values.push((Value::Object(too_many), name.to_owned()));
        for (key, value) in [
            ("".to_owned(), "v".to_owned()),
            ("Upper".to_owned(), "v".to_owned()),
            ("1".to_owned(), "v".to_owned()),
            ("k".repeat(64), "v".to_owned()),
            ("k".to_owned(), "Upper".to_owned()),
            ("k".to_owned(), "v".repeat(64)),
            ("k".to_owned(), "\0".to_owned()),
            ("k\0".to_owned(), "v".to_owned()),
        ] {
            let shown: String = key.chars().take(63).flat_map(char::escape_debug).collect();
            values.push((json!({key: value}), format!("{name}[{shown}]")));
        }
        return values;
    }
    if let Some(range) = option(field, "value") {
        let mut numbers = vec![-1, i64::MIN];
        if range != ">=0" {
            numbers.extend([most(&range) + 1, i64::MAX]);
        }
        for number in numbers {
            values.push((json!(number.to_string()), name.to_owned()));
        }
    }
    if field.kind() == Kind::String {
        let mut texts = vec!["\0".to_owned(), "a\0b".to_owned()];
        texts.extend(length.map(|range| "😀".repeat(most(&range) as usize + 1)));
        if pattern.is_some() {
            texts.extend(["Ж", "a b", "-", "a-", "a\n"].map(str::to_owned));
            texts.push("a".repeat(64));
        }
        if is_required(field) {
            texts.push(String::new());
        }
        for text in texts {
            let value = if field.is_list() {
                json!(["x", text])
            } else {
                json!(text)
            };
            values.push((value, name.to_owned()));
        }
    }
    values
}

fn fields(method: Method) -> Vec<FieldDescriptor> {
    let message = contract::descriptor_pool().get_message_by_name(&method.request());
    message
        .expect("a request of the contract")
        .fields()
        .collect()
}

#[tokio::test]
async fn each_rule_of_the_contract_is_kept_over_both_transports() {
    let server = TestServer::start().await;
    let mut count = 0;
    for caller in server.callers() {
        for method in Method::ALL {
            let message = contract::descriptor_pool().get_message_by_name(&method.request());
            let mut valid = valid(&message.expect("a request of the contract"));
            if method == Method::DesktopUpdate {
                // Without a mask, what is left out is reset, and a name cannot be.
                valid["name"] = json!("x");
            }
            for field in fields(method) {
                for (value, expected) in violating(&field) {
                    // An empty variable makes another path.
                    if caller.transport == Transport::Rest && value == json!("") {
                        continue;
                    }
                    let mut request = valid.clone();
                    if field.containing_oneof().is_some() {
                        let members = request.as_object_mut().unwrap();
                        members.remove("imageId");
                    }
                    request[field.json_name()] = value;
                    let refusal = caller.call(method, request.clone()).await.unwrap_err();
                    let what = format!("{method:?} {request}: {}", refusal.message);
                    assert_eq!(refusal.code, Code::InvalidArgument, "{what}");
                    assert_eq!(refusal.fields, [expected.as_str()], "{what}");
                    let line = format!("Validation failed:\n  - {expected}: ");
                    assert!(refusal.message.starts_with(&line), "{what}");
                    count += 1;
                }
            }
        }
    }
    assert!(count > 300, "only {count} violations were tried");
}

#[tokio::test]
async fn all_violations_are_told_at_once() {
    let server = TestServer::start().await;
    for caller in server.callers() {
        for method in Method::ALL {
            let mut request = Map::new();
            let mut expected = BTreeSet::new();
            let mut oneofs = BTreeSet::new();
            for field in fields(method) {
                if let Some(oneof) = field.containing_oneof()
                    && !oneofs.insert(oneof.name().to_owned())
                {
                    continue;
                }
                let values = violating(&field).into_iter();
                let Some((value, path)) = values.rev().find(|(value, _)| *value != json!(""))
                else {
                    continue;
                };
                request.insert(field.json_name().to_owned(), value);
                expected.insert(path);
            }
            // A request without fields violates nothing.
            if expected.is_empty() {
                continue;
            }
            let request = Value::Object(request);
            let refusal = caller.call(method, request.clone()).await.unwrap_err();
            assert_eq!(refusal.code, Code::InvalidArgument, "{method:?}");
            let lines: Vec<&str> = refusal.message.lines().collect();
            assert_eq!(lines[0], "Validation failed:");
            assert_eq!(
                lines.len() - 1,
                expected.len(),
                "{method:?}: {}",
                refusal.message
            );
            let found: BTreeSet<String> = refusal.fields.into_iter().collect();
            assert_eq!(found, expected, "{method:?} {request}");
        }
        // What is required and what is left out counts too.
        let refusal = caller.call(Method::Copy, json!({})).await.unwrap_err();
        assert_eq!(
            refusal.message,
            "Validation failed:\n  - folder_id: Field is required\n  - name: Field is required\n  \
             - image_id: Field is required"
        );
        let refusal = caller
            .call(Method::Create, json!({"name": "A"}))
            .await
            .unwrap_err();
        assert_eq!(refusal.fields, ["folder_id", "name", "source"]);
        let request = json!({"imageId": "x", "description": "d".repeat(1025)});
        let refusal = caller.call(Method::DesktopUpdate, request).await;
        let mut fields = refusal.unwrap_err().fields;
        fields.sort();
        assert_eq!(fields, ["description", "name"]);
    }
}

#[tokio::test]
async fn what_is_just_within_the_rules_is_taken() {
    let server = TestServer::start().await;
    let source = server
        .compute_image("f", "", &Disk::mbr(4, Fill::Sparse(1)))
        .await;
    let labels = |value: &str| -> Map<String, Value> {
        let keys = (0..62).map(|number| format!("k{number}"));
        let keys = keys.chain(["k".to_owned(), format!("k{}", "-_0".repeat(20) + "ab")]);
        keys.map(|key| (key, json!(value.repeat(63)))).collect()
    };
    for caller in server.callers() {
        // Characters are counted, not bytes.
        let folder = format!("{}{:?}", "😀".repeat(46), caller.transport);
        let name = "😀".repeat(50);
        let copy = json!({
            "folderId": folder, "name": name, "imageId": source, "labels": labels("_"),
            "description": "😀".repeat(1024),
        });
        let operation = caller.call(Method::Copy, copy.clone()).await.unwrap();
        for field in ["folderId", "name", "labels", "description"] {
            assert_eq!(operation["response"][field], copy[field], "{field}");
        }
        let query = json!({
            "folderId": folder, "pageSize": 1000,
            "filter": format!("name = '{name}'{}", " ".repeat(1000 - 59)),
            "orderBy": format!("name{}", " ".repeat(96)),
        });
        let page = caller.call(Method::DesktopList, query).await.unwrap();
        assert_eq!(page["desktopImages"].as_array().unwrap().len(), 1);

        for name in ["a", "a-_0", &"a".repeat(63), ""] {
            let create = json!({
                "folderId": folder, "name": name, "imageId": source, "family": "f-0",
                "labels": labels("/"), "description": "😀".repeat(256),
                "productIds": ["😀".repeat(50), ""], "minDiskSize": "4194304",
            });
            let operation = caller.call(Method::Create, create.clone()).await.unwrap();
            for field in ["name", "labels", "description", "productIds", "minDiskSize"] {
                assert_eq!(operation["response"][field], create[field], "{field}");
            }
        }
    }
}

#[tokio::test]
async fn text_deeper_in_a_request_has_no_nul_either() {
    let server = TestServer::start().await;
    let source = server
        .compute_image("f", "", &Disk::mbr(1, Fill::Sparse(1)))
        .await;
    for caller in server.callers() {
        for (method, fields, expected) in [
            (
                Method::Create,
                json!({"os": {"nvidia": {"driver": "a\0"}}, "folderId": "f"}),
                "os.nvidia.driver",
            ),
            (
                Method::ComputeUpdate,
                json!({"updateMask": "name,\0"}),
                "update_mask",
            ),
            (
                Method::DesktopUpdate,
                json!({"updateMask": "\0", "name": "n"}),
                "update_mask",
            ),
        ] {
            let mut request = fields;
            request["imageId"] = json!(source);
            let refusal = caller.call(method, request.clone()).await.unwrap_err();
            assert_eq!(refusal.code, Code::InvalidArgument, "{method:?} {request}");
            assert_eq!(refusal.fields, [expected], "{method:?} {request}");
        }
    }
}
