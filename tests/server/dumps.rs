//! Dumps of the database, restored by its own tools beside bytes of images that went on, as docs/operations.md has it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use desktop_images::app::{Config, Data, PostgresSettings, StoreSettings};
use serde_json::{Value, json};
use test_support::seaweedfs::{self, ObjectPlace};
use test_support::{
    Clients, Disk, Fill, Method, Program, ServerProcess, SlowUpload, TestServer, blob_files,
    image_id, postgres_server, response, run,
};
use tokio::process::Command;

use crate::data_commands::{program, refused};
use crate::object_storage::on_objects;

/// A database that is dropped and made anew.
struct Database {
    url: String,
    name: String,
    folder: tempfile::TempDir,
}

impl Database {
    async fn new(test: &str) -> Option<Self> {
        if !postgres_server::is_installed(test) {
            return None;
        }
        let (url, name) = postgres_server::whole_database().await;
        let folder = tempfile::tempdir().unwrap();
        Some(Self { url, name, folder })
    }

    fn store(&self, config: &mut Config) {
        config.store = StoreSettings::Postgres(PostgresSettings::new(&self.url));
        config.operations.lease = Duration::from_secs(1);
        config.retention.blobs = Some(Duration::ZERO);
    }

    async fn dump(&self, name: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        let file = path.to_str().unwrap();
        let arguments = ["--format", "custom", "--file", file, &self.url];
        postgres_server::tool("pg_dump", &arguments).await;
        path
    }

    /// Puts a dump in the place of the database.
    async fn restore(&self, dump: &Path) {
        let server = self.url.replace(&self.name, "postgres");
        for tool in ["dropdb", "createdb"] {
            let arguments = ["--maintenance-db", &server, &self.name];
            postgres_server::tool(tool, &arguments).await;
        }
        let dump = dump.to_str().unwrap();
        let arguments = ["--single-transaction", "--dbname", &self.url, dump];
        postgres_server::tool("pg_restore", &arguments).await;
    }
}

/// A place of blobs that servers share.
enum Place {
    Folder(PathBuf),
    Bucket(ObjectPlace),
}

impl Place {
    async fn blobs(&self) -> Vec<String> {
        let mut blobs = match self {
            Self::Folder(data) => blob_files(data),
            Self::Bucket(place) => place.objects("blobs").await,
        };
        blobs.sort();
        blobs
    }
}

/// A compute image and a copy of it.
struct Pair {
    source: String,
    copy: String,
}

impl Pair {
    async fn new(server: &Clients, disk: &[u8]) -> Self {
        let source = server.compute_image("f", "", disk).await;
        let name = format!("copy-{source}");
        let copy = server.copied("f", &name, &source).await;
        Self { source, copy }
    }

    async fn delete(&self, server: &Clients) {
        for (method, id) in [
            (Method::DesktopDelete, &self.copy),
            (Method::ComputeDelete, &self.source),
        ] {
            response(&server.ask(method, json!({"imageId": id})).await);
        }
    }
}

async fn status(server: &Clients, image: &str) -> u16 {
    let url = server.url(&format!("/cloud-desktop/v1/images/{image}:download"));
    let reply = server.http.get(url).send().await.unwrap();
    reply.status().as_u16()
}

