//! OperationWatchService: operations are followed without polling.

use std::collections::BTreeSet;
use std::time::Duration;

use desktop_images::contract::desktopimages::v1::WatchOperationRequest;
use serde_json::json;
use test_support::{
    Disk, Fill, Method, Refusal, SlowUpload, TestServer, Watch, failure, response, text, within,
};
use tonic::Code;

#[tokio::test]
async fn a_running_import_is_followed_to_its_end() {
    let server = TestServer::start().await;
    let uri = server.importable_hole("large.img", 64 << 30);
    let request = json!({"folderId": "f", "name": "n", "uri": uri});
    let accepted = server.ask(Method::Create, request).await;
    let id = text(&accepted, "id");
    let mut watch = Watch::start(&server, id).await;
    let mut seen = BTreeSet::new();
    let mut modified_at = text(&accepted, "modifiedAt").to_owned();
    while seen.len() < 3 {
        let state = watch
            .until(|words| words.starts_with("Importing image: ") && words.ends_with(" of 64 GiB"))
            .await;
        assert_eq!(state["id"], accepted["id"]);
        assert_eq!(state["done"], false, "{state}");
        assert!(state.get("error").is_none() && state.get("response").is_none());
        assert!(
            text(&state, "modifiedAt") >= modified_at.as_str(),
            "{state}"
        );
        modified_at = text(&state, "modifiedAt").to_owned();
        seen.insert(text(&state, "description").to_owned());
    }
    let request = json!({"operationId": id});
    server.ask(Method::OperationCancel, request.clone()).await;
    let rest = watch.rest().await;
    let (last, before) = rest.split_last().expect("an end");
    assert!(before.iter().all(|state| state["done"] == false));
    assert_eq!(failure(last).0, Code::Cancelled);
    assert_eq!(text(last, "description"), "Create image");
    assert_eq!(&server.ask(Method::OperationGet, request).await, last);
}

#[tokio::test]
async fn what_succeeds_ends_with_its_response() {
    let server = TestServer::start_with(|config| {
        config.operations.simulated_latency = Duration::from_secs(1);
    })
    .await;
    let uri = server.importable("disk.img", &Disk::mbr(1, Fill::Sparse(1)));
    let request = json!({"folderId": "f", "name": "n", "uri": uri});
    let accepted = server.ask(Method::Create, request).await;
    let id = text(&accepted, "id");
    // Any number may watch.
    let watches = [
        Watch::start(&server, id).await,
        Watch::start(&server, id).await,
    ];
    for watch in watches {
        let states = watch.rest().await;
        assert_eq!(states[0]["done"], false, "{states:?}");
        let last = states.last().expect("an end");
        assert_eq!(response(last)["status"], "READY");
        let read = server
            .ask(Method::OperationGet, json!({"operationId": id}))
            .await;
        assert_eq!(&read, last);
    }
}

#[tokio::test]
async fn what_has_ended_is_told_once() {
    let server = TestServer::start().await;
    let succeeded = server
        .uploaded("f", "", &Disk::mbr(1, Fill::Sparse(1)))
        .await;
    let failed = server.uploaded("f", "", b"no disk").await;
    for operation in [succeeded, failed] {
        let watch = Watch::start(&server, text(&operation, "id")).await;
        assert_eq!(watch.rest().await, [operation]);
    }
}

#[tokio::test]
async fn an_upload_tells_how_much_has_come() {
    let server = TestServer::start().await;
    let disk = Disk::mbr(2, Fill::Random(1));
    let upload = SlowUpload::start(&server, "f", "slow", &disk[..3 << 19]).await;
    let mut watch = Watch::start(&server, &upload.operation_id).await;
    watch
        .until(|words| words == "Uploading image: 1.5 MiB")
        .await;
    upload.send(&disk[3 << 19..]).await;
    let operation = upload.finish().await;
    assert_eq!(watch.rest().await.last(), Some(&operation));
    assert_eq!(text(&operation, "description"), "Create image");
}

#[tokio::test]
async fn what_is_not_there_cannot_be_watched() {
    let server = TestServer::start().await;
    for (id, code, fields) in [
        ("e3v00000000000000000", Code::NotFound, vec![]),
        ("x", Code::NotFound, vec![]),
        ("", Code::InvalidArgument, vec!["operation_id".to_owned()]),
    ] {
        let request = WatchOperationRequest {
            operation_id: id.to_owned(),
        };
        let status = server.operation_watch().watch(request).await.unwrap_err();
        let refusal = Refusal::from_status(&status);
        assert_eq!((refusal.code, refusal.fields), (code, fields), "{id:?}");
    }
}

#[tokio::test]
async fn a_server_that_stops_sends_its_watchers_away() {
    let mut server = TestServer::start_with(|config| {
        config.drain_timeout = Duration::from_secs(3600);
    })
    .await;
    let uri = server.importable_hole("large.img", 64 << 30);
    let request = json!({"folderId": "f", "uri": uri});
    let accepted = server.ask(Method::Create, request).await;
    let id = text(&accepted, "id");
    let mut watch = Watch::start(&server, id).await;
    watch.next().await.unwrap().expect("the present state");
    let end = tokio::spawn(async move {
        loop {
            if let Err(code) = watch.next().await {
                return code;
            }
        }
    });
    within("the server stops", server.stop()).await;
    assert_eq!(end.await.unwrap(), Code::Unavailable);
    server.start_again().await.unwrap();
    let mut watch = Watch::start(&server, id).await;
    let state = watch.next().await.unwrap().expect("the present state");
    assert_eq!(state["done"], false);
    let request = json!({"operationId": id});
    server.ask(Method::OperationCancel, request).await;
    let rest = watch.rest().await;
    assert_eq!(failure(rest.last().expect("an end")).0, Code::Cancelled);
}
