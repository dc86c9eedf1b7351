//! `file://` uris: what may be imported, and what may not.

use std::fs;
use std::os::unix::fs::symlink;

use serde_json::json;
use test_support::{Disk, Fill, Method, TestServer, image_id, response, text};
use tonic::Code;

#[tokio::test]
async fn nothing_but_plain_files_below_the_import_folder_is_read() {
    let server = TestServer::start().await;
    let disk = Disk::mbr(1, Fill::Random(1));
    let imports = server.imports();
    let root = imports.display();
    server.importable("disk.img", &disk);
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("secret.img"), &disk).unwrap();
    fs::create_dir(imports.join("folder")).unwrap();
    symlink(outside.path().join("secret.img"), imports.join("link")).unwrap();
    symlink(outside.path(), imports.join("linked-folder")).unwrap();
    symlink("../data/metadata.sqlite", imports.join("relative-link")).unwrap();
    symlink("loop", imports.join("loop")).unwrap();
    symlink("/proc/self/environ", imports.join("proc")).unwrap();
    let fifo = imports.join("fifo");
    let kind = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, kind, rustix::fs::Mode::RUSR, 0).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(imports.join("socket")).unwrap();

    for caller in server.callers() {
        for uri in [
            "".to_owned(),
            "disk.img".to_owned(),
            "/etc/passwd".to_owned(),
            "file:disk.img".to_owned(),
            "file://".to_owned(),
            "file:///".to_owned(),
            "file:///etc/passwd".to_owned(),
            "file:///proc/self/mem".to_owned(),
            format!("http://127.0.0.1{root}/disk.img"),
            format!("https://example.com{root}/disk.img"),
            format!("ftp://localhost{root}/disk.img"),
            format!("file://example.com{root}/disk.img"),
            format!("file://{root}"),
            format!("file://{root}/"),
            format!("file://{root}/folder"),
            format!("file://{root}/missing.img"),
            format!("file://{root}/disk.img/x"),
            format!("file://{root}/../data/metadata.sqlite"),
            format!("file://{root}/folder/../disk.img"),
            format!("file://{root}/%2e%2e/data/metadata.sqlite"),
            format!("file://{root}/%2E%2E%2Fdata%2Fmetadata.sqlite"),
            format!("file://{root}/./disk.img"),
            format!("file://{root}//disk.img"),
            format!("file://{root}/folder%2Fx"),
            format!("file://{root}/disk.img%00"),
            format!("file://{root}/disk.img%"),
            format!("file://{root}/disk.img?x"),
            format!("file://{root}/disk.img#x"),
            format!("file://{root}x/disk.img"),
            format!("file://{root}/link"),
            format!("file://{root}/linked-folder/secret.img"),
            format!("file://{root}/relative-link"),
            format!("file://{root}/loop"),
            format!("file://{root}/proc"),
            format!("file://{root}/fifo"),
            format!("file://{root}/socket"),
            format!("file://{root}/{}", "a".repeat(5000)),
        ] {
            let request = json!({"folderId": "f", "name": "n", "uri": uri});
            let refusal = caller.call(Method::Create, request).await.expect_err(&uri);
            assert_eq!(
                refusal.code,
                Code::InvalidArgument,
                "{uri}: {}",
                refusal.message
            );
            assert_eq!(refusal.fields, ["uri"], "{uri}");
        }
    }
    assert_eq!(server.compute_images("f").await, 0);
    server.has_blobs(0).await;
}

#[tokio::test]
async fn escapes_and_links_inside_the_folder_are_followed() {
    let server = TestServer::start().await;
    let imports = server.imports();
    fs::create_dir(imports.join("ключ и")).unwrap();
    let name = "ключ и/диск 100%.img";
    let disk = Disk::mbr(1, Fill::Random(1));
    server.importable(name, &disk);
    symlink(name, imports.join("link.img")).unwrap();
    let root = imports.display().to_string();
    let escaped = |text: &str| {
        let segments = text.split('/').map(|segment| {
            percent_encoding::utf8_percent_encode(segment, percent_encoding::NON_ALPHANUMERIC)
        });
        segments
            .map(|segment| segment.to_string())
            .collect::<Vec<_>>()
            .join("/")
    };
    for caller in server.callers() {
        for uri in [
            format!("file://{root}/{}", escaped(name)),
            format!("file://localhost{}/{}", escaped(&root), escaped(name)),
            format!("FILE://{root}/link.img"),
        ] {
            let request = json!({"folderId": "f", "uri": uri});
            let accepted = caller.call(Method::Create, request).await.expect(&uri);
            let operation = server.wait(text(&accepted, "id")).await;
            response(&operation);
            let id = server
                .copied("f", &image_id(&operation), &image_id(&operation))
                .await;
            assert!(server.downloaded(&id).await == disk, "{uri}");
        }
    }
    server.has_blobs(1).await;
}

#[tokio::test]
async fn a_name_is_taken_from_the_moment_an_import_is_accepted() {
    let server = TestServer::start().await;
    let uri = server.importable("disk.img", &Disk::mbr(1, Fill::Random(1)));
    for (number, caller) in server.callers().iter().enumerate() {
        let name = format!("name-{number}");
        let request = json!({"folderId": "f", "name": name, "uri": uri});
        let accepted = caller.call(Method::Create, request.clone()).await.unwrap();
        let refusal = caller.call(Method::Create, request).await.unwrap_err();
        assert_eq!(refusal.code, Code::AlreadyExists);
        response(&server.wait(text(&accepted, "id")).await);
    }
}
