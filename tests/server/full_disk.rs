//! A disk that is full: what makes room is done, the rest is refused in words that say so.

use std::fs;
use std::io::Write;
use std::path::Path;

use serde_json::{Value, json};
use test_support::{
    Disk, Fill, Method, ServerProcess, SlowUpload, SmallDisk, Transport, blob_files, eventually,
    failure, left_out, response, text,
};
use tonic::Code;

/// Takes all the room that is left.
fn fill(path: &Path) {
    let mut file = fs::File::create(path).unwrap();
    for size in [1 << 20, 4096, 512] {
        while file.write_all(&vec![1; size]).is_ok() {}
    }
}

/// Copies until there is no room left even for rows.
async fn copy_until_full(server: &ServerProcess, source: &str) -> Value {
    let description = "d".repeat(1000);
    for number in 0..20_000 {
        let request = json!({
            "folderId": "f", "name": format!("filler-{number}"), "imageId": source,
            "description": description,
        });
        let caller = server.caller(Transport::Rest);
        if let Err(refusal) = caller.call(Method::Copy, request.clone()).await {
            assert_eq!(refusal.code, Code::ResourceExhausted, "{refusal:?}");
            return request;
        }
    }
    panic!("the disk never filled");
}

#[tokio::test]
async fn delete_and_cancel_work_when_the_disk_is_full() {
    let test = "delete_and_cancel_work_when_the_disk_is_full";
    let folder = tempfile::tempdir().unwrap();
    let Some(_disk) = SmallDisk::mount(folder.path().join("data"), 64) else {
        return left_out(test, "a file system can be mounted by root only");
    };
    let server = ServerProcess::start_with(folder.path(), &["--log-format", "json"]).await;
    let ballast = folder.path().join("data/ballast");
    let size = fs::metadata(&ballast).expect("a ballast").len();
    let disk = Disk::mbr(1, Fill::Random(1));
    let source = server.compute_image("f", "source", &disk).await;
    let mut copies = Vec::new();
    for number in 0..300 {
        copies.push(server.copied("g", &number.to_string(), &source).await);
    }
    let upload = SlowUpload::start(&server, "f", "slow", &disk[..300_000]).await;
    let filler = folder.path().join("data/filler");
    fill(&filler);
    let refused = copy_until_full(&server, &source).await;
    assert!(
        ballast.exists(),
        "what makes no room does not get the room that is kept"
    );

    // Refusals say when to try again.
    let url = server.url("/cloud-desktop/v1/images:copy");
    let reply = server
        .http
        .post(url)
        .body(refused.to_string())
        .send()
        .await
        .unwrap();
    assert_eq!(reply.status(), 429);
    assert_eq!(reply.headers()["retry-after"], "30");
    let body = reply.text().await.unwrap();
    assert!(body.contains("google.rpc.RetryInfo"), "{body}");

    let request = json!({"operationId": upload.operation_id});
    server.ask(Method::OperationCancel, request).await;
    let cancelled = server.wait(&upload.operation_id).await;
    assert_eq!(failure(&cancelled).0, Code::Cancelled);
    for copy in &copies {
        let request = json!({"imageId": copy});
        response(&server.ask(Method::DesktopDelete, request).await);
    }
    assert!(!ballast.exists(), "its room was needed");
    // Nobody else gets that room meanwhile.
    let caller = server.caller(Transport::Grpc);
    let refusal = caller
        .call(Method::Copy, refused.clone())
        .await
        .unwrap_err();
    assert_eq!(refusal.code, Code::ResourceExhausted);
    let uploaded = server
        .upload("f", "more")
        .body(disk.clone())
        .send()
        .await
        .unwrap();
    assert_eq!(uploaded.status(), 429);

    fs::remove_file(&filler).unwrap();
    eventually("the ballast is made again", || async {
        (fs::metadata(&ballast).ok()?.len() == size).then_some(())
    })
    .await;
    let operation = server.ask(Method::Copy, refused).await;
    response(&operation);
    let log = fs::read_to_string(folder.path().join("server.log")).unwrap();
    let lines: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let of_level = |level: &str, words: &str| {
        lines
            .iter()
            .any(|line| line["level"] == level && text(&line["fields"], "message").contains(words))
    };
    assert!(of_level("INFO", "keeps room"), "its size is said");
    assert!(of_level("WARN", "refused: the disk is full"));
    assert!(of_level("WARN", "is given"));
    server.terminate();
    assert_eq!(server.exit_code().await, Some(0));
}

#[tokio::test]
async fn a_server_starts_on_a_full_disk_and_deletes() {
    let test = "a_server_starts_on_a_full_disk_and_deletes";
    let folder = tempfile::tempdir().unwrap();
    let Some(_disk) = SmallDisk::mount(folder.path().join("data"), 64) else {
        return left_out(test, "a file system can be mounted by root only");
    };
    let server = ServerProcess::start(folder.path()).await;
    let disk = Disk::mbr(1, Fill::Random(1));
    let source = server.compute_image("f", "source", &disk).await;
    let copy = server.copied("f", "c", &source).await;
    server.terminate();
    assert_eq!(server.exit_code().await, Some(0));
    fill(&folder.path().join("data/filler"));
    let server = ServerProcess::start(folder.path()).await;
    for (method, id) in [
        (Method::DesktopDelete, copy),
        (Method::ComputeDelete, source),
    ] {
        response(&server.ask(method, json!({"imageId": id})).await);
    }
    has_no_blobs(folder.path()).await;
    server.terminate();
    assert_eq!(server.exit_code().await, Some(0));
}

/// Waits until no bytes are left.
async fn has_no_blobs(folder: &Path) {
    eventually("the bytes are removed", || async {
        blob_files(&folder.join("data")).is_empty().then_some(())
    })
    .await;
}
