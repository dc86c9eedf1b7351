//! Many operations in one folder do not keep those of another waiting.

use serde_json::json;
use test_support::{Disk, Fill, Method, TestServer, failure, response, text};
use tonic::Code;

#[tokio::test]
async fn a_folder_with_many_imports_leaves_room_for_the_others() {
    let server = TestServer::start_with(|config| config.operations.concurrency = 2).await;
    let large = server.importable_hole("large.img", 64 << 30);
    let mut many = Vec::new();
    for _ in 0..10 {
        let request = json!({"folderId": "a", "uri": large});
        many.push(server.ask(Method::Create, request).await);
    }
    let small = server.importable("small.img", &Disk::mbr(1, Fill::Random(1)));
    for _ in 0..3 {
        let request = json!({"folderId": "b", "uri": small});
        let one = server.ask(Method::Create, request).await;
        response(&server.wait(text(&one, "id")).await);
    }
    for operation in &many {
        let request = json!({"operationId": operation["id"]});
        let shown = server.ask(Method::OperationGet, request.clone()).await;
        assert_eq!(shown["done"], false, "the file is too small to tell");
        server.ask(Method::OperationCancel, request).await;
    }
    // Those that wait are cancelled without a turn of their own.
    for operation in &many {
        let ended = server.wait(text(operation, "id")).await;
        assert_eq!(failure(&ended).0, Code::Cancelled);
    }
    server.has_blobs(1).await;
}
