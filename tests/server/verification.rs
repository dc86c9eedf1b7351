//! `verify`: what it finds, what it notes, and that it may run beside a server.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use test_support::{Disk, Fill, Method, Program, TestServer, Transport, blob_files};
use tonic::Code;

async fn verify(server: &TestServer) -> (Option<i32>, Value) {
    let arguments = format!(
        "verify --format json --data-dir {}",
        server.data().display()
    );
    let ran = Program::run(server.address, &arguments).await;
    let found = serde_json::from_str(&ran.output);
    (
        ran.exit_code,
        found.unwrap_or_else(|_| panic!("no JSON: {ran:?}")),
    )
}

fn kinds(found: &Value) -> Vec<&str> {
    let problems = found["problems"].as_array().unwrap();
    problems
        .iter()
        .map(|problem| problem["kind"].as_str().unwrap())
        .collect()
}

fn flip(path: &Path, offset: u64) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 1], offset).unwrap();
}

/// The file that has a disk's bytes.
fn file_of(server: &TestServer, disk: &[u8]) -> PathBuf {
    let folder = server.data().join("contents");
    let files = blob_files(&server.data());
    let mut paths = files.iter().map(|file| folder.join(file));
    paths
        .find(|path| fs::read(path).unwrap() == disk)
        .expect("a file with these bytes")
}

/// Whether an image can be copied: it is not known as damaged.
async fn copies(server: &TestServer, source: &str, name: &str) -> bool {
    let caller = server.caller(Transport::Grpc);
    let request = json!({"folderId": "f", "name": name, "imageId": source});
    match caller.call(Method::Copy, request).await {
        Ok(_) => true,
        Err(refusal) => {
            assert_eq!(refusal.code, Code::FailedPrecondition, "{refusal:?}");
            false
        }
    }
}

#[tokio::test]
async fn nothing_is_found_where_nothing_is_wrong() {
    let mut server = TestServer::start().await;
    for running in [true, false] {
        if running {
            server
                .compute_image("f", "", &Disk::mbr(9, Fill::Random(1)))
                .await;
            server
                .compute_image("f", "", &Disk::mbr(40, Fill::Sparse(1)))
                .await;
        } else {
            server.stop().await;
        }
        let (exit_code, found) = verify(&server).await;
        assert_eq!(exit_code, Some(0), "{found}");
        let expected =
            json!({"contents": 2, "bytes": 49 << 20, "checksumsMade": 0, "problems": []});
        assert_eq!(found, expected);
    }
    let arguments = format!("verify --data-dir {}", server.data().display());
    let text = Program::run(server.address, &arguments).await.succeeded();
    assert!(text.contains("nothing is wrong"), "{text}");
}

