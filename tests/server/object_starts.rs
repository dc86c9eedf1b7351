//! `serve --blobs`: what is wrong with an object storage is told at the start, and no secret with it.

use desktop_images::app::{BlobSettings, Config, Data, ObjectSettings, Server};
use test_support::seaweedfs::{self, credentials};
use test_support::{Disk, Fill, Program, TestServer};
use tokio::process::Command;

use crate::object_storage::{on_objects, settings};

/// The error of a start.
async fn refusal(config: Config) -> String {
    assert!(!format!("{config:?}").contains("hidden"));
    match Server::start(config).await {
        Ok(_) => panic!("it started"),
        Err(error) => error.to_string(),
    }
}

async fn refusal_of(settings: ObjectSettings) -> String {
    let config = Config {
        blobs: BlobSettings::Object(settings),
        ..Config::new(Data::Ephemeral)
    };
    refusal(config).await
}

#[tokio::test]
async fn a_storage_that_cannot_be_used_is_told_with_what_to_do() {
    if !seaweedfs::is_installed("object storages that refuse") {
        return;
    }
    let place = seaweedfs::place().await;
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = format!("http://{}", free.local_addr().unwrap());
    drop(free);
    let other = TestServer::start().await;
    let good = || settings(&place);
    let with = |key: &str, secret: &str| ObjectSettings {
        environment: credentials(key, secret),
        ..good()
    };
    let at = |endpoint: &str| ObjectSettings {
        endpoint: Some(endpoint.to_owned()),
        ..good()
    };
    for (settings, told) in [
        (
            ObjectSettings::new("http://host/bucket"),
            "must begin with s3://, gs:// or az://",
        ),
        (
            ObjectSettings::new("s3://key:hidden@bucket"),
            "credentials do not belong there",
        ),
        (
            ObjectSettings {
                url: "s3://missing/prefix".to_owned(),
                ..good()
            },
            "the object storage s3://missing/prefix is lost: there is no such bucket",
        ),
        (with("nobody", "hidden"), "AWS_ACCESS_KEY_ID"),
        (with("images", "hidden"), "AWS_SECRET_ACCESS_KEY"),
        (
            with("reader", "hidden-reader"),
            "they need to read, write, delete and list objects",
        ),
        (at(&nobody), "Connection refused"),
        (
            ObjectSettings {
                environment: Vec::new(),
                ..good()
            },
            "there are no credentials",
        ),
        (
            at(&place.endpoint.replace("http:", "https:")),
            "cannot be reached",
        ),
        (at("127.0.0.1"), "the endpoint is no URL"),
        // An HTTP server that is no object storage.
        (
            at(&format!("http://{}", other.address)),
            "is this the address of an object storage?",
        ),
    ] {
        let error = refusal_of(settings).await;
        assert!(error.contains(told), "{told}: {error}");
        assert!(!error.contains("hidden"), "{error}");
    }
}

#[tokio::test]
async fn a_bucket_and_a_database_that_do_not_belong_together_are_told() {
    if !seaweedfs::is_installed("buckets of other installations") {
        return;
    }
    let place = seaweedfs::place().await;
    let disk = Disk::mbr(1, Fill::Random(1));
    let mut first = on_objects(&place, |_| {}).await;
    first.compute_image("f", "in-bucket", &disk).await;
    first.stop().await;
    let in_bucket = first.config();

    let mut second = TestServer::start().await;
    let mut in_folder = second.config();
    in_folder.blobs = BlobSettings::Object(settings(&place));
    second.stop().await;
    // The folder of a database that knows nothing, beside the bucket of another.
    let error = refusal(in_folder.clone()).await;
    assert!(error.contains("belong to the installation"), "{error}");

    let empty = seaweedfs::place().await;
    let mut elsewhere = in_bucket.clone();
    elsewhere.blobs = BlobSettings::Object(settings(&empty));
    let error = refusal(elsewhere).await;
    assert!(
        error.contains("the database names 1 blobs below"),
        "{error}"
    );
    let mut nowhere = in_bucket.clone();
    nowhere.blobs = BlobSettings::Folder;
    let error = refusal(nowhere).await;
    assert!(error.contains("there is no such folder"), "{error}");

    // Objects that nobody owns.
    empty.put("blobs/stranger", disk.clone()).await;
    in_folder.blobs = BlobSettings::Object(settings(&empty));
    let error = refusal(in_folder).await;
    assert!(error.contains("has 1 files of images"), "{error}");

    // A database whose blobs are in its folder.
    second.start_again().await.unwrap();
    second.compute_image("f", "in-folder", &disk).await;
    second.stop().await;
    let mut moved = second.config();
    moved.blobs = BlobSettings::Object(settings(&seaweedfs::place().await));
    let error = refusal(moved).await;
    assert!(error.contains("there is a content folder too"), "{error}");
    second.start_again().await.unwrap();
    first.start_again().await.unwrap();
    assert_eq!(first.compute_images("f").await, 1);
}

#[tokio::test]
async fn the_program_takes_the_place_and_tells_no_secret() {
    let folder = tempfile::tempdir().unwrap();
    for (arguments, variable, told) in [
        (
            &["--blobs=s3://key:hidden@bucket"][..],
            "",
            "credentials do not belong there",
        ),
        (
            &[],
            "ftp://hidden@bucket",
            "credentials do not belong there",
        ),
        (
            &["--blobs=s3://bucket", "--upload-memory=1M"],
            "",
            "uploads need 16M at least",
        ),
        (&["--blobs-endpoint=https://x"], "", "--blobs <URL>"),
        (&["--blobs-redirect=https://x"], "", "--blobs <URL>"),
        (&["--blobs-layout=whole"], "", "--blobs <URL>"),
        (
            &["--blobs=s3://bucket", "--blobs-redirect-lifetime=5m"],
            "",
            "--blobs-redirect <URL>",
        ),
        (
            &[
                "--blobs=s3://bucket",
                "--blobs-redirect=https://x",
                "--blobs-redirect-lifetime=30s",
            ],
            "",
            "1m at least",
        ),
        (
            &[
                "--blobs=s3://bucket",
                "--blobs-redirect=https://key:hidden@x",
            ],
            "",
            "credentials do not belong there",
        ),
        (
            &["--blobs=s3://bucket", "--blobs-redirect=x:9000"],
            "",
            "the endpoint is no URL",
        ),
    ] {
        let mut command = Command::new(Program::path());
        command
            .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(folder.path())
            .args(arguments);
        if !variable.is_empty() {
            command.env("DESKTOP_IMAGES_BLOBS", variable);
        }
        let ended = command.output().await.unwrap();
        let said = String::from_utf8(ended.stderr).unwrap();
        assert!(!ended.status.success(), "{said}");
        assert!(said.contains(told), "{said}");
        assert!(!said.contains("hidden"), "{said}");
    }
    let help = Command::new(Program::path())
        .args(["serve", "--help"])
        .env("DESKTOP_IMAGES_BLOBS", "s3://hidden")
        .output();
    let help = String::from_utf8(help.await.unwrap().stdout).unwrap();
    assert!(help.contains("--upload-memory") && !help.contains("hidden"));
}
