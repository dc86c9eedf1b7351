//! Quotas: set over the API, kept by every change, exact whatever races.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use test_support::{
    Clients, Disk, Fill, Method, SlowUpload, TestServer, failure, image_id, number,
    quota_violations, response, text,
};
use tonic::Code;

const DESKTOP_COUNT: &str = "vdi.desktopImages.count";
const DESKTOP_SIZE: &str = "vdi.desktopImages.size";
const COMPUTE_COUNT: &str = "compute.images.count";
const COMPUTE_SIZE: &str = "compute.images.size";

async fn set(clients: &Clients, folder_id: &str, name: &str, limit: Option<i64>) -> Value {
    let mut request = json!({"folderId": folder_id, "name": name});
    if let Some(limit) = limit {
        request["limit"] = json!(limit.to_string());
    }
    clients.ask(Method::QuotaSet, request).await
}

/// The usage under the only limit of a folder; an empty id: of all together.
async fn used(clients: &Clients, folder_id: &str) -> i64 {
    let page = clients.ask(Method::QuotaList, json!({})).await;
    let quotas = page["quotas"].as_array().unwrap();
    let quota = quotas.iter().find(|quota| quota["folderId"] == folder_id);
    number(quota.expect("a limit"), "used")
}

async fn copy(
    clients: &Clients,
    folder_id: &str,
    name: &str,
    source: &str,
) -> Result<String, Code> {
    let request = json!({"folderId": folder_id, "name": name, "imageId": source});
    let caller = clients.caller(test_support::Transport::Grpc);
    match caller.call(Method::Copy, request).await {
        Ok(operation) => Ok(image_id(&operation)),
        Err(refusal) => Err(refusal.code),
    }
}

#[tokio::test]
async fn a_limit_is_exact_whatever_races() {
    const LIMIT: i64 = 5;
    let server = TestServer::start().await;
    let disk = Disk::mbr(1, Fill::Random(1));
    let source = server.compute_image("f", "source", &disk).await;
    let size = Disk::stored_size(&disk);
    for (folder, scope, name, limit) in [
        ("a", "a", DESKTOP_COUNT, LIMIT),
        ("b", "b", DESKTOP_SIZE, LIMIT * size + size / 2),
    ] {
        set(&server, scope, name, Some(limit)).await;
        let calls = (0..40).map(|number| {
            let caller = server.callers()[number % 2].clone();
            let name = format!("copy-{number}");
            let request = json!({"folderId": folder, "name": name, "imageId": source});
            async move { caller.call(Method::Copy, request).await }
        });
        let replies = join_all(calls).await;
        let granted: Vec<_> = replies.iter().flatten().collect();
        assert_eq!(granted.len() as i64, LIMIT, "{name}");
        let message = format!("Quota limit {name} exceeded");
        for refusal in replies.iter().filter_map(|reply| reply.as_ref().err()) {
            assert_eq!(refusal.code, Code::ResourceExhausted);
            assert_eq!(refusal.message, message);
            let used = if name == DESKTOP_SIZE {
                LIMIT * size
            } else {
                LIMIT
            };
            let more = used / LIMIT;
            let words = format!("{message}: limit {limit}, used {used}, {more} more asked for");
            assert_eq!(refusal.quotas, [(format!("folder:{folder}"), words)]);
        }
        let unit = if name == DESKTOP_SIZE { size } else { 1 };
        assert_eq!(used(&server, scope).await, LIMIT * unit);
        let page = server
            .ask(Method::DesktopList, json!({"folderId": folder}))
            .await;
        assert_eq!(
            page["desktopImages"].as_array().unwrap().len() as i64,
            LIMIT
        );
        // A deleted image makes room for one more.
        let request = json!({"imageId": image_id(granted[0])});
        response(&server.ask(Method::DesktopDelete, request).await);
        assert_eq!(used(&server, scope).await, (LIMIT - 1) * unit);
        assert!(copy(&server, folder, "again", &source).await.is_ok());
        let refused = copy(&server, folder, "once more", &source).await;
        assert_eq!(refused, Err(Code::ResourceExhausted));
    }
    // Elsewhere nothing is limited.
    assert!(copy(&server, "c", "copy", &source).await.is_ok());
}