async fn dumps_are_restored(database: &Database, mut server: TestServer, place: Place) {
    let mut disks: Vec<_> = (0..3)
        .map(|it| Disk::mbr(1, Fill::Random(it)).to_vec())
        .collect();
    disks[1].resize(9 << 20, 0);
    let mut pairs = Vec::new();
    for disk in &disks {
        pairs.push(Pair::new(&server, disk).await);
    }
    let late = Disk::mbr(2, Fill::Random(7));
    let under_way = SlowUpload::start(&server, "f", "under-way", &late[..100_000]).await;
    let operation = under_way.operation_id.clone();
    let dump = database.dump("dump").await;

    under_way.send(&late[100_000..]).await;
    let ended = under_way.finish().await;
    response(&ended);
    let late_copy = server.copied("f", "late", &image_id(&ended)).await;
    pairs[0].delete(&server).await;
    // Equal bytes take the place of those that the dump names.
    server.compute_image("f", "again", &disks[1]).await;
    let new_disk = Disk::mbr(1, Fill::Random(9));
    let new = Pair::new(&server, &new_disk).await;
    // Each start collects garbage before it serves.
    server.restart().await;
    let newer_dump = database.dump("newer").await;
    let blobs = place.blobs().await;
    assert_eq!(blobs.len(), 6, "{blobs:?}");

    server.stop().await;
    database.restore(&dump).await;
    server.start_again().await.unwrap();
    for (pair, disk) in pairs.iter().zip(&disks) {
        assert!(server.downloaded(&pair.copy).await == *disk);
        server
            .copied("f", &format!("of-{}", pair.source), &pair.source)
            .await;
    }
    for unknown in [&new.copy, &late_copy] {
        assert_eq!(status(&server, unknown).await, 404);
    }
    // The upload that was under way ends once more, in another way.
    server.wait(&operation).await;
    server.restart().await;
    assert_eq!(place.blobs().await, blobs);
    if let Place::Folder(data) = &place {
        let unknown = unknown_files(database, data).await;
        // Those of the image that is new, and the bytes that took the place of others.
        assert_eq!(unknown.len(), 2, "{unknown:?}");
    }

    server.stop().await;
    database.restore(&newer_dump).await;
    server.start_again().await.unwrap();
    assert_eq!(status(&server, &pairs[0].copy).await, 404);
    let kept = pairs[1..].iter().zip(&disks[1..]);
    for (pair, disk) in kept {
        assert!(server.downloaded(&pair.copy).await == *disk);
    }
    assert!(server.downloaded(&new.copy).await == new_disk);
    assert!(server.downloaded(&late_copy).await == late);
    assert_eq!(place.blobs().await, blobs);
}

/// The files that no row names, by the commands of docs/operations.md.
async fn unknown_files(database: &Database, data: &Path) -> Vec<String> {
    let folder = database.folder.path();
    let there = format!("ls {}/contents | LC_ALL=C sort > there", data.display());
    run(folder, "sh", &["-c", &there]);
    let known = "SELECT file FROM blobs UNION SELECT file FROM tombstones";
    let arguments = [
        "--tuples-only",
        "--no-align",
        "--command",
        known,
        &database.url,
    ];
    let known = postgres_server::tool("psql", &arguments).await;
    fs::write(folder.join("known"), known).unwrap();
    let compare = "LC_ALL=C sort known | LC_ALL=C comm -13 - there > unknown";
    run(folder, "sh", &["-c", compare]);
    let unknown = fs::read_to_string(folder.join("unknown")).unwrap();
    unknown.lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn dumps_are_restored_beside_a_folder_whose_bytes_are_kept() {
    let Some(database) = Database::new("dumps beside a folder").await else {
        return;
    };
    let server = TestServer::start_with(|config| {
        database.store(config);
        config.retention.blobs = Some(Duration::from_secs(3600));
    })
    .await;
    let place = Place::Folder(server.data());
    dumps_are_restored(&database, server, place).await;
}

#[tokio::test]
async fn dumps_are_restored_beside_a_bucket_whose_bytes_are_kept() {
    let Some(database) = Database::new("dumps beside a bucket").await else {
        return;
    };
    if !seaweedfs::is_installed("dumps beside a bucket") {
        return;
    }
    let place = seaweedfs::place().await;
    let server = on_objects(&place, |config| {
        database.store(config);
        config.retention.blobs = Some(Duration::from_secs(3600));
    })
    .await;
    dumps_are_restored(&database, server, Place::Bucket(place)).await;
}

/// The program as a server on a database and a folder, and its log as JSON.
async fn process(database: &Database, data: &Path) -> (ServerProcess, Vec<Value>) {
    let folder = database.folder.path();
    let log = folder.join("server.log");
    let mut command = Command::new(Program::path());
    command
        .args(["serve", "--listen", "127.0.0.1:0", "--log-format", "json"])
        .args(["--blob-retention", "0s", "--store", &database.url])
        .arg("--data-dir")
        .arg(data)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(File::create(&log).unwrap())
        .kill_on_drop(true);
    let server = ServerProcess::listening(command, folder).await;
    let log = fs::read_to_string(log).unwrap();
    let lines = log.lines().map(|line| serde_json::from_str(line).unwrap());
    (server, lines.collect())
}

fn told<'l>(log: &'l [Value], words: &str) -> Vec<&'l Value> {
    let fields = log.iter().map(|line| &line["fields"]);
    let told = fields.filter(|fields| fields["message"].as_str().unwrap().contains(words));
    told.collect()
}

