//! Files below the content folder that are not as they were written: what is told, and how they are
//! mended.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use serde_json::{Value, json};
use test_support::{Disk, Fill, Method, Refusal, TestServer, blob_files, response};
use tonic::Code;

/// The damage to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Damage {
    Removed,
    Cut,
    Longer,
    Emptied,
    Flipped,
}

impl Damage {
    const ALL: [Self; 5] = [
        Self::Removed,
        Self::Cut,
        Self::Longer,
        Self::Emptied,
        Self::Flipped,
    ];

    fn happens_to(self, path: &PathBuf) {
        let file = File::options().read(true).write(true).open(path).unwrap();
        let length = file.metadata().unwrap().len();
        match self {
            Self::Removed => fs::remove_file(path).unwrap(),
            Self::Cut => file.set_len(length - 1).unwrap(),
            Self::Longer => file.set_len(length + 1).unwrap(),
            Self::Emptied => file.set_len(0).unwrap(),
            Self::Flipped => {
                let mut byte = [0];
                file.read_exact_at(&mut byte, length / 2).unwrap();
                file.write_all_at(&[byte[0] ^ 1], length / 2).unwrap();
            }
        }
    }
}

/// The only file of the content folder.
fn only_blob(server: &TestServer) -> PathBuf {
    let files = blob_files(&server.data());
    assert_eq!(files.len(), 1);
    server.data().join("contents").join(&files[0])
}

async fn download(server: &TestServer, id: &str) -> reqwest::Response {
    let url = server.url(&format!("/cloud-desktop/v1/images/{id}:download"));
    server.http.get(url).send().await.unwrap()
}

#[tokio::test]
async fn an_upload_of_equal_bytes_mends_all_images_made_of_them_whatever_became_of_the_file() {
    for damage in Damage::ALL {
        let server = TestServer::start().await;
        let disk = Disk::mbr(9, Fill::Random(1));
        let source = server.compute_image("f", "source", &disk).await;
        let copy = server.copied("f", "copy", &source).await;
        let old = only_blob(&server);
        damage.happens_to(&old);
        // Known as damaged or not.
        for known in [false, true] {
            if known {
                damage.happens_to(&only_blob(&server));
                let _ = download(&server, &copy).await.bytes().await;
            }
            let name = format!("again {known}").replace(' ', "-");
            let again = server.compute_image("f", &name, &disk).await;
            let copies = [
                copy.clone(),
                server.copied("f", &format!("a {known}"), &source).await,
                server.copied("f", &format!("b {known}"), &again).await,
            ];
            for copy in &copies {
                assert!(
                    server.downloaded(copy).await == disk,
                    "{damage:?}, known: {known}"
                );
            }
            // The new file stands alone.
            server.has_blobs(1).await;
            assert!(fs::read(only_blob(&server)).unwrap() == disk);
        }
        assert!(!old.exists(), "{damage:?}");
    }
}

#[tokio::test]
async fn an_import_of_equal_bytes_mends_too_and_outlives_a_restart() {
    let mut server = TestServer::start().await;
    let disk = Disk::mbr(2, Fill::Random(1));
    let source = server.compute_image("f", "source", &disk).await;
    let copy = server.copied("f", "copy", &source).await;
    Damage::Flipped.happens_to(&only_blob(&server));
    let uri = server.importable("disk.img", &disk);
    let request = json!({"folderId": "f", "name": "again", "uri": uri});
    let accepted = server.ask(Method::Create, request).await;
    response(&server.wait(accepted["id"].as_str().unwrap()).await);
    assert!(server.downloaded(&copy).await == disk);
    server.restart().await;
    assert!(server.downloaded(&copy).await == disk);
    server.has_blobs(1).await;
}

#[tokio::test]
async fn a_reader_of_the_old_file_reads_on_while_an_equal_one_takes_its_place() {
    let server = TestServer::start().await;
    let disk = Disk::mbr(48, Fill::Random(1));
    let source = server.compute_image("f", "source", &disk).await;
    let copy = server.copied("f", "copy", &source).await;
    let old = only_blob(&server);
    let mut reply = download(&server, &copy).await;
    let mut body = reply.chunk().await.unwrap().unwrap().to_vec();
    server.compute_image("f", "again", &disk).await;
    server.has_blobs(1).await;
    assert!(!old.exists());
    while let Some(chunk) = reply.chunk().await.unwrap() {
        body.extend(chunk);
    }
    assert!(body == disk);
}

#[tokio::test]
async fn downloads_find_the_bytes_however_often_equal_ones_take_their_place() {
    let server = TestServer::start().await;
    let disk = Disk::mbr(1, Fill::Random(1));
    let source = server.compute_image("f", "source", &disk).await;
    let copy = server.copied("f", "copy", &source).await;
    let uploads = async {
        for number in 0..40 {
            let name = format!("again-{number}");
            server.compute_image("f", &name, &disk).await;
        }
    };
    let downloads = async {
        for _ in 0..150 {
            assert!(server.downloaded(&copy).await == disk);
        }
    };
    tokio::join!(uploads, downloads);
    server.has_blobs(1).await;
}

