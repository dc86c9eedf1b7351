//! `Idempotency-Key` on every method that changes something, over both transports.

use serde_json::json;
use test_support::{Disk, Fill, Method, TestServer, failure, image_id, response, text};
use tonic::Code;

const KEY: &str = "idempotency-key";

fn new_key() -> String {
    uuid::Uuid::new_v4().to_string()
}

#[tokio::test]
async fn a_repeated_request_gets_the_first_operation_over_either_transport() {
    let server = TestServer::start().await;
    let disk = Disk::mbr(8, Fill::Sparse(1));
    let source = server.compute_image("f", "", &disk).await;
    for caller in server.callers() {
        let id = server.copied("f", "to-change", &source).await;
        let compute = server
            .ask(Method::Create, json!({"folderId": "g", "imageId": source}))
            .await;
        let compute = image_id(&compute);
        for (method, request) in [
            (
                Method::Copy,
                json!({"folderId": "f", "name": "copy", "imageId": source}),
            ),
            (
                Method::DesktopUpdate,
                json!({"imageId": id, "name": "renamed", "labels": {"a": "b", "c": "d"}}),
            ),
            (Method::DesktopDelete, json!({"imageId": id})),
            (
                Method::Create,
                json!({"folderId": "h", "name": "made", "imageId": source}),
            ),
            (
                Method::ComputeUpdate,
                json!({"imageId": compute, "name": "renamed"}),
            ),
            (Method::ComputeDelete, json!({"imageId": compute})),
        ] {
            let key = new_key();
            let upper = key.to_uppercase();
            let first = caller
                .call_with(method, request.clone(), &[(KEY, &key)])
                .await
                .unwrap();
            for again in server.callers() {
                for key in [&key, &upper] {
                    let repeated = again
                        .call_with(method, request.clone(), &[(KEY, key)])
                        .await;
                    assert_eq!(repeated.as_ref(), Ok(&first), "{method:?}");
                }
            }
        }
        for (method, name) in [
            (Method::DesktopList, "desktopImages"),
            (Method::ComputeList, "images"),
        ] {
            let folder = if method == Method::DesktopList {
                "f"
            } else {
                "h"
            };
            let page = caller
                .call(method, json!({"folderId": folder}))
                .await
                .unwrap();
            assert_eq!(page[name].as_array().unwrap().len(), 1, "{page}");
            let made = text(&page[name][0], "id").to_owned();
            let delete = if method == Method::DesktopList {
                Method::DesktopDelete
            } else {
                Method::ComputeDelete
            };
            server.ask(delete, json!({"imageId": made})).await;
        }
    }
}

#[tokio::test]
async fn a_repeat_shows_the_operation_as_it_now_stands_also_after_a_restart() {
    let mut server = TestServer::start().await;
    let uri = server.importable("disk.img", &Disk::mbr(1, Fill::Sparse(1)));
    let request = json!({"folderId": "f", "name": "n", "uri": uri});
    let key = new_key();
    let mut operations = Vec::new();
    for caller in server.callers() {
        let accepted = caller
            .call_with(Method::Create, request.clone(), &[(KEY, &key)])
            .await
            .unwrap();
        operations.push(text(&accepted, "id").to_owned());
    }
    assert_eq!(operations[0], operations[1]);
    let done = server.wait(&operations[0]).await;
    response(&done);
    server.restart().await;
    for caller in server.callers() {
        let repeated = caller
            .call_with(Method::Create, request.clone(), &[(KEY, &key)])
            .await;
        assert_eq!(repeated.as_ref(), Ok(&done));
    }
    assert_eq!(server.compute_images("f").await, 1);
}

#[tokio::test]
async fn an_import_is_repeated_also_when_its_file_is_gone() {
    let server = TestServer::start().await;
    let uri = server.importable("disk.img", &Disk::mbr(1, Fill::Sparse(1)));
    let request = json!({"folderId": "f", "name": "n", "uri": uri});
    let key = new_key();
    let headers = [(KEY, key.as_str())];
    let caller = &server.callers()[0];
    let accepted = caller.call_with(Method::Create, request.clone(), &headers);
    let accepted = accepted.await.unwrap();
    let done = server.wait(text(&accepted, "id")).await;
    std::fs::remove_file(server.imports().join("disk.img")).unwrap();
    for caller in server.callers() {
        let repeated = caller.call_with(Method::Create, request.clone(), &headers);
        assert_eq!(repeated.await.as_ref(), Ok(&done));
        let other = json!({"folderId": "f", "name": "other", "uri": uri});
        let refusal = caller.call_with(Method::Create, other, &headers).await;
        let message = refusal.unwrap_err().message;
        assert!(message.contains("dempotency"), "{message}");
    }
}

