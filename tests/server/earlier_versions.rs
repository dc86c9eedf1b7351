//! Data folders that earlier versions have left: opened, brought up to date, and served.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::json;
use sha2::{Digest, Sha256};
use test_support::{Method, TestServer, audit_events, failure, number, response, text};

/// The SHA-256 of the disk in the kept data folders.
const KEPT_SHA256: &str = "4fc35da2614c0d2abf361e7dd7aa9c334c0ea5e55352b4250bbbbf21cedc7132";

/// Unpacks a data folder that an earlier version has left, killed with an operation that waits.
fn unpack(name: &str, folder: &Path) {
    let packed = fs::read(format!("tests/data/data-folders/{name}.tar.zst")).unwrap();
    let unpacked = zstd::decode_all(packed.as_slice()).unwrap();
    fs::create_dir(folder).unwrap();
    let mut tar = Command::new("tar")
        .arg("-xf-")
        .arg("-C")
        .arg(folder)
        .stdin(Stdio::piped())
        .spawn()
        .expect("tar runs");
    tar.stdin.take().unwrap().write_all(&unpacked).unwrap();
    assert!(tar.wait().unwrap().success());
}

#[tokio::test]
async fn a_data_folder_of_an_earlier_version_is_opened_and_works() {
    let mut server = TestServer::start().await;
    server.stop().await;
    fs::remove_dir_all(server.data()).unwrap();
    unpack("schema-4", &server.data());
    server.start_again().await.unwrap();

    let listed = json!({"folderId": "desktops", "orderBy": "name"});
    let pending = "e3v06h28egnvv49n02cg";
    let ended = server.wait(pending).await;
    assert_eq!(text(response(&ended), "status"), "ACTIVE");
    let images = server.ask(Method::DesktopList, listed.clone()).await;
    let images = images["desktopImages"].as_array().unwrap().clone();
    let names: Vec<_> = images.iter().map(|image| text(image, "name")).collect();
    assert_eq!(names, ["kept", "pending"]);
    assert_eq!(text(&images[0], "description"), "renamed");
    assert_eq!(images[0]["labels"], json!({"a": "b"}));
    for image in &images {
        let bytes = server.downloaded(text(image, "id")).await;
        let sha256 = Sha256::digest(bytes);
        let sha256: String = sha256.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(sha256, KEPT_SHA256);
    }
    // Operations that ended before are told as they were.
    let failed = server
        .ask(
            Method::OperationGet,
            json!({"operationId": "e3v06h28eg64fa4lo0jm"}),
        )
        .await;
    assert_eq!(failure(&failed).0, tonic::Code::InvalidArgument);
    let quotas = server
        .ask(Method::QuotaList, json!({"folderId": "desktops"}))
        .await;
    assert_eq!(
        (
            number(&quotas["quotas"][0], "limit"),
            number(&quotas["quotas"][0], "used")
        ),
        (5, 2)
    );
    let events = audit_events(&server, "desktops", 0).await;
    assert_eq!(events.len(), 12, "{events:?}");

    // A repeat of a request of that time is known, and new ones are served.
    let source = server
        .ask(Method::ComputeList, json!({"folderId": "catalogue"}))
        .await;
    let source = text(&source["images"][0], "id").to_owned();
    let repeat = json!({"folderId": "desktops", "name": "pending", "imageId": source});
    let key = [("idempotency-key", "123e4567-e89b-12d3-a456-426614174001")];
    let caller = &server.callers()[0];
    let repeated = caller.call_with(Method::Copy, repeat, &key).await.unwrap();
    assert_eq!(text(&repeated, "id"), pending);
    server.copied("desktops", "new", &source).await;
    let gone = json!({"imageId": text(&images[0], "id")});
    server.ask(Method::DesktopDelete, gone).await;
    let images = server.ask(Method::DesktopList, listed).await;
    let images = images["desktopImages"].as_array().unwrap();
    let names: Vec<_> = images.iter().map(|image| text(image, "name")).collect();
    assert_eq!(names, ["new", "pending"]);
}
