//! The database file when it is damaged, read-only or without room: a clear refusal or a right
//! answer, never silence.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Stdio;

use futures_util::future::join_all;
use serde_json::json;
use test_support::{Disk, Fill, Method, Program, SmallDisk, TestServer, Transport, left_out, text};
use tokio::process::Command;
use tonic::Code;

/// A server that has stopped, with a compute image and this many copies in folder `f`.
async fn stopped(copies: usize) -> (TestServer, String) {
    let mut server = TestServer::start().await;
    let disk = Disk::mbr(1, Fill::Sparse(1));
    let source = server.compute_image("f", "source", &disk).await;
    for n in 0..copies {
        server.copied("f", &format!("copy {n}"), &source).await;
    }
    server.stop().await;
    (server, source)
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused_and_left_as_it_is() {
    let (mut server, _) = stopped(1).await;
    let path = server.data().join("metadata.sqlite");
    let whole = fs::read(&path).unwrap();
    let mut headless = whole.clone();
    headless[..100].fill(b'x');
    let elses = {
        let path = server.data().join("else.sqlite");
        let database = rusqlite::Connection::open(&path).unwrap();
        database.execute_batch("CREATE TABLE t (c)").unwrap();
        drop(database);
        fs::read(&path).unwrap()
    };
    let truncated = whole[..5000].to_vec();
    for (what, bytes, words) in [
        ("no header", &headless, "damaged"),
        ("cut off", &truncated, "damaged"),
        (
            "of another program",
            &elses,
            "not a database of this program",
        ),
    ] {
        fs::write(&path, bytes).unwrap();
        let refusal = server.start_again().await.expect_err(what).to_string();
        assert!(refusal.contains(words), "{what}: {refusal}");
        assert!(
            &fs::read(&path).unwrap() == bytes,
            "{what}: it was written to"
        );
    }
    fs::write(&path, &whole).unwrap();
    server.start_again().await.unwrap();
    assert_eq!(server.compute_images("f").await, 1);
}

#[tokio::test]
async fn what_lies_on_a_damaged_page_is_refused_and_the_rest_is_right() {
    let (mut server, source) = stopped(300).await;
    let path = server.data().join("metadata.sqlite");
    let pages = fs::metadata(&path).unwrap().len() as usize / 4096;
    let list = json!({"folderId": "f", "pageSize": 1000});
    server.start_again().await.unwrap();
    let whole = server.ask(Method::DesktopList, list.clone()).await;
    server.stop().await;
    let mut refusals = 0;
    let sound = fs::read(&path).unwrap();
    for page in 1..pages {
        // Only one page is damaged at a time.
        let mut damaged = sound.clone();
        let page_at = page * 4096;
        damaged[page_at..page_at + 4096].fill(0xa5);
        fs::write(&path, &damaged).unwrap();
        if let Err(refusal) = server.start_again().await {
            refusals += 1;
            assert!(
                refusal.to_string().contains("damaged"),
                "page {page}: {refusal}"
            );
            continue;
        }
        for transport in [Transport::Grpc, Transport::Rest] {
            let caller = server.caller(transport);
            match caller.call(Method::DesktopList, list.clone()).await {
                Ok(page) => assert_eq!(page, whole),
                Err(refusal) => {
                    refusals += 1;
                    assert_eq!(refusal.code, Code::DataLoss, "{refusal:?}");
                }
            }
        }
        let copy = json!({"folderId": "f", "name": "new", "imageId": source});
        let caller = server.caller(Transport::Grpc);
        if let Err(refusal) = caller.call(Method::Copy, copy).await {
            refusals += 1;
            assert_eq!(refusal.code, Code::DataLoss, "{refusal:?}");
        }
        server.stop().await;
    }
    assert!(refusals > 0, "no page was missed");
}

/// Runs the program as somebody who is not root, for whom permissions count.
async fn serve_as_nobody(data: &Path) -> Option<String> {
    let child = Command::new(Program::path())
        .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(data)
        .uid(65534)
        .gid(65534)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .ok()?;
    let ended = tokio::time::timeout(std::time::Duration::from_secs(30), child.wait_with_output());
    let output = ended.await.expect("it ends by itself").unwrap();
    assert!(!output.status.success());
    Some(String::from_utf8_lossy(&output.stderr).into_owned())
}

#[tokio::test]
async fn a_read_only_database_is_refused_at_the_start() {
    let test = "a_read_only_database_is_refused_at_the_start";
    if fs::metadata("/proc/self").unwrap().uid() != 0 {
        return left_out(test, "another user can be played by root only");
    }
    let (server, _) = stopped(1).await;
    let data = tempfile::tempdir_in("/tmp").unwrap();
    let mode =
        |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    fs::create_dir(data.path().join("contents")).unwrap();
    fs::write(data.path().join("lock"), b"").unwrap();
    let database = data.path().join("metadata.sqlite");
    fs::copy(server.data().join("metadata.sqlite"), &database).unwrap();
    mode(data.path(), 0o777);
    mode(&data.path().join("lock"), 0o666);
    mode(&database, 0o444);
    let said = serve_as_nobody(data.path())
        .await
        .expect("the program runs");
    assert!(said.contains("cannot be written to"), "{said}");
}

#[tokio::test]
async fn a_commit_that_finds_no_room_is_refused_and_those_before_it_stay() {
    let mut server = TestServer::start().await;
    server.stop().await;
    fs::remove_dir_all(server.data()).unwrap();
    let Some(_disk) = SmallDisk::mount(server.data(), 24) else {
        let test = "a_commit_that_finds_no_room_is_refused_and_those_before_it_stay";
        return left_out(test, "a file system can be mounted by root only");
    };
    server.start_again().await.unwrap();
    let source = server
        .compute_image("f", "source", &Disk::mbr(1, Fill::Sparse(1)))
        .await;
    let filler = server.data().join("filler");
    fs::write(&filler, vec![1; 20 << 20]).unwrap_or_default();
    let description = "d".repeat(1000);
    let (mut made, mut refused) = (Vec::new(), Vec::new());
    // Until the disk is full, and on: each commit that fails is a commit of many.
    for round in 0..200 {
        let copies = (0..64).map(|n| {
            let name = format!("copy {round} {n}");
            let request = json!({
                "folderId": "f", "name": name, "imageId": source, "description": description,
            });
            let caller = server.caller(Transport::Grpc);
            async move { (name, caller.call(Method::Copy, request).await) }
        });
        for (name, reply) in join_all(copies).await {
            match reply {
                Ok(operation) => {
                    made.push((name, text(&operation["metadata"], "imageId").to_owned()))
                }
                Err(refusal) => {
                    assert_eq!(refusal.code, Code::ResourceExhausted, "{refusal:?}");
                    assert!(refusal.message.contains("disk is full"), "{refusal:?}");
                    refused.push(name);
                }
            }
        }
        if refused.len() > 200 {
            break;
        }
    }
    assert!(!refused.is_empty(), "the disk never filled");
    // Reads go on.
    let (_, id) = &made[0];
    server.ask(Method::DesktopGet, json!({"imageId": id})).await;
    fs::remove_file(&filler).unwrap();
    server.copied("f", "with room again", &source).await;
    server.restart().await;
    for (name, id) in &made {
        let image = server.ask(Method::DesktopGet, json!({"imageId": id})).await;
        assert_eq!(image["name"], **name);
    }
    for name in refused.iter().take(50) {
        server.copied("f", name, &source).await;
    }
    server.stop().await;
}
