//! The log: one line for each answered request with how it ended, ids on all that belongs to an operation, and
//! JSON that every parser reads in the same way.

use std::collections::HashSet;
use std::fmt;
use std::path::Path;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Value, json};
use test_support::{
    Disk, Fill, Method, ServerProcess, SlowUpload, Transport, Watch, eventually, failure, image_id,
    text,
};

/// JSON in which no object has a key twice.
struct Unique;

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Unique)
    }
}

impl<'de> Visitor<'de> for Unique {
    type Value = Unique;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(Unique)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self, E> {
        Ok(Unique)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self, E> {
        Ok(Unique)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self, E> {
        Ok(Unique)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self, E> {
        Ok(Unique)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self, E> {
        Ok(Unique)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self, A::Error> {
        while items.next_element::<Unique>()?.is_some() {}
        Ok(Unique)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self, A::Error> {
        let mut keys = HashSet::new();
        while let Some((key, _)) = entries.next_entry::<String, Unique>()? {
            if !keys.insert(key.clone()) {
                return Err(A::Error::custom(format!("the key {key:?} comes twice")));
            }
        }
        Ok(Unique)
    }
}

#[test]
fn keys_that_come_twice_are_found() {
    let parse = serde_json::from_str::<Unique>;
    assert!(parse(r#"{"a": [{"b": 1, "c": {}}], "b": null}"#).is_ok());
    assert!(parse(r#"{"a": [{"b": 1, "c": {}, "b": 2}]}"#).is_err());
}

fn lines(folder: &Path) -> Vec<Value> {
    let log = std::fs::read_to_string(folder.join("server.log")).unwrap();
    log.lines()
        .map(|line| {
            let unique = serde_json::from_str::<Unique>(line);
            assert!(unique.is_ok(), "{line}: {}", unique.err().unwrap());
            serde_json::from_str(line).unwrap()
        })
        .collect()
}

/// The line that tells of the answer to the request of this id.
fn answered<'l>(lines: &'l [Value], request_id: &str) -> &'l Value {
    let found = lines.iter().find(|line| {
        line["fields"]["message"] == "answered" && line["span"]["request_id"] == request_id
    });
    found.unwrap_or_else(|| panic!("no line tells of the answer to {request_id}"))
}

#[tokio::test]
async fn each_answer_is_logged_with_how_it_ended_and_why() {
    let folder = tempfile::tempdir().unwrap();
    let server = ServerProcess::start_with(folder.path(), &["--log-format", "json"]).await;
    let disk = Disk::mbr(1, Fill::Sparse(1));
    let source = server.compute_image("f", "source", &disk).await;
    let quota = json!({"folderId": "full", "name": "vdi.desktopImages.count", "limit": "0"});
    server.ask(Method::QuotaSet, quota).await;
    let copy =
        |folder: &str, name: &str| json!({"folderId": folder, "name": name, "imageId": source});
    let mut expected = Vec::new();
    for (number, transport) in [Transport::Grpc, Transport::Rest].into_iter().enumerate() {
        let caller = server.caller(transport);
        for (case, (method, request, status, reason)) in [
            (
                Method::DesktopGet,
                json!({"imageId": "nothing"}),
                "NOT_FOUND",
                "\"nothing\" not found",
            ),
            (Method::Copy, copy("f", &format!("n{number}")), "OK", ""),
            (
                Method::Copy,
                copy("f", &format!("n{number}")),
                "ALREADY_EXISTS",
                "already exists",
            ),
            (
                Method::Copy,
                copy("", "n"),
                "INVALID_ARGUMENT",
                "folder_id: Field is required",
            ),
            (
                Method::Copy,
                copy("full", "n"),
                "RESOURCE_EXHAUSTED",
                "Quota limit",
            ),
            (
                Method::OperationGet,
                json!({"operationId": "none"}),
                "NOT_FOUND",
                "Operation",
            ),
            (Method::QuotaList, json!({}), "OK", ""),
        ]
        .into_iter()
        .enumerate()
        {
            let request_id = format!("request-{number}-{case}");
            let headers = [("x-request-id", request_id.as_str())];
            let called = caller.call_with(method, request, &headers).await;
            let ids = called.ok().filter(|_| method == Method::Copy);
            expected.push((request_id, status, reason, ids));
        }
    }
    let url = server.url("/nowhere");
    let request = server.http.get(url).header("x-request-id", "nowhere");
    request.send().await.unwrap();
    expected.push(("nowhere".to_owned(), "NOT_FOUND", "nowhere", None));
    server.terminate();
    assert_eq!(server.exit_code().await, Some(0));
    let lines = lines(folder.path());
    for (request_id, status, reason, operation) in expected {
        let line = answered(&lines, &request_id);
        assert_eq!(line["fields"]["grpc_status"], status, "{line}");
        let said = line["fields"]["reason"].as_str().unwrap_or_default();
        assert!(said.contains(reason), "{line}");
        assert_eq!(said.is_empty(), reason.is_empty(), "{line}");
        if let Some(operation) = operation {
            assert_eq!(line["span"]["operation_id"], operation["id"], "{line}");
            assert_eq!(line["span"]["image_id"], image_id(&operation), "{line}");
            assert_eq!(line["span"]["folder_id"], "f", "{line}");
        }
    }
}

#[tokio::test]
async fn each_line_of_an_operation_has_image_folder_and_request() {
    let folder = tempfile::tempdir().unwrap();
    // Only warnings: the ids do not depend on the level.
    let arguments = [
        "--log-format",
        "json",
        "--log-level",
        "warn,desktop_images=info",
    ];
    for arguments in [&arguments[..2], &arguments[..]] {
        let server = ServerProcess::start_with(folder.path(), arguments).await;
        let mut operations = Vec::new();
        let bad = folder.path().join("imports/bad.img");
        std::fs::write(&bad, "no disk image").unwrap();
        let request = json!({"folderId": "f", "uri": format!("file://{}", bad.display())});
        let headers = [("x-request-id", "imported")];
        let caller = server.caller(Transport::Rest);
        let accepted = caller
            .call_with(Method::Create, request, &headers)
            .await
            .unwrap();
        failure(&server.wait(text(&accepted, "id")).await);
        operations.push((
            text(&accepted, "id").to_owned(),
            image_id(&accepted),
            "imported",
        ));

        let upload = server.upload("f", "").header("x-request-id", "uploaded");
        let reply = upload.body("no disk image").send().await.unwrap();
        let operation: Value = serde_json::from_str(&reply.text().await.unwrap()).unwrap();
        failure(&operation);
        operations.push((
            text(&operation, "id").to_owned(),
            image_id(&operation),
            "uploaded",
        ));

        let disk = Disk::mbr(1, Fill::Random(1));
        let upload = SlowUpload::start(&server, "f", "", &disk[..1000]).await;
        let watch = Watch::start(&server, &upload.operation_id).await;
        let request = json!({"operationId": upload.operation_id});
        server.ask(Method::OperationCancel, request).await;
        server.wait(&upload.operation_id).await;
        watch.rest().await;
        operations.push((upload.operation_id.clone(), upload.image_id.clone(), ""));
        server.terminate();
        assert_eq!(server.exit_code().await, Some(0));

        let lines = eventually("the log is whole", || async { Some(lines(folder.path())) }).await;
        for (operation_id, image_id, request_id) in operations {
            let of_it: Vec<_> = lines
                .iter()
                .filter(|line| line.to_string().contains(&format!("\"{operation_id}\"")))
                .collect();
            let failed = of_it
                .iter()
                .filter(|line| line["fields"]["message"] == "the operation failed");
            assert_eq!(failed.count(), 1, "{operation_id}: {of_it:?}");
            for line in of_it {
                let all = line.to_string();
                assert!(all.contains(&image_id), "{line}");
                assert!(all.contains("\"folder_id\":\"f\""), "{line}");
                assert!(all.contains("\"request_id\":\""), "{line}");
                let is_of_request = all.contains(&format!("\"request_id\":\"{request_id}\""));
                let asked_later =
                    all.contains("GET") || all.contains("Get") || all.contains("ListOperations");
                assert!(
                    request_id.is_empty() || is_of_request || asked_later,
                    "{line}"
                );
            }
        }
    }
}
