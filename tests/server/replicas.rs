//! Two servers of one PostgreSQL database and one folder of blobs: whichever is asked, they are one service.

use std::time::{Duration, Instant};

use desktop_images::app::{Config, Data, Error, PostgresSettings, Server, StoreSettings};
use futures_util::future::join_all;
use serde_json::{Value, json};
use test_support::{
    Clients, Disk, Fill, Method, SlowUpload, TestServer, Transport, Watch, eventually, failure,
    image_id, postgres_server, response, text,
};
use tonic::Code;

/// A server on PostgreSQL; none where it is not installed.
pub async fn on_postgres(test: &str, configure: impl FnOnce(&mut Config)) -> Option<TestServer> {
    if !postgres_server::is_installed(test) {
        return None;
    }
    let url = postgres_server::database().await;
    let server = TestServer::start_with(|config| {
        config.store = StoreSettings::Postgres(PostgresSettings::new(url));
        config.retention.blobs = Some(Duration::ZERO);
        configure(config);
    });
    Some(server.await)
}

/// Another server on the data of one.
pub async fn beside(server: &TestServer) -> TestServer {
    TestServer::start_with(|config| *config = server.config()).await
}

async fn two(test: &str) -> Option<[TestServer; 2]> {
    let first = on_postgres(test, |_| {}).await?;
    let second = beside(&first).await;
    Some([first, second])
}

#[tokio::test]
async fn what_one_has_made_another_serves_lists_and_removes() {
    let Some([first, second]) = two("two servers").await else {
        return;
    };
    let disk = Disk::mbr(3, Fill::Random(1));
    let source = first.compute_image("f", "source", &disk).await;
    let mut copies = Vec::new();
    for number in 0..4 {
        let made_by = [&second, &first][number % 2];
        copies.push(made_by.copied("f", &format!("c{number}"), &source).await);
    }
    for server in [&first, &second] {
        for copy in &copies {
            let read = server.ask(Method::DesktopGet, json!({"imageId": copy}));
            assert_eq!(text(&read.await, "id"), copy);
        }
        assert!(server.downloaded(&copies[0]).await == disk);
    }
    // A page begun at one goes on at the other.
    let page = |token: &Value| json!({"folderId": "f", "pageSize": 2, "pageToken": token});
    let begun = first.ask(Method::DesktopList, page(&json!(""))).await;
    let gone_on = second
        .ask(Method::DesktopList, page(&begun["nextPageToken"]))
        .await;
    let listed = [&begun, &gone_on].map(|page| page["desktopImages"].as_array().unwrap().clone());
    let mut listed: Vec<_> = listed
        .iter()
        .flatten()
        .map(|image| text(image, "id").to_owned())
        .collect();
    listed.sort();
    copies.sort();
    assert_eq!(listed, copies);

    for (number, copy) in copies.iter().enumerate() {
        let removed_by = [&first, &second][number % 2];
        let request = json!({"imageId": copy});
        response(&removed_by.ask(Method::DesktopDelete, request).await);
    }
    let request = json!({"imageId": source});
    response(&second.ask(Method::ComputeDelete, request).await);
    first.has_blobs(0).await;
}

#[tokio::test]
async fn an_upload_to_one_is_watched_and_cancelled_at_the_other() {
    let Some([first, second]) = two("uploads to one of two servers").await else {
        return;
    };
    let disk = Disk::mbr(1, Fill::Random(1));
    let upload = SlowUpload::start(&first, "f", "whole", &disk[..100_000]).await;
    let request = json!({"operationId": upload.operation_id});
    let running = second.ask(Method::OperationGet, request).await;
    assert_eq!(running["done"], false);
    let watch = Watch::start(&second, &upload.operation_id).await;
    upload.send(&disk[100_000..]).await;
    let ended = upload.finish().await;
    let states = watch.rest().await;
    assert_eq!(states.last(), Some(&ended));
    response(&ended);

    let upload = SlowUpload::start(&first, "f", "cancelled", &disk[..100_000]).await;
    let watch = Watch::start(&second, &upload.operation_id).await;
    let request = json!({"operationId": upload.operation_id});
    second.ask(Method::OperationCancel, request).await;
    let states = watch.rest().await;
    let (code, _) = failure(states.last().expect("an end"));
    assert_eq!(code, Code::Cancelled);
    assert_eq!(second.compute_images("f").await, 1);
    first.has_blobs(1).await;
}

