//! Operations and audit events that have ended, and bytes that no image has, are removed after a configured time, and
//! nothing else is.

use std::time::Duration;

use serde_json::json;
use test_support::{
    Disk, Fill, Method, TestServer, Transport, audit_events, blob_files, eventually, failure,
    number, response,
};
use tonic::Code;

#[tokio::test]
async fn operations_are_pruned_with_their_keys_once_they_have_ended() {
    let mut server = TestServer::start().await;
    let disk = Disk::mbr(1, Fill::Sparse(1));
    let source = server.compute_image("f", "source", &disk).await;
    let request = json!({"folderId": "f", "name": "n", "imageId": source});
    let key = uuid::Uuid::new_v4().to_string();
    let headers = [("idempotency-key", key.as_str())];
    let caller = server.caller(Transport::Grpc);
    let first = caller
        .call_with(Method::Copy, request.clone(), &headers)
        .await;
    let first = first.unwrap();
    let uri = server.importable_hole("large.img", 64 << 30);
    let running = json!({"folderId": "f", "name": "large", "uri": uri});
    let running = server.ask(Method::Create, running).await;

    // Kept as long as configured.
    server.restart().await;
    let caller = server.caller(Transport::Grpc);
    let again = caller
        .call_with(Method::Copy, request.clone(), &headers)
        .await;
    assert_eq!(again.as_ref(), Ok(&first));

    server.config.retention.operations = Duration::ZERO;
    server.restart().await;
    let caller = server.caller(Transport::Grpc);
    eventually("the operation is pruned", || async {
        let asked = json!({"operationId": first["id"]});
        let asked = caller.call(Method::OperationGet, asked).await;
        asked
            .err()
            .map(|refusal| assert_eq!(refusal.code, Code::NotFound))
    })
    .await;
    // Without the key this is a new request, and the name is taken.
    let again = caller.call_with(Method::Copy, request, &headers).await;
    assert_eq!(again.unwrap_err().code, Code::AlreadyExists);
    let asked = json!({"operationId": running["id"]});
    let shown = server.ask(Method::OperationGet, asked.clone()).await;
    assert_eq!(shown["done"], false);
    server.ask(Method::OperationCancel, asked.clone()).await;
    // The end may be pruned before a client sees it, or a minute later.
    eventually("the cancelled operation has ended", || async {
        match caller.call(Method::OperationGet, asked.clone()).await {
            Ok(operation) => (operation["done"] == true).then_some(()),
            Err(refusal) => (refusal.code == Code::NotFound).then_some(()),
        }
    })
    .await;
}

#[tokio::test]
async fn audit_events_are_pruned_and_their_numbers_go_on() {
    let mut server = TestServer::start().await;
    let disk = Disk::mbr(1, Fill::Sparse(1));
    let source = server.compute_image("f", "source", &disk).await;
    for name in ["1", "2", "3"] {
        server.copied("f", name, &source).await;
    }
    let all = audit_events(&server, "", 0).await;
    server.restart().await;
    assert_eq!(audit_events(&server, "", 0).await, all);

    server.config.retention.audit_events = Duration::ZERO;
    server.restart().await;
    // The last one stays, for its number.
    eventually("events are pruned", || async {
        (audit_events(&server, "", 0).await == all[6..]).then_some(())
    })
    .await;
    server.config.retention.audit_events = Duration::from_secs(3600);
    server.restart().await;
    let request = json!({"folderId": "f", "name": "4", "imageId": source});
    response(&server.ask(Method::Copy, request).await);
    let after = audit_events(&server, "", 0).await;
    assert_eq!(after.len(), 4);
    assert!(number(&after[2], "sequence") > number(&all[7], "sequence"));
}

#[tokio::test]
async fn bytes_are_kept_for_a_while_after_their_last_image() {
    let hour = Duration::from_secs(3600);
    let mut server = TestServer::start_with(|config| config.retention.blobs = Some(hour)).await;
    let disk = Disk::mbr(1, Fill::Random(1));
    let first = server.compute_image("f", "first", &disk).await;
    // Equal bytes are stored anew, beside those that are kept.
    for kept in 1..=2 {
        let source = server.compute_image("f", "source", &disk).await;
        let copy = server.copied("f", "copy", &source).await;
        assert!(server.downloaded(&copy).await == disk);
        for (method, id) in [
            (Method::DesktopDelete, copy),
            (Method::ComputeDelete, source),
        ] {
            response(&server.ask(method, json!({"imageId": id})).await);
        }
        if kept == 1 {
            let request = json!({"imageId": first});
            response(&server.ask(Method::ComputeDelete, request).await);
        }
    }
    // Bytes that never were an image's are not kept.
    let failed = server
        .uploaded("f", "failed", b"\x1f\x8b\x08 compressed")
        .await;
    failure(&failed);

    // A start collects garbage before it serves.
    server.restart().await;
    assert_eq!(blob_files(&server.data()).len(), 3);
    for (retention, count) in [
        (Duration::from_millis(1), 0),
        // Where nothing is kept, the bytes go with the image.
        (Duration::ZERO, 0),
    ] {
        server.config.retention.blobs = Some(retention);
        server.restart().await;
        assert_eq!(blob_files(&server.data()).len(), count);
        let source = server.compute_image("f", "again", &disk).await;
        let request = json!({"imageId": source});
        response(&server.ask(Method::ComputeDelete, request).await);
    }
    server.has_blobs(0).await;
}
