//! A database without its blobs, and blobs without their database: told at the start, and by health
//! while a server runs.

use std::fs;
use std::path::Path;

use desktop_images::app::{Data, Error};
use serde_json::{Value, json};
use test_support::{Clients, Disk, Fill, Method, TestServer, blob_files, eventually};
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus};

/// A server that has stopped, with so many blobs; the desktop image of the first.
async fn stopped(count: u64) -> (TestServer, String) {
    let mut server = TestServer::start().await;
    let mut copies = Vec::new();
    for number in 0..count {
        let disk = Disk::mbr(1, Fill::Random(number));
        let source = server.compute_image("f", "", &disk).await;
        copies.push(server.copied("f", &format!("copy {number}"), &source).await);
    }
    server.stop().await;
    (server, copies.swap_remove(0))
}

fn remove_database(data: &Path) {
    for file in [
        "metadata.sqlite",
        "metadata.sqlite-wal",
        "metadata.sqlite-shm",
    ] {
        let _ = fs::remove_file(data.join(file));
    }
}

async fn starts_with_adopt_empty(server: &mut TestServer) {
    server.config.data = Data::AdoptEmpty(server.data());
    server.start_again().await.unwrap();
}

#[tokio::test]
async fn a_lost_content_folder_is_told_at_the_start() {
    let away = |data: &Path| fs::rename(data.join("contents"), data.join("away")).unwrap();
    let replaced = |data: &Path| {
        away(data);
        fs::create_dir(data.join("contents")).unwrap();
    };
    let emptied = |data: &Path| {
        for file in blob_files(data) {
            fs::remove_file(data.join("contents").join(file)).unwrap();
        }
    };
    let a_file = |data: &Path| {
        away(data);
        fs::write(data.join("contents"), b"").unwrap();
    };
    type Loss<'a> = &'a dyn Fn(&Path);
    let losses: [(&str, u64, Loss<'_>); 5] = [
        ("moved away", 1, &away),
        ("another one in its place", 1, &replaced),
        ("another one in its place, of many", 3, &replaced),
        ("emptied", 3, &emptied),
        ("a file in its place", 1, &a_file),
    ];
    for (what, count, lose) in losses {
        let (mut server, copy) = stopped(count).await;
        lose(&server.data());
        for _ in 0..2 {
            let refusal = server.start_again().await.expect_err(what);
            assert!(
                matches!(refusal, Error::BlobsLost { .. }),
                "{what}: {refusal}"
            );
            for words in ["contents", "put it back", "--adopt-empty"] {
                assert!(refusal.to_string().contains(words), "{what}: {refusal}");
            }
        }
        if what == "a file in its place" {
            continue;
        }
        starts_with_adopt_empty(&mut server).await;
        server
            .ask(Method::DesktopGet, json!({"imageId": copy}))
            .await;
        let url = server.url(&format!("/cloud-desktop/v1/images/{copy}:download"));
        assert_eq!(server.http.get(url).send().await.unwrap().status(), 500);
    }
}

#[tokio::test]
async fn a_single_file_that_is_gone_keeps_no_server_from_starting() {
    let (mut server, copy) = stopped(1).await;
    let file = server
        .data()
        .join("contents")
        .join(&blob_files(&server.data())[0]);
    fs::remove_file(file).unwrap();
    server.start_again().await.unwrap();
    let disk = Disk::mbr(1, Fill::Random(0));
    server.compute_image("f", "again", &disk).await;
    assert!(server.downloaded(&copy).await == disk);
}

#[tokio::test]
async fn a_data_folder_that_was_moved_or_put_back_from_a_backup_opens() {
    let (mut server, copy) = stopped(2).await;
    let data = server.data();
    fs::rename(data.join("contents"), data.join("away")).unwrap();
    fs::create_dir(data.join("contents")).unwrap();
    for entry in fs::read_dir(data.join("away")).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), data.join("contents").join(entry.file_name())).unwrap();
    }
    fs::remove_dir_all(data.join("away")).unwrap();
    server.start_again().await.unwrap();
    assert!(server.downloaded(&copy).await == Disk::mbr(1, Fill::Random(0)));
}

