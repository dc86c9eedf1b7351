//! The small real disk of the demo: a GPT with one FAT partition that holds some files. `scripts/make-demo-disk` made it.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// The size of the disk in bytes.
pub(super) const SIZE: u64 = 64 << 20;
/// The names of the files on the disk.
pub(super) const FILES: [&str; 3] = ["LICENSE.TXT", "README.TXT", "desktop_image_service.proto"];
const COMPRESSED: &[u8] = include_bytes!("disk.img.zst");
const PIECE: usize = 64 << 10;

/// Makes the disk as a raw image with holes in a file, which must not exist.
pub(super) fn make(path: &Path) -> io::Result<()> {
    let file = File::create_new(path)?;
    file.set_len(SIZE)?;
    let mut disk = zstd::Decoder::new(COMPRESSED)?;
    let mut piece = vec![0; PIECE];
    for at in (0..SIZE).step_by(PIECE) {
        disk.read_exact(&mut piece)?;
        if piece.iter().any(|byte| *byte != 0) {
            file.write_all_at(&piece, at)?;
        }
    }
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::io::Write;
    use std::process::Command;

    use super::*;

    /// The start and the length of the partition, in bytes.
    const PARTITION: (u64, usize) = (1 << 20, 62 << 20);

    /// The folder with the disk, and the partition as a file of its own.
    fn made() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let disk = folder.path().join("disk");
        make(&disk).unwrap();
        let disk = File::open(disk).unwrap();
        assert_eq!(disk.metadata().unwrap().len(), SIZE);
        let mut partition = vec![0; PARTITION.1];
        disk.read_exact_at(&mut partition, PARTITION.0).unwrap();
        std::fs::write(folder.path().join("partition"), partition).unwrap();
        folder
    }

    /// The standard output of a tool that finds nothing wrong; nothing when it is not installed.
    fn output(test: &str, tool: &str, arguments: &[&OsStr]) -> Option<Vec<u8>> {
        match Command::new(tool).args(arguments).output() {
            Ok(output) => {
                let said = String::from_utf8_lossy(&output.stderr);
                assert!(output.status.success(), "{tool}: {said}");
                Some(output.stdout)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                assert!(
                    std::env::var("CI").as_deref() != Ok("true"),
                    "{tool} is not installed"
                );
                // Not by a macro, whose output the harness keeps to itself where a test passes.
                let message = format!("left out: {test}: {tool} is not installed\n");
                let _ = std::io::stderr().write_all(message.as_bytes());
                None
            }
            Err(error) => panic!("{tool}: {error}"),
        }
    }

    #[test]
    fn the_files_are_on_the_disk() {
        let folder = made();
        let partition = folder.path().join("partition");
        let (test, partition) = ("the_files_are_on_the_disk", partition.as_os_str());
        let arguments = ["-b".as_ref(), "-i".as_ref(), partition];
        let Some(names) = output(test, "mdir", &arguments) else {
            return;
        };
        let names = String::from_utf8(names).unwrap();
        let names = names.lines().map(|name| name.trim_start_matches("::/"));
        let mut names: Vec<_> = names.collect();
        names.sort_unstable();
        assert_eq!(names, FILES);
        let arguments = [
            "-i".as_ref(),
            partition,
            "::LICENSE.TXT".as_ref(),
            "-".as_ref(),
        ];
        let license = output(test, "mcopy", &arguments).unwrap();
        assert!(license == include_bytes!("../../../LICENSE"));
    }

    #[test]
    fn sfdisk_finds_the_partition_table_right() {
        let folder = made();
        let disk = folder.path().join("disk");
        let test = "sfdisk_finds_the_partition_table_right";
        output(test, "sfdisk", &["--verify".as_ref(), disk.as_os_str()]);
    }

    #[test]
    fn fsck_finds_the_file_system_right() {
        let folder = made();
        let partition = folder.path().join("partition");
        let test = "fsck_finds_the_file_system_right";
        let arguments = ["-n".as_ref(), "-v".as_ref(), partition.as_os_str()];
        output(test, "fsck.fat", &arguments);
    }
}
