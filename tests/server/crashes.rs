//! The program itself, killed at bad moments and started again: nothing acknowledged is lost,
//! nothing half done is seen, no stray file stays. And asked to stop, it ends what it began.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use futures_util::future::join_all;
use serde_json::{Value, json};
use tempfile::TempDir;
use test_support::{
    Clients, Disk, Fill, Method, ServerProcess, SlowUpload, Transport, blob_files, eventually,
    failure, image_id, number, response, text,
};
use tonic::Code;

/// A raw disk that takes a while to import: some data and a long hole.
fn large_disk(folder: &Path) -> (PathBuf, Vec<u8>) {
    let path = folder.join("imports/large.img");
    fs::create_dir_all(folder.join("imports")).unwrap();
    let disk = Disk::mbr(32, Fill::Random(1));
    fs::write(&path, &disk).unwrap();
    let file = fs::File::options().write(true).open(&path).unwrap();
    file.set_len(2 << 30).unwrap();
    (path, disk)
}

/// Waits until the files in the content folder are those that live rows know, and no more.
async fn no_stray_files(folder: &TempDir) {
    let data = folder.path().join("data");
    eventually(
        "every file in the content folder has a live row",
        || async {
            let database = rusqlite::Connection::open(data.join("metadata.sqlite")).unwrap();
            let mut statement = database
                .prepare("SELECT id FROM contents WHERE state = 1")
                .unwrap();
            let rows = statement.query_map([], |row| row.get(0)).unwrap();
            let live: BTreeSet<String> = rows.map(Result::unwrap).collect();
            let files: BTreeSet<String> = blob_files(&data).into_iter().collect();
            (live == files).then_some(())
        },
    )
    .await;
}

async fn nothing_half_done(clients: &Clients, folder_id: &str) {
    let request = json!({"folderId": folder_id});
    let page = clients.ask(Method::ComputeList, request).await;
    for image in page["images"].as_array().unwrap() {
        assert_eq!(image["status"], "READY", "{image}");
    }
}

#[tokio::test]
async fn a_kill_during_an_upload_rolls_it_back_and_keeps_what_was_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Disk::mbr(4, Fill::Random(1));
    let half = Disk::mbr(4, Fill::Random(2));
    let server = ServerProcess::start(folder.path()).await;
    let source = server.compute_image("f", "source", &disk).await;
    let upload = SlowUpload::start(&server, "f", "half", &half[..3_000_000]).await;
    let mut copies = Vec::new();
    for number in 0..5 {
        let name = format!("copy {number}");
        let request = json!({"folderId": "f", "name": name, "imageId": source});
        copies.push(server.ask(Method::Copy, request).await);
    }
    server.kill().await;

    let server = ServerProcess::start(folder.path()).await;
    let operation = server.wait(&upload.operation_id).await;
    assert_eq!(failure(&operation).0, Code::Aborted);
    nothing_half_done(&server, "f").await;
    let gone = json!({"imageId": upload.image_id});
    let caller = server.caller(Transport::Grpc);
    let gone = caller.call(Method::ComputeGet, gone).await;
    assert_eq!(gone.unwrap_err().code, Code::NotFound);
    no_stray_files(&folder).await;
    for copy in copies {
        let read = server
            .ask(Method::OperationGet, json!({"operationId": copy["id"]}))
            .await;
        assert_eq!(read, copy);
        assert!(server.downloaded(&image_id(&copy)).await == disk);
    }
    server.compute_image("f", "half", &half).await;
    no_stray_files(&folder).await;
}

#[tokio::test]
async fn an_import_that_was_killed_runs_again_to_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let (path, disk) = large_disk(folder.path());
    let mut server = ServerProcess::start(folder.path()).await;
    let uri = format!("file://{}", path.display());
    let request = json!({"folderId": "f", "name": "large", "uri": uri});
    let accepted = server.ask(Method::Create, request).await;
    let data = folder.path().join("data");
    let mut before = Vec::new();
    // The second kill interrupts the recovery from the first.
    for _ in 0..2 {
        eventually("the import writes a file", || async {
            let files = blob_files(&data);
            files
                .iter()
                .any(|file| !before.contains(file))
                .then_some(())
        })
        .await;
        let operation = server
            .ask(Method::OperationGet, json!({"operationId": accepted["id"]}))
            .await;
        assert_eq!(
            operation["done"], false,
            "the disk is too small to be caught"
        );
        server.kill().await;
        before = blob_files(&data);
        server = ServerProcess::start(folder.path()).await;
    }
    let operation = server.wait(text(&accepted, "id")).await;
    let image = response(&operation);
    assert_eq!(image["status"], "READY");
    assert_eq!(image["id"], accepted["metadata"]["imageId"]);
    assert_eq!(number(image, "storageSize"), Disk::stored_size(&disk));
    assert_eq!(number(image, "size"), 2 << 30);
    no_stray_files(&folder).await;
    nothing_half_done(&server, "f").await;
    let copy = server.copied("f", "copy", text(image, "id")).await;
    let url = server.url(&format!("/cloud-desktop/v1/images/{copy}:download"));
    let range = format!("bytes=0-{}", disk.len() - 1);
    let reply = server
        .http
        .get(url)
        .header("range", range)
        .send()
        .await
        .unwrap();
    assert!(reply.bytes().await.unwrap() == disk);
}