#[tokio::test]
async fn every_damage_is_found_named_and_noted_beside_a_running_server() {
    type Damage<'a> = &'a dyn Fn(&Path);
    let cut = |path: &Path| {
        File::options()
            .write(true)
            .open(path)
            .unwrap()
            .set_len(5 << 20)
            .unwrap()
    };
    let damages: [(&str, &str, Damage<'_>); 6] = [
        ("first byte", "blocks of 4 MiB at 0;", &|path| flip(path, 0)),
        ("last byte", "blocks of 4 MiB at 8388608;", &|path| {
            flip(path, (9 << 20) - 1)
        }),
        ("two blocks", "at 0, 4194304;", &|path| {
            flip(path, 3);
            flip(path, 5 << 20);
        }),
        ("cut", "has 5242880 bytes", &cut),
        ("removed", "missing", &|path| fs::remove_file(path).unwrap()),
        ("another file", "SHA-256", &|path| {
            fs::write(path, vec![7; 9 << 20]).unwrap()
        }),
    ];
    for (what, words, damage) in damages {
        let server = TestServer::start().await;
        let disk = Disk::mbr(9, Fill::Random(1));
        let source = server.compute_image("f", "source", &disk).await;
        let copy = server.copied("f", "copy", &source).await;
        let sound = Disk::mbr(2, Fill::Random(2));
        let sound = server.compute_image("f", "sound", &sound).await;
        damage(&file_of(&server, &disk));
        let (exit_code, found) = verify(&server).await;
        assert_eq!(exit_code, Some(1), "{what}: {found}");
        assert_eq!(kinds(&found), ["content"], "{what}: {found}");
        let problem = &found["problems"][0];
        assert_eq!(problem["imageIds"], json!([copy, source]), "{what}");
        let message = problem["message"].as_str().unwrap();
        assert!(message.contains(words), "{what}: {message}");
        assert!(
            !copies(&server, &source, "of the damaged one").await,
            "{what}"
        );
        assert!(copies(&server, &sound, "of the sound one").await, "{what}");
        // An equal upload mends, which the next run sees.
        server.compute_image("f", "again", &disk).await;
        let (exit_code, found) = verify(&server).await;
        assert_eq!((exit_code, kinds(&found)), (Some(0), vec![]), "{what}");
        assert!(server.downloaded(&copy).await == disk, "{what}");
    }
}

#[tokio::test]
async fn a_file_that_is_whole_again_is_known_as_sound_again() {
    let server = TestServer::start().await;
    let disk = Disk::mbr(2, Fill::Random(1));
    let source = server.compute_image("f", "source", &disk).await;
    let file = file_of(&server, &disk);
    flip(&file, 100);
    assert_eq!(verify(&server).await.0, Some(1));
    assert!(!copies(&server, &source, "a").await);
    flip(&file, 100);
    assert_eq!(verify(&server).await.0, Some(0));
    assert!(copies(&server, &source, "a").await);
}

#[tokio::test]
async fn blobs_without_checksums_are_served_and_get_theirs_by_verify() {
    let mut server = TestServer::start().await;
    let disk = Disk::mbr(9, Fill::Random(1));
    let source = server.compute_image("f", "source", &disk).await;
    let copy = server.copied("f", "copy", &source).await;
    let file = file_of(&server, &disk);
    for damaged in [false, true] {
        // As blobs are from before there were any, and as a damaged page leaves them.
        server.stop().await;
        let database = rusqlite::Connection::open(server.data().join("metadata.sqlite")).unwrap();
        let sql = match damaged {
            false => "DELETE FROM content_checksums",
            true => "UPDATE content_checksums SET checksums = x'0116ffff'",
        };
        assert_eq!(database.execute(sql, []).unwrap(), 1);
        drop(database);
        server.start_again().await.unwrap();
        assert!(server.downloaded(&copy).await == disk);
        let (exit_code, found) = verify(&server).await;
        assert_eq!(exit_code, Some(0), "{found}");
        assert_eq!(found["checksumsMade"], 1);
        assert_eq!(verify(&server).await.1["checksumsMade"], 0);
        flip(&file, 5 << 20);
        let url = server.url(&format!("/cloud-desktop/v1/images/{copy}:download"));
        let reply = server.http.get(url).send().await.unwrap();
        assert!(reply.bytes().await.is_err(), "it has checksums now");
        flip(&file, 5 << 20);
        assert_eq!(verify(&server).await.0, Some(0), "it is whole again");
    }
}

#[tokio::test]
async fn a_file_that_no_row_names_and_a_damaged_database_are_found() {
    let mut server = TestServer::start().await;
    for number in 0..5 {
        let disk = Disk::mbr(1, Fill::Sparse(1));
        server
            .compute_image("f", &format!("n-{number}"), &disk)
            .await;
    }
    let stray = server.data().join("contents/stray");
    fs::write(&stray, b"stray").unwrap();
    let (exit_code, found) = verify(&server).await;
    assert_eq!((exit_code, kinds(&found)), (Some(1), vec!["unknown_file"]));
    assert!(
        found["problems"][0]["message"]
            .as_str()
            .unwrap()
            .contains("\"stray\"")
    );
    assert!(stray.exists(), "it is told, and left alone");
    fs::remove_file(&stray).unwrap();

    // An index that lacks rows, and references to a row that is not there: no read of the server sees them.
    server.stop().await;
    let database = rusqlite::Connection::open(server.data().join("metadata.sqlite")).unwrap();
    database
        .execute_batch(
            "PRAGMA foreign_keys = OFF;
             UPDATE compute_images SET content_key = 99;
             PRAGMA writable_schema = ON;
             UPDATE sqlite_schema SET sql = replace(sql, ' WHERE status <> 2', '')
             WHERE name = 'compute_images_status';",
        )
        .unwrap();
    drop(database);
    let (exit_code, found) = verify(&server).await;
    assert_eq!(exit_code, Some(1), "{found}");
    assert!(kinds(&found).iter().all(|kind| *kind == "database"));
    let told = found["problems"].to_string();
    for words in [
        "missing from index compute_images_status",
        "refers to a row of contents",
    ] {
        assert!(told.contains(words), "{found}");
    }
}

#[tokio::test]
async fn a_folder_without_a_database_is_told() {
    let server = TestServer::start().await;
    let folder = tempfile::tempdir().unwrap();
    let arguments = format!("verify --data-dir {}", folder.path().display());
    let ran = Program::run(server.address, &arguments).await;
    assert_eq!(ran.exit_code, Some(1));
    assert!(ran.errors.contains("metadata.sqlite"), "{}", ran.errors);
    assert!(fs::read_dir(folder.path()).unwrap().next().is_none());
}

#[tokio::test]
async fn what_comes_and_goes_meanwhile_is_no_problem() {
    let server = TestServer::start().await;
    let disk = Disk::mbr(1, Fill::Random(1));
    let source = server.compute_image("f", "source", &disk).await;
    let changes = async {
        for number in 0..20 {
            let name = format!("again-{number}");
            server.compute_image("f", &name, &disk).await;
            let other = Disk::mbr(1, Fill::Random(100 + number));
            let id = server.compute_image("f", "other", &other).await;
            server
                .ask(Method::ComputeDelete, json!({"imageId": id}))
                .await;
        }
    };
    let verifications = async {
        for _ in 0..3 {
            let (exit_code, found) = verify(&server).await;
            assert_eq!(exit_code, Some(0), "{found}");
        }
    };
    tokio::join!(changes, verifications);
    assert!(copies(&server, &source, "at the end").await);
}

/// Turns the data of a server that has stopped into those of the first release.
fn as_of_the_first_release(data: &Path, disk: &[u8]) {
    for file in [
        "metadata.sqlite",
        "metadata.sqlite-wal",
        "metadata.sqlite-shm",
    ] {
        let _ = fs::remove_file(data.join(file));
    }
    let content = data.join("contents/cnt-of-before");
    for file in blob_files(data) {
        fs::remove_file(data.join("contents").join(file)).unwrap();
    }
    fs::write(&content, disk).unwrap();
    let database = rusqlite::Connection::open(data.join("metadata.sqlite")).unwrap();
    database
        .execute_batch(include_str!("../../migrations/0001_initial.sql"))
        .unwrap();
    database
        .execute_batch("PRAGMA journal_mode = WAL; PRAGMA user_version = 1; PRAGMA application_id = 0x64696d67;")
        .unwrap();
    let digest = Sha256::digest(disk).to_vec();
    let size = disk.len() as i64;
    database
        .execute(
            "INSERT INTO contents (key, id, state, format, size, stored_size, virtual_size, sha256)
             VALUES (1, 'cnt-of-before', 1, 'raw', ?1, ?1, ?1, ?2)",
            rusqlite::params![size, digest],
        )
        .unwrap();
    database
        .execute_batch(
            "INSERT INTO folders (key, id) VALUES (1, 'f');
             INSERT INTO desktop_images (key, id_rest, folder_key, status, name, description,
                 labels, min_disk_size, content_key)
             VALUES (1000000000000, 7, 1, 2, 'of-before', '', '{}', 1048576, 1)",
        )
        .unwrap();
}

#[tokio::test]
async fn data_of_the_first_release_are_served_and_get_checksums() {
    for verified_first in [false, true] {
        let mut server = TestServer::start().await;
        server.stop().await;
        let disk = Disk::mbr(5, Fill::Random(1));
        as_of_the_first_release(&server.data(), &disk);
        if verified_first {
            let (exit_code, found) = verify(&server).await;
            assert_eq!((exit_code, kinds(&found)), (Some(0), vec![]));
            assert_eq!(found["checksumsMade"], 1);
        }
        server.start_again().await.unwrap();
        let page = server
            .ask(Method::DesktopList, json!({"folderId": "f"}))
            .await;
        let id = page["desktopImages"][0]["id"].as_str().unwrap().to_owned();
        assert!(server.downloaded(&id).await == disk);
        let (exit_code, found) = verify(&server).await;
        assert_eq!(exit_code, Some(0));
        assert_eq!(found["checksumsMade"], u64::from(!verified_first));
        let source = server.compute_image("f", "source", &disk).await;
        let copy = server.copied("f", "copy", &source).await;
        for id in [id, copy] {
            assert!(server.downloaded(&id).await == disk);
        }
        server.has_blobs(1).await;
    }
}