#[tokio::test]
async fn an_import_accepted_by_one_is_done_by_either_and_cancelled_by_any() {
    let Some([first, second]) = two("imports on two servers").await else {
        return;
    };
    for number in 0..6 {
        let (accepted_by, other) = match number % 2 {
            0 => (&first, &second),
            _ => (&second, &first),
        };
        let uri = first.importable_hole(&format!("{number}.img"), 64 << 30);
        let request = json!({"folderId": "f", "name": format!("n{number}"), "uri": uri});
        let accepted = accepted_by.ask(Method::Create, request).await;
        let id = text(&accepted, "id");
        let mut watch = Watch::start(other, id).await;
        watch
            .until(|words| words.starts_with("Importing image: "))
            .await;
        let request = json!({"operationId": id});
        other.ask(Method::OperationCancel, request).await;
        let ended = accepted_by.wait(id).await;
        assert_eq!(failure(&ended).0, Code::Cancelled);
    }
}

#[tokio::test]
async fn a_key_a_name_and_a_quota_hold_across_both() {
    const LIMIT: usize = 7;
    let Some(servers) = two("keys, names and quotas on two servers").await else {
        return;
    };
    let disk = Disk::mbr(1, Fill::Sparse(1));
    let source = servers[0].compute_image("f", "source", &disk).await;
    let copy = async |server: &Clients, name: &str, key: &str| {
        let request = json!({"folderId": "g", "name": name, "imageId": source});
        let caller = server.caller(Transport::Grpc);
        caller
            .call_with(Method::Copy, request, &[("idempotency-key", key)])
            .await
    };
    // Equal requests with an equal key make one image, and get one operation.
    let key = uuid::Uuid::new_v4().to_string();
    let calls = (0..20).map(|number| copy(&servers[number % 2], "once", &key));
    let operations = join_all(calls).await;
    let first = operations[0].as_ref().expect("accepted");
    assert!(operations.iter().all(|it| it.as_ref() == Ok(first)));
    // Of equal names with keys of their own, one is accepted.
    let calls = (0..20).map(|number| {
        let key = uuid::Uuid::new_v4().to_string();
        let (server, copy) = (&servers[number % 2], &copy);
        async move { copy(server, "taken", &key).await }
    });
    let (made, refused): (Vec<_>, Vec<_>) =
        join_all(calls).await.into_iter().partition(Result::is_ok);
    assert_eq!(made.len(), 1);
    let is_taken = |it: &Result<_, test_support::Refusal>| {
        it.as_ref().err().map(|it| it.code) == Some(Code::AlreadyExists)
    };
    assert!(refused.iter().all(is_taken), "{refused:?}");

    let limit =
        json!({"folderId": "g", "name": "vdi.desktopImages.count", "limit": LIMIT.to_string()});
    servers[0].ask(Method::QuotaSet, limit).await;
    let calls = (0..40).map(|number| {
        let key = uuid::Uuid::new_v4().to_string();
        let (server, copy) = (&servers[number % 2], &copy);
        async move { copy(server, &format!("n{number}"), &key).await }
    });
    let made = join_all(calls).await.into_iter().filter(Result::is_ok);
    assert_eq!(made.count(), LIMIT - 2);
    let page = servers[1].ask(Method::QuotaList, json!({})).await;
    assert_eq!(page["quotas"][0]["used"], LIMIT.to_string());
}

