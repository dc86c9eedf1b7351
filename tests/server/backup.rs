//! Backups of a data folder in which a server works, and what is restored of them.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use desktop_images::app::Data;
use serde_json::{Value, json};
use test_support::{
    Disk, Fill, Method, ServerProcess, TestServer, audit_events, blob_files, eventually, run,
    within,
};
use tokio::process::{Child, Command};

use crate::data_commands::{killed_until_it_succeeds, program, refused, told};

const FOLDER: &str = "f";

/// A folder for a backup and one to restore into.
struct Folders {
    _folder: tempfile::TempDir,
    backup: PathBuf,
    restored: PathBuf,
}

impl Folders {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self {
            backup: folder.path().join("backup"),
            restored: folder.path().join("restored"),
            _folder: folder,
        }
    }

    fn back_up(&self, data: &Path) -> Command {
        program(&[
            "backup",
            "--data-dir",
            text(data),
            "--output",
            text(&self.backup),
        ])
    }

    fn restore(&self) -> Command {
        let (from, to) = (text(&self.backup), text(&self.restored));
        program(&["restore", "--from", from, "--data-dir", to])
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

async fn verified(data: &Path) -> Value {
    told(program(&["verify", "--data-dir", text(data)])).await
}

#[tokio::test]
async fn what_is_restored_is_what_was_there_and_goes_on() {
    let server = TestServer::start_with(|config| config.require_auth = false).await;
    let folders = Folders::new();
    let disks: Vec<_> = (0..3).map(|it| Disk::mbr(1, Fill::Random(it))).collect();
    let mut copies = Vec::new();
    for (number, disk) in disks.iter().enumerate() {
        let source = server.compute_image(FOLDER, "", disk).await;
        copies.push(
            server
                .copied(FOLDER, &format!("copy {number}"), &source)
                .await,
        );
    }
    let limit = json!({"folderId": FOLDER, "name": "vdi.desktopImages.count", "limit": 4});
    server.ask(Method::QuotaSet, limit).await;
    fs::write(server.data().join("bootstrap-token"), "a token").unwrap();
    fs::create_dir(server.data().join("tls")).unwrap();
    fs::write(server.data().join("tls/ca.pem"), "an authority").unwrap();

    let made = told(folders.back_up(&server.data())).await;
    assert_eq!(made["contents"], 3);
    assert_eq!(made["damaged"], 0);
    // Of these the backup knows nothing.
    server
        .copied(FOLDER, "later", &first_image(&server).await)
        .await;

    let restored = told(folders.restore()).await;
    assert_eq!(restored["contents"], 3);
    let found = verified(&folders.restored).await;
    assert_eq!(
        (&found["contents"], &found["problems"]),
        (&json!(3), &json!([]))
    );
    for (name, content) in [
        ("bootstrap-token", "a token"),
        ("tls/ca.pem", "an authority"),
    ] {
        assert_eq!(
            fs::read_to_string(folders.restored.join(name)).unwrap(),
            content
        );
    }
    for entry in ["", "metadata.sqlite", "contents", "bootstrap-token"] {
        let mode = folders.restored.join(entry).metadata().unwrap().mode();
        assert_eq!(mode & 0o077, 0, "{entry:?} is readable by others");
    }

    let again = TestServer::start_with(|config| {
        config.data = Data::Folder(folders.restored.clone());
    })
    .await;
    for (copy, disk) in copies.iter().zip(&disks) {
        assert!(again.downloaded(copy).await == *disk);
    }
    // Numbers of audit events go on, and limits stand.
    let before = audit_events(&again, "", 0).await;
    let source = first_image(&again).await;
    again.copied(FOLDER, "fourth", &source).await;
    let request = json!({"folderId": FOLDER, "name": "too many", "imageId": source});
    let caller = again.caller(test_support::Transport::Rest);
    let refusal = caller.call(Method::Copy, request).await.unwrap_err();
    assert_eq!(refusal.code, tonic::Code::ResourceExhausted);
    again
        .ask(Method::DesktopDelete, json!({"imageId": copies[0]}))
        .await;
    let after = audit_events(&again, "", 0).await;
    assert_eq!(after[..before.len()], before[..]);
    assert!(after.len() > before.len());
}

async fn first_image(server: &TestServer) -> String {
    let request = json!({"folderId": FOLDER, "orderBy": "created_at"});
    let page = server.ask(Method::ComputeList, request).await;
    test_support::text(&page["images"][0], "id").to_owned()
}

#[tokio::test]
async fn a_backup_that_is_made_again_takes_what_is_new() {
    let server = TestServer::start().await;
    let folders = Folders::new();
    let first = server
        .compute_image(FOLDER, "first", &Disk::mbr(1, Fill::Random(1)))
        .await;
    let made = told(folders.back_up(&server.data())).await;
    assert_eq!((&made["contents"], &made["kept"]), (&json!(1), &json!(0)));
    server
        .compute_image(FOLDER, "second", &Disk::mbr(1, Fill::Random(2)))
        .await;
    let made = told(folders.back_up(&server.data())).await;
    assert_eq!((&made["contents"], &made["kept"]), (&json!(2), &json!(1)));

    // A link becomes a copy where that is asked for.
    let mut command = folders.back_up(&server.data());
    command.arg("--copy");
    let made = told(command).await;
    assert_eq!(made["linked"], 0);
    let links = |file: &String| {
        let file = folders.backup.join("contents").join(file);
        file.metadata().unwrap().nlink()
    };
    assert!(blob_files(&folders.backup).iter().all(|it| links(it) == 1));

    server
        .ask(Method::ComputeDelete, json!({"imageId": first}))
        .await;
    server.has_blobs(1).await;
    let made = told(folders.back_up(&server.data())).await;
    assert_eq!((&made["contents"], &made["kept"]), (&json!(1), &json!(1)));
    assert_eq!(blob_files(&folders.backup).len(), 1);
    told(folders.restore()).await;
    verified(&folders.restored).await;
}

#[tokio::test]
async fn what_cannot_be_done_is_refused_with_words() {
    let mut server = TestServer::start().await;
    let folders = Folders::new();
    let data = server.data();
    let words = refused(folders.restore()).await;
    assert!(words.contains("there is no backup in"), "{words}");
    let words = refused(folders.back_up(&folders.restored)).await;
    assert!(words.contains("has no database"), "{words}");
    fs::create_dir(&folders.backup).unwrap();
    fs::write(folders.backup.join("mine"), "").unwrap();
    let words = refused(folders.back_up(&data)).await;
    assert!(words.contains("neither empty nor a backup"), "{words}");
    let output = ["backup", "--data-dir", text(&data), "--output", text(&data)];
    let words = refused(program(&output)).await;
    assert!(words.contains("neither empty nor a backup"), "{words}");
    assert!(folders.backup.join("mine").exists());
    fs::remove_file(folders.backup.join("mine")).unwrap();
    fs::write(folders.backup.join("backup.sqlite.new"), "").unwrap();
    let words = refused(folders.restore()).await;
    assert!(words.contains("was not finished"), "{words}");

    let disk = Disk::mbr(1, Fill::Random(1));
    server.compute_image(FOLDER, "", &disk).await;
    told(folders.back_up(&data)).await;
    let to = [
        "restore",
        "--from",
        text(&folders.backup),
        "--data-dir",
        text(&data),
    ];
    let words = refused(program(&to)).await;
    assert!(words.contains("is not empty"), "{words}");

    // A backup is no data folder.
    server.stop().await;
    server.config.data = Data::Folder(folders.backup.clone());
    let error = server.start_again().await.unwrap_err().to_string();
    assert!(error.contains("is not there"), "{error}");
    let lock = fs::File::open(folders.backup.join("lock")).unwrap();
    lock.lock().unwrap();
    for command in [folders.back_up(&data), folders.restore()] {
        let words = refused(command).await;
        assert!(words.contains("in use by another process"), "{words}");
    }
}

#[tokio::test]
async fn damage_is_told_and_passed_over_only_when_that_is_asked_for() {
    let server = TestServer::start().await;
    for number in 0..3 {
        let disk = Disk::mbr(1, Fill::Random(number));
        server.compute_image(FOLDER, "", &disk).await;
    }
    let data = server.data();
    let blobs = blob_files(&data);
    let (missing, changed) = (&blobs[0], &blobs[1]);
    fs::remove_file(data.join("contents").join(missing)).unwrap();
    let path = data.join("contents").join(changed);
    let mut bytes = fs::read(&path).unwrap();
    bytes[700_000] ^= 1;
    fs::write(&path, bytes).unwrap();

    let folders = Folders::new();
    let words = refused(folders.back_up(&data)).await;
    assert!(words.contains("2 blobs are damaged or missing"), "{words}");
    assert!(
        words.contains(missing) && words.contains(changed),
        "{words}"
    );
    let words = refused(folders.restore()).await;
    assert!(words.contains("was not finished"), "{words}");
    // Without reading, only what is missing is noticed.
    let mut command = folders.back_up(&data);
    command.arg("--skip-verify");
    let words = refused(command).await;
    assert!(words.contains("1 blobs are damaged or missing"), "{words}");

    let mut command = folders.back_up(&data);
    command.arg("--allow-damaged");
    assert_eq!(told(command).await["damaged"], 2);
    let words = refused(folders.restore()).await;
    assert!(words.contains("2 blobs are damaged or missing"), "{words}");
    assert!(!folders.restored.join("metadata.sqlite").exists());
    let mut command = folders.restore();
    command.arg("--allow-damaged");
    let restored = told(command).await;
    assert_eq!(
        (&restored["contents"], &restored["damaged"]),
        (&json!(3), &json!(2))
    );
}

/// A process that copies many blobs, stopped in the midst of them.
async fn stopped_midway(folders: &Folders, data: &Path, count: usize) -> Child {
    loop {
        let mut command = folders.back_up(data);
        let child = command.args(["--copy", "--skip-verify"]).spawn().unwrap();
        let process = child.id().unwrap().to_string();
        let at_least = |some: usize| {
            let contents = folders.backup.join("contents");
            fs::read_dir(contents).is_ok_and(|entries| entries.count() >= some)
        };
        let since = Instant::now();
        while !at_least(1) && since.elapsed() < Duration::from_secs(30) {
            std::thread::yield_now();
        }
        run(Path::new("/"), "kill", &["-STOP", &process]);
        if !at_least(count) {
            return child;
        }
        // All of them were copied before the signal came.
        drop(child);
        fs::remove_dir_all(&folders.backup).unwrap();
    }
}

#[tokio::test]
async fn bytes_that_are_deleted_meanwhile_stay_until_they_are_backed_up() {
    const COUNT: usize = 24;
    let server = TestServer::start().await;
    let mut images = Vec::new();
    for number in 0..COUNT {
        let disk = Disk::mbr(2, Fill::Random(number as u64));
        images.push(server.compute_image(FOLDER, "", &disk).await);
    }
    let data = server.data();
    let folders = Folders::new();
    let mut child = stopped_midway(&folders, &data, COUNT).await;
    for id in &images {
        server
            .ask(Method::ComputeDelete, json!({"imageId": id}))
            .await;
    }
    let database = rusqlite::Connection::open(data.join("metadata.sqlite")).unwrap();
    let count = |sql: &str| -> usize {
        let count: i64 = database.query_row(sql, [], |row| row.get(0)).unwrap();
        usize::try_from(count).unwrap()
    };
    eventually("all have tombstones", || async {
        (count("SELECT count(*) FROM content_deletions") == COUNT).then_some(())
    })
    .await;
    assert_eq!(count("SELECT count(*) FROM blob_holds"), 1);
    assert_eq!(blob_files(&data).len(), COUNT);
    let process = child.id().unwrap().to_string();
    run(Path::new("/"), "kill", &["-CONT", &process]);
    let ended = within("the backup ends", child.wait()).await.unwrap();
    assert!(ended.success());
    assert_eq!(count("SELECT count(*) FROM blob_holds"), 0);

    told(folders.restore()).await;
    let found = verified(&folders.restored).await;
    assert_eq!(found["contents"], json!(COUNT));
    // The next removal takes those along that were held.
    let disk = Disk::mbr(1, Fill::Random(99));
    let last = server.compute_image(FOLDER, "", &disk).await;
    server
        .ask(Method::ComputeDelete, json!({"imageId": last}))
        .await;
    server.has_blobs(0).await;
}

#[tokio::test]
async fn a_backup_under_deletes_that_is_killed_and_run_again_is_whole() {
    let folder = tempfile::tempdir().unwrap();
    let server = ServerProcess::start(folder.path()).await;
    let data = folder.path().join("data");
    let clients = server.clients.clone();
    let changing = tokio::spawn(async move {
        // Eight images at a time: the oldest goes when a new one comes.
        let mut images = std::collections::VecDeque::new();
        for number in 0_u64.. {
            let disk = Disk::mbr(1, Fill::Random(number));
            images.push_back(clients.compute_image(FOLDER, "", &disk).await);
            if images.len() > 8 {
                let oldest = images.pop_front().unwrap();
                clients
                    .ask(Method::ComputeDelete, json!({"imageId": oldest}))
                    .await;
            }
        }
    });
    eventually("there are images", || async {
        (server.compute_images(FOLDER).await >= 8).then_some(())
    })
    .await;
    for round in 0..3 {
        let folders = Folders::new();
        let mut made = 0;
        // The second backup into a folder goes on from the first.
        for _ in 0..2 {
            let back_up = || {
                let mut command = folders.back_up(&data);
                if round == 1 {
                    command.arg("--copy");
                }
                command
            };
            made += killed_until_it_succeeds(back_up, || false).await;
        }
        // A restore that was killed after its last step is refused where it is run again.
        let is_restored = || folders.restored.join("metadata.sqlite").exists();
        let restored = killed_until_it_succeeds(|| folders.restore(), is_restored).await;
        println!("round {round}: {made} backups and {restored} restores were killed");
        let found = verified(&folders.restored).await;
        assert!(found["contents"].as_u64().unwrap() >= 8, "{found}");
        assert_eq!(found["problems"], json!([]));
        let again = TestServer::start_with(|config| {
            config.data = Data::Folder(folders.restored.clone());
        })
        .await;
        assert!(again.compute_images(FOLDER).await >= 8);
    }
    changing.abort();
}
