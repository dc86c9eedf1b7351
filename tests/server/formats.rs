//! Disks that are accepted although something about them is unusual, and what the log says of them.

use serde_json::json;
use test_support::{
    Disk, Fill, Method, ServerProcess, TestServer, failure, image_id, response, text,
};
use tonic::Code;

/// The backup of a GPT takes so many bytes at the end of a disk.
const BACKUP: usize = 33 * 512;

/// A disk with the descriptor of an ISO 9660 volume that ends where the disk does.
fn installer() -> Vec<u8> {
    let mut disk = Disk::gpt(1, Fill::Random(1));
    disk[32_768..32_775].copy_from_slice(b"\x01CD001\x01");
    let blocks = (disk.len() / 2048) as u32;
    disk[32_768 + 80..32_768 + 84].copy_from_slice(&blocks.to_le_bytes());
    disk[32_768 + 128..32_768 + 130].copy_from_slice(&[0, 8]);
    disk
}

#[tokio::test]
async fn a_gpt_without_its_backup_is_accepted_and_kept_as_it_is_and_the_log_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let server = ServerProcess::start(folder.path()).await;
    let disk = Disk::gpt(1, Fill::Random(1));
    let cut = disk[..disk.len() - BACKUP].to_vec();
    let mut zeroed = disk.clone();
    zeroed[disk.len() - BACKUP..].fill(0);
    for (name, disk) in [("cut", cut), ("zeroed", zeroed)] {
        let image = server.compute_image("f", name, &disk).await;
        let copy = server.copied("f", name, &image).await;
        assert!(server.downloaded(&copy).await == disk, "{name}");
    }
    let log = std::fs::read_to_string(folder.path().join("server.log")).unwrap();
    let notes = log
        .lines()
        .filter(|line| line.contains("WARN") && line.contains("sgdisk -e"));
    assert_eq!(notes.count(), 2, "{log}");
}

#[tokio::test]
async fn an_installer_image_is_refused_unless_the_server_is_told_to_take_it() {
    let iso = installer();
    let server = TestServer::start().await;
    let uri = server.importable("installer.iso", &iso);
    let request = json!({"folderId": "f", "name": "iso", "uri": uri});
    let accepted = server.ask(Method::Create, request).await;
    let imported = server.wait(text(&accepted, "id")).await;
    let uploaded = server.uploaded("f", "iso", &iso).await;
    for operation in [imported, uploaded] {
        let (code, message) = failure(&operation);
        assert_eq!(code, Code::InvalidArgument);
        assert!(
            message.contains("an installer image (ISO 9660), not an installed disk"),
            "{message}"
        );
        assert!(
            message.ends_with(
                "remove that: wipefs -a -t iso9660,udf IMAGE. \
                 A server that was started with --allow-installer-images takes them"
            ),
            "{message}"
        );
    }
    let server = TestServer::start_with(|config| config.allow_installer_images = true).await;
    let operation = server.uploaded("f", "iso", &iso).await;
    response(&operation);
    let copy = server.copied("f", "iso", &image_id(&operation)).await;
    assert!(server.downloaded(&copy).await == iso);
}