#[tokio::test]
async fn a_token_revoked_at_one_is_refused_at_the_other_within_5_s() {
    let Some(first) = on_postgres("tokens on two servers", |config| {
        config.require_auth = true;
    })
    .await
    else {
        return;
    };
    let second = beside(&first).await;
    let admin = std::fs::read_to_string(first.data().join("bootstrap-token")).unwrap();
    let admin = admin.trim();
    let ask = async |server: &Clients, token: &str, method: http::Method, path: &str| {
        let request = server.http.request(method, server.url(path));
        let reply = request.bearer_auth(token).body("{}").send().await.unwrap();
        let status = reply.status().as_u16();
        let body = reply.bytes().await.unwrap();
        (
            status,
            serde_json::from_slice::<Value>(&body).unwrap_or_default(),
        )
    };
    let (post, get) = (http::Method::POST, http::Method::GET);
    let (status, made) = ask(&first, admin, post, "/desktop-images/v1/tokens").await;
    assert_eq!(status, 200, "{made}");
    let (id, secret) = (text(&made["token"], "id"), text(&made, "secret"));
    let list = "/compute/v1/images?folderId=f";
    // It has no role yet, which is told only to whoever is known.
    assert_eq!(ask(&second, secret, get.clone(), list).await.0, 403);
    let path = format!("/desktop-images/v1/tokens/{id}");
    let (status, _) = ask(&first, admin, http::Method::DELETE, &path).await;
    assert_eq!(status, 200);
    let revoked = Instant::now();
    eventually("the other server refuses the token", || async {
        (ask(&second, secret, get.clone(), list).await.0 == 401).then_some(())
    })
    .await;
    assert!(revoked.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn work_goes_on_where_one_server_stops() {
    let Some([mut first, second]) = two("one of two servers stops").await else {
        return;
    };
    let disk = Disk::mbr(1, Fill::Random(1));
    let source = first.compute_image("f", "source", &disk).await;
    let uri = first.importable_hole("large.img", 1 << 30);
    let mut operations = Vec::new();
    for number in 0..6 {
        let request = json!({"folderId": "f", "name": format!("n{number}"), "uri": uri});
        operations.push(first.ask(Method::Create, request).await);
    }
    first.stop().await;
    for operation in &operations {
        response(&second.wait(text(operation, "id")).await);
    }
    let copy = second.copied("f", "copy", &source).await;
    assert!(second.downloaded(&copy).await == disk);
}

#[tokio::test]
async fn a_folder_of_another_installation_is_refused() {
    let Some([mut first, second]) = two("folders of two installations").await else {
        return;
    };
    let disk = Disk::mbr(1, Fill::Random(1));
    let source = first.compute_image("f", "source", &disk).await;
    let start = async |config: &Config| match Server::start(config.clone()).await {
        Ok(server) => server.stop().await,
        Err(error) => Err(error),
    };
    // Another database, on this folder.
    let mut other = first.config();
    let url = postgres_server::database().await;
    other.store = StoreSettings::Postgres(PostgresSettings::new(url));
    let refused = start(&other).await.unwrap_err();
    assert!(matches!(refused, Error::OtherOwner { .. }), "{refused}");
    // No database beside it.
    let mut embedded = first.config();
    embedded.store = StoreSettings::Embedded;
    let refused = start(&embedded).await.unwrap_err();
    assert!(matches!(refused, Error::SharedFolder { .. }), "{refused}");
    // This database, on an empty folder, and on one with a database of its own.
    let empty = tempfile::tempdir().unwrap();
    let mut moved = first.config();
    moved.data = Data::Folder(empty.path().to_owned());
    let refused = start(&moved).await.unwrap_err();
    assert!(matches!(refused, Error::BlobsLost { .. }), "{refused}");
    embedded.data = Data::Folder(empty.path().join("embedded"));
    start(&embedded).await.unwrap();
    moved.data = embedded.data;
    let refused = start(&moved).await.unwrap_err();
    assert!(matches!(refused, Error::EmbeddedFolder(_)), "{refused}");
    // Files without a note of their owner, and a new database.
    std::fs::create_dir_all(empty.path().join("contents")).unwrap();
    std::fs::write(empty.path().join("contents/a-file"), "bytes").unwrap();
    other.data = Data::Folder(empty.path().to_owned());
    let refused = start(&other).await.unwrap_err();
    assert!(matches!(refused, Error::UnknownBlobs { .. }), "{refused}");
    other.data = Data::AdoptEmpty(empty.path().to_owned());
    start(&other).await.unwrap();
    // The first installation has noticed nothing of it.
    first.restart().await;
    for server in [&first, &second] {
        server
            .ask(Method::ComputeGet, json!({"imageId": source}))
            .await;
    }
    let operation = second
        .ask(
            Method::Copy,
            json!({"folderId": "f", "name": "c", "imageId": source}),
        )
        .await;
    assert!(first.downloaded(&image_id(&operation)).await == disk);
}
