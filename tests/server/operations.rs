//! OperationService: what is read is tested with the methods that make operations; here is Cancel.

use serde_json::json;
use test_support::{Caller, Disk, Fill, Method, SlowUpload, TestServer, Transport, failure, text};
use tonic::Code;

/// Every way to cancel.
fn ways(server: &TestServer) -> [(Caller, Method); 3] {
    [
        (server.caller(Transport::Grpc), Method::OperationCancel),
        (server.caller(Transport::Rest), Method::OperationCancel),
        (
            server.caller(Transport::Rest),
            Method::OperationCancelByPost,
        ),
    ]
}

#[tokio::test]
async fn an_operation_that_is_done_stays_as_it_is() {
    let server = TestServer::start().await;
    let source = server
        .compute_image("f", "", &Disk::mbr(1, Fill::Sparse(1)))
        .await;
    let request = json!({"folderId": "f", "name": "n", "imageId": source});
    let succeeded = server.ask(Method::Copy, request).await;
    let failed = server.uploaded("f", "bad", b"no disk").await;
    failure(&failed);
    for operation in [succeeded, failed] {
        let request = json!({"operationId": operation["id"]});
        for (caller, method) in ways(&server) {
            let cancelled = caller.call(method, request.clone()).await;
            assert_eq!(cancelled.as_ref(), Ok(&operation));
        }
        let after = server.ask(Method::OperationGet, request).await;
        assert_eq!(after, operation);
    }
    // A body is taken, also one that repeats nothing.
    let url = server.url(&format!(
        "/operations/{}:cancel",
        text(
            &server
                .ask(
                    Method::Copy,
                    json!({"folderId": "f", "name": "m", "imageId": source})
                )
                .await,
            "id"
        )
    ));
    for body in ["{}", ""] {
        let reply = server.http.post(&url).body(body).send().await.unwrap();
        assert_eq!(reply.status(), 200, "{body:?}");
    }
}

#[tokio::test]
async fn a_running_upload_ends_cancelled_and_leaves_nothing() {
    let server = TestServer::start().await;
    let disk = Disk::mbr(1, Fill::Random(1));
    for (caller, method) in ways(&server) {
        let upload = SlowUpload::start(&server, "f", "slow", &disk[..300_000]).await;
        let request = json!({"operationId": upload.operation_id});
        let shown = caller.call(method, request.clone()).await.unwrap();
        assert_eq!(shown["id"], request["operationId"]);
        let operation = server.wait(&upload.operation_id).await;
        assert_eq!(failure(&operation).0, Code::Cancelled);
        // The uploader learns it without sending the rest.
        assert_eq!(upload.reply().await, operation);
        assert_eq!(server.compute_images("f").await, 0);
        server.has_blobs(0).await;
    }
    server.compute_image("f", "slow", &disk).await;
}

#[tokio::test]
async fn an_import_that_is_cancelled_leaves_nothing() {
    let server = TestServer::start().await;
    let path = server.imports().join("large.img");
    let disk = Disk::mbr(1, Fill::Sparse(1));
    std::fs::write(&path, &disk).unwrap();
    // Holes cost nothing to make and their digest takes a while.
    std::fs::File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(64 << 30)
        .unwrap();
    let uri = format!("file://{}", path.display());
    for (caller, method) in ways(&server) {
        let request = json!({"folderId": "f", "name": "n", "uri": uri});
        let accepted = server.ask(Method::Create, request).await;
        let request = json!({"operationId": accepted["id"]});
        caller.call(method, request).await.unwrap();
        let operation = server.wait(text(&accepted, "id")).await;
        assert_eq!(failure(&operation).0, Code::Cancelled);
        assert_eq!(server.compute_images("f").await, 0);
        server.has_blobs(0).await;
    }
}