#[tokio::test]
async fn an_empty_or_new_database_beside_blobs_is_refused_and_nothing_is_touched() {
    let removed = remove_database;
    let emptied = |data: &Path| {
        remove_database(data);
        fs::write(data.join("metadata.sqlite"), b"").unwrap();
    };
    let mut fresh = TestServer::start().await;
    fresh.stop().await;
    let new = |data: &Path| eventually_copied(&fresh.data().join("metadata.sqlite"), data);
    type Loss<'a> = &'a dyn Fn(&Path);
    let losses: [(&str, Loss<'_>); 3] =
        [("removed", &removed), ("emptied", &emptied), ("new", &new)];
    for (what, lose) in losses {
        let (mut server, copy) = stopped(2).await;
        let before = blob_files(&server.data());
        lose(&server.data());
        for _ in 0..2 {
            let refusal = server.start_again().await.expect_err(what);
            assert!(
                matches!(refusal, Error::DatabaseLost { .. }),
                "{what}: {refusal}"
            );
            for words in ["metadata.sqlite", "2 files", "--adopt-empty"] {
                assert!(refusal.to_string().contains(words), "{what}: {refusal}");
            }
        }
        starts_with_adopt_empty(&mut server).await;
        let gone = server.url(&format!("/cloud-desktop/v1/images/{copy}:download"));
        assert_eq!(server.http.get(gone).send().await.unwrap().status(), 404);
        // What is not known is nobody's to remove.
        server.restart().await;
        assert_eq!(blob_files(&server.data()).len(), before.len());
        // From then on the folder is as any other.
        server.stop().await;
        server.config.data = Data::Folder(server.data());
        server
            .start_again()
            .await
            .expect_err("the database still knows nothing");
        starts_with_adopt_empty(&mut server).await;
        server
            .compute_image("f", "n", &Disk::mbr(1, Fill::Random(9)))
            .await;
        server.stop().await;
        server.config.data = Data::Folder(server.data());
        server.start_again().await.unwrap();
    }
}

/// Puts a database that was just closed into a data folder.
fn eventually_copied(path: &Path, data: &Path) {
    remove_database(data);
    for file in ["metadata.sqlite", "metadata.sqlite-wal"] {
        let from = path.with_file_name(file);
        if from.exists() {
            fs::copy(from, data.join(file)).unwrap();
        }
    }
}

#[tokio::test]
async fn a_log_without_its_database_is_not_thrown_away() {
    let (mut server, _) = stopped(1).await;
    let data = server.data();
    fs::remove_dir_all(data.join("contents")).unwrap();
    remove_database(&data);
    let log = data.join("metadata.sqlite-wal");
    fs::write(&log, b"commits").unwrap();
    let refusal = server.start_again().await.unwrap_err();
    assert!(matches!(refusal, Error::DatabaseLost { .. }), "{refusal}");
    assert_eq!(fs::read(&log).unwrap(), b"commits");
}

/// Health over both transports, of the server and of a service.
async fn health(clients: &Clients) -> Vec<String> {
    let mut told = Vec::new();
    for service in ["", "yandex.cloud.clouddesktop.v1.api.DesktopImageService"] {
        let mut client = HealthClient::new(clients.channel.clone());
        let request = HealthCheckRequest {
            service: service.to_owned(),
        };
        let status = client.check(request).await.unwrap().into_inner().status;
        let status = ServingStatus::try_from(status).unwrap();
        told.push(status.as_str_name().to_owned());
        let url = clients.url("/grpc.health.v1.Health/Check");
        let body = json!({"service": service}).to_string();
        let reply = clients.http.post(url).body(body).send().await.unwrap();
        let reply: Value = serde_json::from_slice(&reply.bytes().await.unwrap()).unwrap();
        told.push(reply["status"].as_str().unwrap().to_owned());
    }
    told
}

async fn health_becomes(clients: &Clients, status: &str) {
    eventually(&format!("health is {status}"), || async {
        let told = health(clients).await;
        told.iter().all(|told| told == status).then_some(())
    })
    .await;
}

#[tokio::test]
async fn health_tells_of_a_lost_content_folder_until_it_is_back() {
    let server = TestServer::start().await;
    let disk = Disk::mbr(1, Fill::Random(1));
    let source = server.compute_image("f", "source", &disk).await;
    let copy = server.copied("f", "copy", &source).await;
    health_becomes(&server, "SERVING").await;
    let (folder, away) = (server.data().join("contents"), server.data().join("away"));
    for another_in_its_place in [false, true] {
        fs::rename(&folder, &away).unwrap();
        if another_in_its_place {
            fs::create_dir(&folder).unwrap();
        }
        health_becomes(&server, "NOT_SERVING").await;
        // The image is not taken for damaged, and nothing is written into the wrong folder.
        let url = server.url(&format!("/cloud-desktop/v1/images/{copy}:download"));
        let reply = server.http.get(url).send().await.unwrap();
        assert_eq!(reply.status(), 503);
        let upload = server
            .uploaded("f", "", &Disk::mbr(1, Fill::Random(2)))
            .await;
        assert!(upload.get("error").is_some(), "{upload}");
        if another_in_its_place {
            assert!(blob_files(&server.data()).is_empty());
            fs::remove_dir(&folder).unwrap();
        }
        fs::rename(&away, &folder).unwrap();
        health_becomes(&server, "SERVING").await;
        assert!(server.downloaded(&copy).await == disk);
        let name = format!("copy {another_in_its_place}");
        server.copied("f", &name, &source).await;
    }
}

#[tokio::test]
async fn health_tells_of_a_database_that_is_not_where_it_was() {
    let server = TestServer::start().await;
    let (file, away) = (
        server.data().join("metadata.sqlite"),
        server.data().join("away"),
    );
    fs::rename(&file, &away).unwrap();
    health_becomes(&server, "NOT_SERVING").await;
    fs::rename(&away, &file).unwrap();
    health_becomes(&server, "SERVING").await;
}