#[tokio::test]
async fn images_whose_bytes_are_gone_since_the_dump_are_told_and_marked() {
    let Some(database) = Database::new("dumps of images that are gone").await else {
        return;
    };
    let mut server = TestServer::start_with(|config| database.store(config)).await;
    let data = server.data();
    let contents = data.join("contents");
    let disks: Vec<_> = (0..4).map(|it| Disk::mbr(1, Fill::Random(it))).collect();
    let (mut pairs, mut files) = (Vec::new(), Vec::new());
    for disk in &disks {
        let before = blob_files(&data);
        pairs.push(Pair::new(&server, disk).await);
        let mut made = blob_files(&data);
        made.retain(|file| !before.contains(file));
        files.append(&mut made);
    }
    let dump = database.dump("dump").await;
    let aside = database.folder.path().join("aside");
    fs::copy(contents.join(&files[1]), &aside).unwrap();
    for pair in &pairs[..2] {
        pair.delete(&server).await;
    }
    server.has_blobs(2).await;
    let file = File::options().write(true).open(contents.join(&files[2]));
    file.unwrap().set_len(1000).unwrap();
    server
        .compute_image("f", "new", &Disk::mbr(1, Fill::Random(9)))
        .await;
    server.stop().await;
    database.restore(&dump).await;

    let (restored, log) = process(&database, &data).await;
    let sums = told(&log, "files of blobs are missing");
    assert_eq!(sums.len(), 1);
    assert_eq!(sums[0]["count"], 3);
    let lines = told(&log, "the bytes of a blob are missing or cut");
    assert_eq!(lines.len(), 3);
    for ((line, pair), file) in lines.into_iter().zip(&pairs).zip(&files) {
        assert_eq!(line["blob_id"], **file);
        assert_eq!(line["image_ids"], format!("{},{}", pair.copy, pair.source));
    }
    let unknown = told(&log, "not known to the database");
    assert_eq!(unknown.len(), 1);
    assert_eq!(
        (&unknown[0]["count"], &unknown[0]["newer_than_the_database"]),
        (&json!(1), &json!(1))
    );
    for pair in &pairs[..3] {
        assert_eq!(status(&restored, &pair.copy).await, 500);
        let request = json!({"folderId": "f", "name": "n", "imageId": pair.source});
        let caller = restored.caller(test_support::Transport::Grpc);
        caller.call(Method::Copy, request).await.unwrap_err();
    }
    assert!(restored.downloaded(&pairs[3].copy).await == disks[3]);

    // Equal bytes mend the images.
    restored.compute_image("f", "again", &disks[0]).await;
    assert!(restored.downloaded(&pairs[0].copy).await == disks[0]);
    // So do the bytes that come back, once they were read.
    fs::copy(&aside, contents.join(&files[1])).unwrap();
    let mut verify = program(&["verify", "--store", &database.url]);
    verify.arg("--data-dir").arg(&data);
    refused(verify).await;
    restored
        .copied("f", "of-what-came-back", &pairs[1].source)
        .await;
    restored.kill().await;
    let (again, log) = process(&database, &data).await;
    assert_eq!(told(&log, "files of blobs are missing")[0]["count"], 1);
    assert!(again.downloaded(&pairs[1].copy).await == disks[1]);
    assert_eq!(status(&again, &pairs[2].copy).await, 500);
}

#[tokio::test]
async fn a_dump_of_which_no_image_has_its_bytes_is_refused_until_somebody_says_so() {
    let Some(database) = Database::new("dumps of which all is gone").await else {
        return;
    };
    let mut server = TestServer::start_with(|config| database.store(config)).await;
    let mut pairs = Vec::new();
    for number in 0..2 {
        pairs.push(Pair::new(&server, &Disk::mbr(1, Fill::Random(number))).await);
    }
    let dump = database.dump("dump").await;
    for pair in &pairs {
        pair.delete(&server).await;
    }
    server.has_blobs(0).await;
    let kept = Pair::new(&server, &Disk::mbr(1, Fill::Random(9))).await;
    let newer = database.dump("newer").await;
    server.stop().await;
    database.restore(&dump).await;
    for _ in 0..2 {
        let refusal = server.start_again().await.unwrap_err().to_string();
        assert!(refusal.contains("none of the 2 blobs"), "{refusal}");
        assert!(refusal.contains("--adopt-empty"), "{refusal}");
    }
    let data = server.data();
    server.config.data = Data::AdoptEmpty(data.clone());
    server.start_again().await.unwrap();
    assert_eq!(status(&server, &pairs[0].copy).await, 500);
    server.has_blobs(1).await;
    server.config.data = Data::Folder(data);
    // It was the wrong dump.
    server.stop().await;
    database.restore(&newer).await;
    server.start_again().await.unwrap();
    assert!(server.downloaded(&kept.copy).await == Disk::mbr(1, Fill::Random(9)));
}