#[tokio::test]
async fn a_key_is_for_one_request() {
    let server = TestServer::start().await;
    let source = server
        .compute_image("f", "", &Disk::mbr(1, Fill::Sparse(1)))
        .await;
    for caller in server.callers() {
        let key = new_key();
        let name = format!("{:?}", caller.transport);
        let request = json!({"folderId": "f", "name": name, "imageId": source});
        let first = caller
            .call_with(Method::Copy, request, &[(KEY, &key)])
            .await
            .unwrap();
        let id = image_id(&first);
        for (method, request) in [
            (
                Method::Copy,
                json!({"folderId": "f", "name": "other", "imageId": source}),
            ),
            (
                Method::Copy,
                json!({"folderId": "f", "name": name, "imageId": source, "labels": {"a": ""}}),
            ),
            (Method::DesktopDelete, json!({"imageId": id})),
            (Method::ComputeDelete, json!({"imageId": source})),
        ] {
            let refusal = caller
                .call_with(method, request, &[(KEY, &key)])
                .await
                .unwrap_err();
            assert_eq!(refusal.code, Code::InvalidArgument);
            assert!(
                refusal.message.contains("dempotency"),
                "{}",
                refusal.message
            );
        }
        for wrong in ["", "x", "1", "00000000-0000-0000-0000-00000000000g"] {
            let request = json!({"folderId": "f", "name": "wrong", "imageId": source});
            let refusal = caller
                .call_with(Method::Copy, request, &[(KEY, wrong)])
                .await
                .unwrap_err();
            assert_eq!(refusal.code, Code::InvalidArgument, "{wrong:?}");
            assert!(refusal.message.contains("UUID"), "{}", refusal.message);
        }
        // Reads carry keys too, with some clients, and mean nothing by them.
        for key in [key.as_str(), "no UUID"] {
            for (method, request) in [
                (Method::DesktopGet, json!({"imageId": id})),
                (Method::DesktopList, json!({"folderId": "f"})),
                (Method::ComputeGet, json!({"imageId": source})),
                (Method::ComputeList, json!({"folderId": "f"})),
                (Method::ListOperations, json!({"imageId": source})),
                (Method::OperationGet, json!({"operationId": first["id"]})),
            ] {
                let granted = caller.call_with(method, request, &[(KEY, key)]).await;
                assert!(granted.is_ok(), "{method:?}: {granted:?}");
            }
        }
    }
    let page = server
        .ask(Method::DesktopList, json!({"folderId": "f"}))
        .await;
    assert_eq!(page["desktopImages"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_refused_request_does_not_use_up_its_key() {
    let server = TestServer::start().await;
    let source = server
        .compute_image("f", "", &Disk::mbr(1, Fill::Sparse(1)))
        .await;
    for caller in server.callers() {
        let key = new_key();
        let taken = server.copied("f", "name", &source).await;
        let request = json!({"folderId": "f", "name": "name", "imageId": source});
        let refusal = caller
            .call_with(Method::Copy, request.clone(), &[(KEY, &key)])
            .await;
        assert_eq!(refusal.unwrap_err().code, Code::AlreadyExists);
        server
            .ask(Method::DesktopDelete, json!({"imageId": taken}))
            .await;
        let granted = caller
            .call_with(Method::Copy, request, &[(KEY, &key)])
            .await
            .unwrap();
        server
            .ask(
                Method::DesktopDelete,
                json!({"imageId": image_id(&granted)}),
            )
            .await;
    }
}

#[tokio::test]
async fn an_upload_is_repeated_safely_too() {
    let server = TestServer::start().await;
    let disk = Disk::mbr(1, Fill::Random(1));
    let send = |name: &str, key: &str, body: Vec<u8>| {
        let request = server.upload("f", name).header(KEY, key).body(body);
        async {
            let reply = request.send().await.unwrap();
            let status = reply.status().as_u16();
            let body = reply.bytes().await.unwrap();
            (
                status,
                serde_json::from_slice::<serde_json::Value>(&body).unwrap(),
            )
        }
    };
    let key = new_key();
    let (_, first) = send("n", &key, disk.clone()).await;
    response(&first);
    let (status, repeated) = send("n", &key, disk.clone()).await;
    assert_eq!((status, &repeated), (200, &first));
    let (status, _) = send("m", &key, disk.clone()).await;
    assert_eq!(status, 400);

    let key = new_key();
    let (_, failed) = send("bad", &key, b"no disk".to_vec()).await;
    failure(&failed);
    let (status, repeated) = send("bad", &key, b"no disk".to_vec()).await;
    assert_eq!((status, &repeated), (200, &failed));
    assert_eq!(server.compute_images("f").await, 1);
}

/// A key may be written in several ways, over every transport, for uploads too.
#[tokio::test]
async fn a_quoted_key_is_the_key_without_its_quotes_and_only_plain_spellings_are_taken() {
    let server = TestServer::start().await;
    let disk = Disk::mbr(1, Fill::Sparse(1));
    let source = server.compute_image("f", "", &disk).await;
    let key = "123e4567-e89b-12d3-a456-4266141740";
    for (number, caller) in server.callers().iter().enumerate() {
        let key = format!("{key}{number:02}");
        let request = json!({"folderId": "f", "name": key, "imageId": source});
        let send = |spelling: String| {
            let request = request.clone();
            async move {
                let headers = [(KEY, spelling.as_str())];
                caller.call_with(Method::Copy, request, &headers).await
            }
        };
        let first = send(key.clone()).await.expect("granted");
        for spelling in [
            format!("\"{key}\""),
            key.to_uppercase(),
            key.replace('-', ""),
            format!("\"{}\"", key.to_uppercase()),
        ] {
            let again = send(spelling.clone()).await;
            let again = again.unwrap_or_else(|refused| panic!("{spelling}: {refused:?}"));
            assert_eq!(again["id"], first["id"], "{spelling}");
        }
        for spelling in [
            format!("{{{key}}}"),
            format!("urn:uuid:{key}"),
            format!("\"{{{key}}}\""),
            format!("\"{key}"),
            format!("{key}, {key}"),
        ] {
            let refused = send(spelling.clone()).await.expect_err(&spelling);
            assert_eq!(refused.code, Code::InvalidArgument, "{spelling}");
            assert!(
                refused.fields.contains(&"Idempotency-Key".to_owned()),
                "{refused:?}"
            );
        }
    }
    let upload = |keys: Vec<String>| {
        let mut request = server.upload("f", "uploaded").body(disk.clone());
        for key in keys {
            request = request.header(KEY, key);
        }
        async {
            let reply = request.send().await.expect("a reply");
            let status = reply.status().as_u16();
            let body = reply.bytes().await.expect("a body");
            let body: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
            (status, body)
        }
    };
    let key = format!("{key}99");
    let (_, first) = upload(vec![key.clone()]).await;
    response(&first);
    let (status, again) = upload(vec![format!("\"{key}\"")]).await;
    assert_eq!((status, &again["id"]), (200, &first["id"]));
    for keys in [
        vec![format!("{{{key}}}")],
        vec![format!("urn:uuid:{key}")],
        // Two lines are two keys, also where they are equal.
        vec![key.clone(), key.clone()],
    ] {
        let (status, refused) = upload(keys.clone()).await;
        assert_eq!((status, &refused["code"]), (400, &json!(3)), "{keys:?}");
    }
    // Over REST, and as metadata.
    let twice = server
        .http
        .post(server.url("/cloud-desktop/v1/images:copy"));
    let twice = twice.header(KEY, &key).header(KEY, &key);
    let reply = twice.body(json!({"folderId": "f", "name": "n", "imageId": source}).to_string());
    assert_eq!(reply.send().await.expect("a reply").status(), 400);
    let mut request = tonic::Request::new(test_support::from_json(
        &json!({"folderId": "f", "name": "n", "imageId": source}),
    ));
    for _ in 0..2 {
        let value = key.parse().expect("a value");
        request.metadata_mut().append("idempotency-key", value);
    }
    let refused = server.desktop().copy(request).await.expect_err("two keys");
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().contains("more than once"), "{refused}");
}
