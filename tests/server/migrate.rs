//! Moving an embedded installation to PostgreSQL and a folder that servers share.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use desktop_images::app::{Config, Data, PostgresSettings, StoreSettings};
use serde_json::{Value, json};
use test_support::{
    Disk, Fill, Method, TestServer, Transport, audit_events, blob_files, image_id, postgres_server,
    seaweedfs, text,
};
use tokio::process::Command;
use tonic::Code;
use uuid::Uuid;

use crate::data_commands::{killed_until_it_succeeds, program, refused, told};
use crate::object_storage::on_objects;

const FOLDER: &str = "f";
const KEY: &str = "idempotency-key";

/// A place to move to.
struct Target {
    url: String,
    folder: PathBuf,
    _folder: tempfile::TempDir,
}

impl Target {
    async fn new(test: &str) -> Option<Self> {
        if !postgres_server::is_installed(test) {
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        Some(Self {
            url: postgres_server::database().await,
            folder: folder.path().join("shared"),
            _folder: folder,
        })
    }

    fn migrate(&self, data: &Path, arguments: &[&str]) -> Command {
        let mut command = program(&["migrate", "--store", &self.url]);
        command.arg("--from-data-dir").arg(data);
        command.arg("--data-dir").arg(&self.folder).args(arguments);
        command
    }

    fn serve_from(&self, config: &mut Config) {
        config.store = StoreSettings::Postgres(PostgresSettings::new(&self.url));
        config.data = Data::Folder(self.folder.clone());
    }

    /// A server on what was moved.
    async fn server(&self) -> TestServer {
        TestServer::start_with(|config| self.serve_from(config)).await
    }
}

#[tokio::test]
async fn an_installation_goes_on_where_it_was_moved_to() {
    let Some(target) = Target::new("a move to PostgreSQL").await else {
        return;
    };
    let mut server = TestServer::start().await;
    let mut disks = vec![
        Disk::mbr(3, Fill::Random(1)).to_vec(),
        Disk::mbr(9, Fill::Sparse(2)).to_vec(),
    ];
    // Longer than a block, with zeros at the end.
    disks.push(Disk::mbr(9, Fill::Random(3)).to_vec());
    disks[2].resize(13 << 20, 0);
    let mut copies = Vec::new();
    for (number, disk) in disks.iter().enumerate() {
        let source = server.compute_image(FOLDER, "", disk).await;
        let name = format!("copy {number}");
        copies.push(server.copied(FOLDER, &name, &source).await);
    }
    let source = server.compute_image("other\tfolder\\", "", &disks[0]).await;
    let (key, copy) = (
        Uuid::new_v4().to_string(),
        json!({"folderId": "g", "name": "keyed", "imageId": source}),
    );
    let rest = server.caller(Transport::Rest);
    let keyed = rest
        .call_with(Method::Copy, copy.clone(), &[(KEY, &key)])
        .await
        .unwrap();
    let keyed = server.wait(text(&keyed, "id")).await;
    let request = json!({"imageId": copies.pop().unwrap()});
    let deleted = server.ask(Method::DesktopDelete, request).await;
    let deleted = server.wait(text(&deleted, "id")).await;
    let limit = json!({"folderId": FOLDER, "name": "vdi.desktopImages.count", "limit": 2});
    server.ask(Method::QuotaSet, limit).await;
    let page = |token: &Value| json!({"folderId": FOLDER, "pageSize": 1, "pageToken": token});
    let begun = server.ask(Method::DesktopList, page(&json!(""))).await;
    let events = audit_events(&server, "", 0).await;
    server.stop().await;

    let data = server.data();
    let dry = told(target.migrate(&data, &["--dry-run"])).await;
    assert_eq!((&dry["blobs"], &dry["damaged"]), (&json!(3), &json!(0)));
    assert!(!target.folder.exists());
    let client = postgres_server::connect(&target.url).await.unwrap();
    let sql = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'";
    assert_eq!(
        client.query_one(sql, &[]).await.unwrap().get::<_, i64>(0),
        0
    );
    server.restart().await;
    server.stop().await;

    let moved = told(target.migrate(&data, &[])).await;
    assert_eq!((&moved["blobs"], &moved["copied"]), (&json!(3), &json!(3)));
    assert!(moved["rows"].as_u64() >= dry["rows"].as_u64());
    let error = server.start_again().await.unwrap_err().to_string();
    assert!(error.contains("was moved to"), "{error}");

    let after = target.server().await;
    for (copy, disk) in copies.iter().zip(&disks) {
        assert!(after.downloaded(copy).await == *disk);
    }
    // Zeros are not stored there either.
    let stored: u64 = blob_files(&target.folder)
        .iter()
        .map(|file| {
            use std::os::unix::fs::MetadataExt;
            let path = target.folder.join("contents").join(file);
            path.metadata().unwrap().blocks() * 512
        })
        .sum();
    assert!(stored < 14 << 20, "{stored} bytes are stored");
    for operation in [&keyed, &deleted] {
        let request = json!({"operationId": text(operation, "id")});
        assert_eq!(after.ask(Method::OperationGet, request).await, *operation);
    }
    let caller = after.caller(Transport::Rest);
    let again = caller.call_with(Method::Copy, copy, &[(KEY, &key)]).await;
    assert_eq!(again.unwrap(), keyed);
    let token = &begun["nextPageToken"];
    let gone_on = after.ask(Method::DesktopList, page(token)).await;
    let listed = [&begun, &gone_on].map(|page| text(&page["desktopImages"][0], "id"));
    assert!(copies.iter().all(|id| listed.contains(&&**id)));
    let found = audit_events(&after, "", 0).await;
    assert_eq!(found[..events.len()], events);
    let request = json!({"folderId": FOLDER, "name": "too many", "imageId": image_id(&keyed)});
    let refusal = caller
        .call(Method::Copy, request.clone())
        .await
        .unwrap_err();
    assert_eq!(refusal.code, Code::NotFound, "a desktop image is no source");
    let request = json!({"folderId": FOLDER, "name": "too many", "imageId": source});
    let refusal = caller.call(Method::Copy, request).await.unwrap_err();
    assert_eq!(refusal.code, Code::ResourceExhausted);
    // Numbers go on.
    after
        .ask(Method::DesktopDelete, json!({"imageId": copies[0]}))
        .await;
    let last = |events: &[Value]| -> i64 {
        let number = text(events.last().unwrap(), "sequence");
        number.parse().unwrap()
    };
    let later = audit_events(&after, "", 0).await;
    assert!(later.len() > events.len() && last(&later) > last(&events));

    let again = told(target.migrate(&data, &[])).await;
    assert_eq!(again["was_done"], true);
}

#[tokio::test]
async fn what_stands_in_the_way_of_a_move_is_told_and_nothing_is_moved() {
    let Some(target) = Target::new("moves that are refused").await else {
        return;
    };
    let mut server = TestServer::start().await;
    let disk = Disk::mbr(1, Fill::Random(1));
    let source = server.compute_image(FOLDER, "", &disk).await;
    let data = server.data();
    let words = refused(target.migrate(&data, &[])).await;
    assert!(words.contains("in use by another process"), "{words}");
    server.stop().await;
    server.config.operations.simulated_latency = Duration::from_secs(3600);
    server.start_again().await.unwrap();
    let request = json!({"folderId": FOLDER, "name": "slow", "imageId": source});
    let slow = server.ask(Method::Copy, request).await;
    server.stop().await;
    for arguments in [&["--dry-run"] as &[_], &[]] {
        let words = refused(target.migrate(&data, arguments)).await;
        assert!(words.contains("1 operations in"), "{words}");
        assert!(words.contains("have not ended"), "{words}");
    }
    server.config.operations.simulated_latency = Duration::ZERO;
    server.start_again().await.unwrap();
    server.wait(text(&slow, "id")).await;
    server.stop().await;

    let nowhere = data.join("nowhere");
    let words = refused(target.migrate(&nowhere, &[])).await;
    assert!(words.contains("has no database"), "{words}");
    assert!(!nowhere.exists());
    let elsewhere = |url: &str, folder: &Path| {
        let mut command = program(&["migrate", "--store", url]);
        command.arg("--from-data-dir").arg(&data);
        command.arg("--data-dir").arg(folder);
        command
    };
    let words = refused(elsewhere("mysql://localhost/images", &target.folder)).await;
    assert!(words.contains("must begin with postgres://"), "{words}");
    let words = refused(elsewhere(&target.url, &data)).await;
    assert!(words.contains("has a database of its own"), "{words}");

    let used = Target::new("a used database").await.unwrap();
    used.server().await.stop().await;
    for arguments in [&["--dry-run"] as &[_], &[]] {
        let words = refused(used.migrate(&data, arguments)).await;
        assert!(words.contains("was used by a server"), "{words}");
    }
    let words = refused(elsewhere(&target.url, &used.folder)).await;
    assert!(words.contains("belong to the installation"), "{words}");

    let file = data.join("contents").join(&blob_files(&data)[0]);
    let mut bytes = fs::read(&file).unwrap();
    bytes[700_000] ^= 1;
    fs::write(&file, bytes).unwrap();
    let words = refused(target.migrate(&data, &[])).await;
    assert!(words.contains("1 blobs are damaged"), "{words}");
    server.restart().await;
    server.stop().await;
    let moved = told(target.migrate(&data, &["--allow-damaged"])).await;
    assert_eq!(moved["damaged"], 1);
    let after = target.server().await;
    assert_eq!(after.compute_images(FOLDER).await, 1);
    // The same bytes mend the image, as anywhere.
    after.compute_image(FOLDER, "", &disk).await;
    let page = after
        .ask(Method::DesktopList, json!({"folderId": FOLDER}))
        .await;
    let copy = text(&page["desktopImages"][0], "id");
    assert!(after.downloaded(copy).await == *disk);
}

#[tokio::test]
async fn a_move_that_is_killed_and_run_again_is_whole() {
    let Some(target) = Target::new("moves that are killed").await else {
        return;
    };
    let images = moved_under_kills(&target, &[], &[]).await;
    assert_eq!(blob_files(&target.folder).len(), images.len());
    let after = target.server().await;
    are_there(&after, &images).await;
}

#[tokio::test]
async fn a_move_to_a_bucket_that_is_killed_and_run_again_is_whole() {
    let test = "moves to a bucket that are killed";
    let Some(target) = Target::new(test).await else {
        return;
    };
    if !seaweedfs::is_installed(test) {
        return;
    }
    let place = seaweedfs::place().await;
    let arguments = ["--blobs", &place.url, "--blobs-endpoint", &place.endpoint];
    let images = moved_under_kills(&target, &arguments, &place.environment).await;
    assert!(!target.folder.join("contents").exists());
    let after = on_objects(&place, |config| target.serve_from(config)).await;
    are_there(&after, &images).await;
    assert_eq!(place.objects("blobs").await.len(), images.len());
}

async fn are_there(server: &TestServer, images: &[(String, Vec<u8>)]) {
    for (copy, disk) in images {
        assert!(server.downloaded(copy).await == *disk);
    }
    assert_eq!(server.compute_images(FOLDER).await, images.len());
}

/// Images that were moved by a command that was killed again and again.
async fn moved_under_kills(
    target: &Target,
    arguments: &[&str],
    environment: &[(String, String)],
) -> Vec<(String, Vec<u8>)> {
    let mut server = TestServer::start().await;
    let mut images = Vec::new();
    for number in 0..40 {
        let disk = Disk::mbr(1, Fill::Random(number));
        let source = server.compute_image(FOLDER, "", &disk).await;
        let name = format!("copy {number}");
        let copy = server.copied(FOLDER, &name, &source).await;
        images.push((copy, disk.to_vec()));
    }
    server.stop().await;
    let data = server.data();
    let migrate = || {
        let mut command = target.migrate(&data, arguments);
        command.envs(environment.iter().cloned());
        command
    };
    let kills = killed_until_it_succeeds(migrate, || false).await;
    println!("{kills} were killed");
    images
}
