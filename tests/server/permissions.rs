//! Permissions of the data of a server: others on the machine may do nothing with them.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use test_support::{Disk, Fill, Program, ServerProcess, SlowUpload, TestServer};
use tokio::process::Command;

/// All that is below a folder, and the folder itself; links are not followed.
fn all_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = vec![folder.to_owned()];
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.is_symlink() {
            found.extend(all_below(&path));
        } else {
            found.push(path);
        }
    }
    found
}

fn is_private(folder: &Path) {
    let all = all_below(folder);
    // The folder, the lock, the database, its log and index, the content folder, and a blob.
    assert!(all.len() >= 7, "{all:?}");
    for path in all.iter().filter(|path| !path.is_symlink()) {
        let found = fs::metadata(path).unwrap();
        let mode = if found.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(found.mode() & 0o7777, mode, "{path:?}: {:o}", found.mode());
    }
}

/// A server that runs under a umask. What comes after `folder` is as in `serve`.
async fn under_umask(umask: &str, folder: &Path, arguments: &str) -> ServerProcess {
    let temporary = folder.join("tmp");
    fs::create_dir_all(&temporary).unwrap();
    let mut shell = Command::new("sh");
    let program = Program::path();
    shell
        .env("TMPDIR", temporary)
        .arg("-c")
        .arg(format!(
            "umask {umask}; exec {program} serve --listen 127.0.0.1:0 {arguments}"
        ))
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::piped())
        .stderr(fs::File::create(folder.join("server.log")).unwrap())
        .kill_on_drop(true);
    ServerProcess::listening(shell, folder).await
}

#[tokio::test]
async fn nobody_else_can_read_data_whatever_the_umask() {
    for umask in ["000", "022", "077", "0477"] {
        for ephemeral in [false, true] {
            let folder = tempfile::tempdir().unwrap();
            let data = folder.path().join("data");
            let arguments = match ephemeral {
                true => "--ephemeral".to_owned(),
                false => format!("--data-dir {}", data.display()),
            };
            let server = under_umask(umask, folder.path(), &arguments).await;
            let data = match ephemeral {
                false => data,
                true => {
                    let mut below = fs::read_dir(folder.path().join("tmp")).unwrap();
                    below.next().expect("a temporary folder").unwrap().path()
                }
            };
            let disk = Disk::mbr(1, Fill::Random(1));
            server.compute_image("f", "source", &disk).await;
            let upload = SlowUpload::start(&server, "f", "slow", &disk[..500_000]).await;
            is_private(&data);
            upload.hang_up();
        }
    }
}

#[tokio::test]
async fn a_data_folder_of_before_is_set_right_at_the_start_and_links_are_not_followed() {
    let mut server = TestServer::start().await;
    let disk = Disk::mbr(1, Fill::Random(1));
    let source = server.compute_image("f", "source", &disk).await;
    let copy = server.copied("f", "copy", &source).await;
    server.stop().await;
    let outside = tempfile::tempdir().unwrap();
    let (file, folder) = (outside.path().join("file"), outside.path().join("folder"));
    fs::write(&file, b"").unwrap();
    fs::create_dir(&folder).unwrap();
    let outside = [(&file, 0o644), (&folder, 0o755)];
    for (path, mode) in outside {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }
    for (name, to) in [
        ("contents/link", &file),
        ("contents/folder", &folder),
        ("metadata.sqlite-journal", &file),
    ] {
        symlink(to, server.data().join(name)).unwrap();
    }
    for path in all_below(&server.data()) {
        if !path.is_symlink() {
            let mode = if path.is_dir() { 0o777 } else { 0o666 };
            fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        }
    }
    server.start_again().await.unwrap();
    fs::remove_file(server.data().join("metadata.sqlite-journal")).unwrap();
    is_private(&server.data());
    for (path, mode) in outside {
        let found = fs::metadata(path).unwrap().mode();
        assert_eq!(found & 0o7777, mode, "{path:?}");
    }
    assert!(server.downloaded(&copy).await == disk);
}