#[tokio::test]
async fn a_total_counts_all_folders_together() {
    let server = TestServer::start().await;
    let disk = Disk::mbr(1, Fill::Sparse(1));
    let source = server.compute_image("f", "source", &disk).await;
    let set_reply = set(&server, "", COMPUTE_COUNT, Some(1)).await;
    assert_eq!(number(&set_reply, "used"), 1);
    set(&server, "", DESKTOP_COUNT, Some(3)).await;
    set(&server, "a", DESKTOP_COUNT, Some(1)).await;
    assert!(copy(&server, "a", "1", &source).await.is_ok());
    for caller in server.callers() {
        let request = json!({"folderId": "a", "name": "2", "imageId": source});
        let refusal = caller.call(Method::Copy, request).await.unwrap_err();
        assert_eq!(refusal.quotas[0].0, "folder:a");
    }
    assert!(copy(&server, "b", "1", &source).await.is_ok());
    let last = copy(&server, "c", "1", &source).await.unwrap();
    for caller in server.callers() {
        let request = json!({"folderId": "d", "name": "1", "imageId": source});
        let refusal = caller.call(Method::Copy, request).await.unwrap_err();
        assert_eq!(refusal.code, Code::ResourceExhausted);
        assert_eq!(refusal.quotas[0].0, "total");
        let request = json!({"folderId": "d", "name": "one", "imageId": source});
        let refusal = caller.call(Method::Create, request).await.unwrap_err();
        assert_eq!(
            refusal.message,
            format!("Quota limit {COMPUTE_COUNT} exceeded")
        );
    }
    server
        .ask(Method::DesktopDelete, json!({"imageId": last}))
        .await;
    assert!(copy(&server, "d", "1", &source).await.is_ok());
}

#[tokio::test]
async fn what_fails_or_is_cancelled_gives_back_what_it_took() {
    let server = TestServer::start().await;
    let disk = Disk::mbr(1, Fill::Random(1));
    let size = Disk::stored_size(&disk);
    set(&server, "f", COMPUTE_COUNT, Some(1)).await;
    assert_eq!(
        failure(&server.uploaded("f", "bad", b"no disk").await).0,
        Code::InvalidArgument
    );
    assert_eq!(used(&server, "f").await, 0);

    let uri = server.importable("bad.img", b"no disk");
    let request = json!({"folderId": "f", "uri": uri});
    let accepted = server.ask(Method::Create, request).await;
    failure(&server.wait(text(&accepted, "id")).await);
    assert_eq!(used(&server, "f").await, 0);

    // An upload that runs counts against the quota until it is cancelled.
    let upload = SlowUpload::start(&server, "f", "slow", &disk[..300_000]).await;
    assert_eq!(used(&server, "f").await, 1);
    let refused = server.upload("f", "other").body(disk.clone()).send().await;
    assert_eq!(refused.unwrap().status(), 429);
    let request = json!({"operationId": upload.operation_id});
    server.ask(Method::OperationCancel, request).await;
    failure(&server.wait(&upload.operation_id).await);
    assert_eq!(used(&server, "f").await, 0);

    set(&server, "f", COMPUTE_COUNT, None).await;
    set(&server, "f", COMPUTE_SIZE, Some(size - 1)).await;
    let operation = server.uploaded("f", "too-large", &disk).await;
    let message = format!("Quota limit {COMPUTE_SIZE} exceeded");
    assert_eq!(
        failure(&operation),
        (Code::ResourceExhausted, message.as_str())
    );
    let (limit, words) = (
        size - 1,
        format!(
            "{message}: limit {}, used 0, {size} more asked for",
            size - 1
        ),
    );
    assert_eq!(
        quota_violations(&operation["error"]),
        [("folder:f".to_owned(), words)]
    );
    let info = &operation["error"]["details"][1];
    assert_eq!(info["@type"], "type.googleapis.com/google.rpc.ErrorInfo");
    let numbers = json!({
        "quota": COMPUTE_SIZE, "limit": limit.to_string(), "used": "0",
        "requested": size.to_string(),
    });
    assert_eq!(info["metadata"], numbers);
    assert_eq!(used(&server, "f").await, 0);
    server.has_blobs(0).await;
    set(&server, "f", COMPUTE_SIZE, Some(size)).await;
    let image = server.compute_image("f", "fits", &disk).await;
    assert_eq!(used(&server, "f").await, size);
    response(
        &server
            .ask(Method::ComputeDelete, json!({"imageId": image}))
            .await,
    );
    assert_eq!(used(&server, "f").await, 0);
}