#[tokio::test]
async fn an_image_known_as_damaged_is_listed_but_neither_copied_nor_read() {
    for damage in [Damage::Removed, Damage::Cut] {
        let mut server = TestServer::start().await;
        let disk = Disk::mbr(2, Fill::Random(1));
        let source = server.compute_image("f", "source", &disk).await;
        let copy = server.copied("f", "copy", &source).await;
        damage.happens_to(&only_blob(&server));
        for round in 0..2 {
            let reply = download(&server, &copy).await;
            assert_eq!(reply.status(), 500, "{damage:?}");
            let body: Value = serde_json::from_slice(&reply.bytes().await.unwrap()).unwrap();
            let refusal = Refusal::from_json(&body);
            assert_eq!(refusal.code, Code::DataLoss);
            for words in [copy.as_str(), "damaged", "upload or import the same bytes"] {
                assert!(refusal.message.contains(words), "{}", refusal.message);
            }
            for caller in server.callers() {
                let created = json!({"folderId": "f", "name": "from", "imageId": source});
                let copied = json!({"folderId": "f", "name": "next", "imageId": source});
                for (method, request) in [(Method::Create, created), (Method::Copy, copied)] {
                    let refusal = caller.call(method, request).await.unwrap_err();
                    assert_eq!(refusal.code, Code::FailedPrecondition, "{method:?}");
                    for words in [source.as_str(), "damaged"] {
                        assert!(refusal.message.contains(words), "{}", refusal.message);
                    }
                }
                for (method, request) in [
                    (Method::ComputeGet, json!({"imageId": source})),
                    (Method::DesktopGet, json!({"imageId": copy})),
                    (Method::ComputeList, json!({"folderId": "f"})),
                    (Method::DesktopList, json!({"folderId": "f"})),
                ] {
                    caller.call(method, request).await.unwrap();
                }
            }
            // What is known outlives a restart.
            if round == 0 {
                server.restart().await;
            }
        }
        for (method, id) in [
            (Method::ComputeDelete, &source),
            (Method::DesktopDelete, &copy),
        ] {
            server.ask(method, json!({"imageId": id})).await;
        }
        server.has_blobs(0).await;
    }
}

/// How a download of an image over HTTP/1.1 or HTTP/2 ends: its bytes, if it ends well.
async fn read(server: &TestServer, id: &str, http2: bool, range: Option<&str>) -> Option<Vec<u8>> {
    let builder = reqwest::Client::builder().no_proxy();
    let client = match http2 {
        true => builder.http2_prior_knowledge(),
        false => builder.http1_only(),
    };
    let url = server.url(&format!("/cloud-desktop/v1/images/{id}:download"));
    let mut request = client.build().unwrap().get(url);
    if let Some(range) = range {
        request = request.header("range", range);
    }
    let reply = request.send().await.unwrap();
    let status = if range.is_some() { 206 } else { 200 };
    assert_eq!(reply.status(), status);
    reply.bytes().await.ok().map(Vec::from)
}

#[tokio::test]
async fn a_download_of_damaged_bytes_breaks_off_and_one_of_sound_ones_does_not() {
    const BLOCK: u64 = 4 << 20;
    let disk = Disk::mbr(11, Fill::Random(1));
    let last = disk.len() as u64 - 1;
    for bad in [0, BLOCK - 1, BLOCK, 2 * BLOCK + 5, last] {
        let server = TestServer::start().await;
        let source = server.compute_image("f", "source", &disk).await;
        let copy = server.copied("f", "copy", &source).await;
        let file = only_blob(&server);
        for http2 in [false, true] {
            // What was read before, also in small parts, says nothing of what is there now.
            for start in [0, BLOCK, 2 * BLOCK, bad] {
                let range = format!("bytes={start}-{start}");
                let read = read(&server, &copy, http2, Some(&range)).await;
                assert!(read.is_some(), "{bad}");
            }
            assert!(read(&server, &copy, http2, None).await.as_ref() == Some(&disk));
            let mut byte = [0];
            let handle = File::options().read(true).write(true).open(&file).unwrap();
            handle.read_exact_at(&mut byte, bad).unwrap();
            handle.write_all_at(&[byte[0] ^ 0x80], bad).unwrap();

            assert_eq!(read(&server, &copy, http2, None).await, None, "{bad}");
            for (range, holds_it) in [
                (format!("bytes={bad}-{bad}"), true),
                (
                    format!("bytes={}-{bad}", bad.saturating_sub(3_000_000)),
                    true,
                ),
                (format!("bytes=0-{last}"), true),
                ("bytes=10-20".to_owned(), bad < BLOCK),
                (
                    format!("bytes={}-{}", BLOCK + 7, 2 * BLOCK - 1),
                    bad / BLOCK == 1,
                ),
                ("bytes=-100".to_owned(), bad >= 2 * BLOCK),
            ] {
                // A part of a block that is bad elsewhere may have been checked by itself.
                let read = read(&server, &copy, http2, Some(&range)).await;
                if range.starts_with("bytes=10-") || range.starts_with("bytes=-") {
                    assert!(read.is_some() || holds_it, "{bad}: {range}");
                } else {
                    assert_eq!(read.is_none(), holds_it, "{bad}: {range}");
                }
            }
            let request = json!({"folderId": "f", "name": "next", "imageId": source});
            let [caller, _] = server.callers();
            let refusal = caller.call(Method::Copy, request).await.unwrap_err();
            assert_eq!(refusal.code, Code::FailedPrecondition, "{bad}");

            handle.write_all_at(&byte, bad).unwrap();
            assert!(read(&server, &copy, http2, None).await.as_ref() == Some(&disk));
        }
    }
}

#[tokio::test]
async fn many_slow_downloads_at_once_are_whole() {
    let server = TestServer::start().await;
    let disk = Disk::mbr(12, Fill::Random(1));
    let source = server.compute_image("f", "source", &disk).await;
    let copy = server.copied("f", "copy", &source).await;
    // All begin before any is read to its end. Each keeps two or three blocks: more than there is room for.
    let mut replies = Vec::new();
    for _ in 0..24 {
        let mut reply = download(&server, &copy).await;
        let first = reply.chunk().await.unwrap().unwrap();
        replies.push((reply, first.to_vec()));
    }
    for (mut reply, mut body) in replies {
        while let Some(chunk) = reply.chunk().await.unwrap() {
            body.extend(chunk);
        }
        assert!(body == disk);
    }
}
