//! Blobs that lose their last image while others come to need them.

use futures_util::future::join_all;
use serde_json::json;
use test_support::{Disk, Fill, Method, TestServer, Transport, image_id};
use tonic::Code;

const RACES: usize = 1000;
const AT_ONCE: usize = 8;

/// Copies an image while it is deleted; its only blob is removed with it, unless the Copy came first.
async fn race(server: &TestServer, number: usize) {
    let folder = format!("folder-{number}");
    let disk = Disk::mbr(1, Fill::Sparse(number as u64));
    let source = server.compute_image(&folder, "source", &disk).await;
    let [copying, deleting] = server.callers();
    let copied = async {
        let request = json!({"folderId": folder, "name": "copy", "imageId": source});
        copying.call(Method::Copy, request).await
    };
    let deleted = async {
        let request = json!({"imageId": source});
        deleting.call(Method::ComputeDelete, request).await
    };
    // Equal bytes that come meanwhile get a blob that stays.
    let again = async {
        if !number.is_multiple_of(4) {
            return None;
        }
        Some(server.uploaded(&folder, "again", &disk).await)
    };
    let (copied, deleted, again) = tokio::join!(copied, deleted, again);
    deleted.expect("the source was there");
    let mut readable = Vec::new();
    match copied {
        Ok(operation) => readable.push(image_id(&operation)),
        Err(refusal) => assert_eq!(refusal.code, Code::NotFound, "{refusal:?}"),
    }
    if let Some(operation) = again {
        let id = image_id(&operation);
        readable.push(server.copied(&folder, "copy of it", &id).await);
        let request = json!({"imageId": id});
        server.ask(Method::ComputeDelete, request).await;
    }
    for id in readable {
        assert!(server.downloaded(&id).await == disk, "{number}: {id}");
        let caller = server.caller(Transport::Rest);
        let request = json!({"imageId": id});
        caller.call(Method::DesktopDelete, request).await.unwrap();
    }
}

#[tokio::test]
async fn a_copy_that_was_granted_can_be_read_whatever_is_deleted_meanwhile() {
    let server = TestServer::start().await;
    for first in (0..RACES).step_by(AT_ONCE) {
        join_all((first..first + AT_ONCE).map(|number| race(&server, number))).await;
    }
    server.has_blobs(0).await;
}