#[tokio::test]
async fn a_limit_may_be_below_what_is_used_and_be_taken_away() {
    let mut server = TestServer::start().await;
    let disk = Disk::mbr(1, Fill::Sparse(1));
    let source = server.compute_image("f", "source", &disk).await;
    let mut copies = Vec::new();
    for name in ["1", "2", "3"] {
        copies.push(server.copied("f", name, &source).await);
    }
    let quota = set(&server, "f", DESKTOP_COUNT, Some(1)).await;
    let expected = json!({"folderId": "f", "name": DESKTOP_COUNT, "limit": "1", "used": "3"});
    assert_eq!(quota, expected);
    // Limits outlive the process.
    server.restart().await;
    for caller in server.callers() {
        let page = caller
            .call(Method::QuotaList, json!({"folderId": "f"}))
            .await;
        assert_eq!(page.unwrap()["quotas"], json!([expected]));
        let page = caller
            .call(Method::QuotaList, json!({"folderId": "g"}))
            .await;
        assert_eq!(page.unwrap()["quotas"], json!([]));
    }
    for image in &copies {
        let refused = copy(&server, "f", "new", &source).await;
        assert_eq!(refused, Err(Code::ResourceExhausted));
        server
            .ask(Method::DesktopDelete, json!({"imageId": image}))
            .await;
    }
    assert!(copy(&server, "f", "new", &source).await.is_ok());
    assert_eq!(
        copy(&server, "f", "newer", &source).await,
        Err(Code::ResourceExhausted)
    );
    // Other changes than new images go on.
    let request = json!({"folderId": "f", "filter": "name = 'new'"});
    let page = server.ask(Method::DesktopList, request).await;
    let id = text(&page["desktopImages"][0], "id").to_owned();
    let request = json!({"imageId": id, "updateMask": "name", "name": "renamed"});
    response(&server.ask(Method::DesktopUpdate, request).await);

    for caller in server.callers() {
        set(&server, "f", DESKTOP_COUNT, Some(0)).await;
        let request = json!({"folderId": "f", "name": DESKTOP_COUNT});
        let quota = caller.call(Method::QuotaSet, request).await.unwrap();
        assert_eq!(quota.get("limit"), None, "{quota}");
        let page = caller.call(Method::QuotaList, json!({})).await.unwrap();
        assert_eq!(page["quotas"], json!([]));
        let name = format!("{:?}", caller.transport);
        assert!(copy(&server, "f", &name, &source).await.is_ok());
    }
}

#[tokio::test]
async fn an_unknown_name_is_refused_with_the_known_ones() {
    let server = TestServer::start().await;
    for caller in server.callers() {
        for name in ["disks.count", "VDI.desktopImages.count", " "] {
            let request = json!({"name": name, "limit": "1"});
            let refusal = caller.call(Method::QuotaSet, request).await.unwrap_err();
            assert_eq!(refusal.code, Code::InvalidArgument);
            assert_eq!(refusal.fields, ["name"]);
            for known in [DESKTOP_COUNT, DESKTOP_SIZE, COMPUTE_COUNT, COMPUTE_SIZE] {
                assert!(refusal.message.contains(known), "{}", refusal.message);
            }
        }
    }
    let page = server.ask(Method::QuotaList, json!({})).await;
    assert_eq!(page["quotas"], json!([]));
}

#[tokio::test]
async fn a_change_that_waits_counts_against_its_quota() {
    let mut server = TestServer::start().await;
    let disk = Disk::mbr(1, Fill::Sparse(1));
    let source = server.compute_image("f", "source", &disk).await;
    server.config.operations.simulated_latency = Duration::from_secs(3600);
    server.restart().await;
    set(&server, "f", DESKTOP_COUNT, Some(1)).await;
    let request = json!({"folderId": "f", "name": "n", "imageId": source});
    let accepted = server.ask(Method::Copy, request).await;
    assert_eq!(used(&server, "f").await, 1);
    assert_eq!(
        copy(&server, "f", "m", &source).await,
        Err(Code::ResourceExhausted)
    );
    let request = json!({"operationId": accepted["id"]});
    server.ask(Method::OperationCancel, request).await;
    assert_eq!(
        failure(&server.wait(text(&accepted, "id")).await).0,
        Code::Cancelled
    );
    assert_eq!(used(&server, "f").await, 0);
    assert!(copy(&server, "f", "m", &source).await.is_ok());
}