#[tokio::test]
async fn copies_that_meet_a_kill_are_whole_or_not_there_and_can_be_repeated() {
    const COPIES: usize = 200;
    let folder = tempfile::tempdir().unwrap();
    let disk = Disk::mbr(1, Fill::Random(1));
    let server = ServerProcess::start(folder.path()).await;
    let source = server.compute_image("f", "source", &disk).await;
    let requests: Vec<(Value, String)> = (0..COPIES)
        .map(|number| {
            let name = format!("copy {number}");
            let request = json!({"folderId": "f", "name": name, "imageId": source});
            (request, uuid::Uuid::new_v4().to_string())
        })
        .collect();
    let (acknowledged, mut first) = tokio::sync::mpsc::channel(1);
    let caller = server.caller(Transport::Grpc);
    let calls: Vec<_> = requests
        .iter()
        .cloned()
        .map(|(request, key)| {
            let (caller, acknowledged) = (caller.clone(), acknowledged.clone());
            tokio::spawn(async move {
                let headers = [("idempotency-key", key.as_str())];
                let reply = caller.call_with(Method::Copy, request, &headers).await;
                if reply.is_ok() {
                    // Only the first one is waited for.
                    let _ = acknowledged.try_send(());
                }
                reply
            })
        })
        .collect();
    first.recv().await.expect("a copy is acknowledged");
    server.kill().await;
    let replies: Vec<_> = join_all(calls)
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();

    let server = ServerProcess::start(folder.path()).await;
    for operation in replies.iter().flatten() {
        let read = server
            .ask(
                Method::OperationGet,
                json!({"operationId": operation["id"]}),
            )
            .await;
        assert_eq!(&read, operation);
        let image = server
            .ask(Method::DesktopGet, json!({"imageId": image_id(operation)}))
            .await;
        assert_eq!(image["status"], "ACTIVE");
    }
    // Callers that got no answer ask again under the same key.
    let caller = server.caller(Transport::Grpc);
    let repeats = requests.iter().map(|(request, key)| {
        let caller = &caller;
        async move {
            let headers = [("idempotency-key", key.as_str())];
            caller
                .call_with(Method::Copy, request.clone(), &headers)
                .await
        }
    });
    for (before, again) in replies.iter().zip(join_all(repeats).await) {
        let again = again.expect("a repeat is granted");
        response(&again);
        if let Ok(before) = before {
            assert_eq!(before, &again);
        }
    }
    let request = json!({"folderId": "f", "pageSize": 1000});
    let page = server.ask(Method::DesktopList, request).await;
    assert_eq!(page["desktopImages"].as_array().unwrap().len(), COPIES);
    no_stray_files(&folder).await;
}

#[tokio::test]
async fn asked_to_stop_it_takes_nothing_new_and_lets_an_upload_end() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Disk::mbr(2, Fill::Random(1));
    let server = ServerProcess::start(folder.path()).await;
    let upload = SlowUpload::start(&server, "f", "slow", &disk[..1_000_000]).await;
    server.terminate();
    eventually("nothing new is taken", || async {
        let connected = tokio::net::TcpStream::connect(server.address).await;
        connected.is_err().then_some(())
    })
    .await;
    upload.send(&disk[1_000_000..]).await;
    let operation = upload.finish().await;
    assert_eq!(response(&operation)["status"], "READY");
    assert_eq!(server.exit_code().await, Some(0));

    let server = ServerProcess::start(folder.path()).await;
    let read = server
        .ask(
            Method::OperationGet,
            json!({"operationId": operation["id"]}),
        )
        .await;
    assert_eq!(read, operation);
    no_stray_files(&folder).await;
}

#[tokio::test]
async fn asked_to_stop_it_leaves_an_import_to_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    let (path, _) = large_disk(folder.path());
    let server = ServerProcess::start(folder.path()).await;
    let uri = format!("file://{}", path.display());
    let accepted = server
        .ask(Method::Create, json!({"folderId": "f", "uri": uri}))
        .await;
    server.terminate();
    assert_eq!(server.exit_code().await, Some(0));
    let server = ServerProcess::start(folder.path()).await;
    response(&server.wait(text(&accepted, "id")).await);
    nothing_half_done(&server, "f").await;
    no_stray_files(&folder).await;
}
