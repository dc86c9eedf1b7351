//! The small real disk that the demo makes: a GPT with one FAT partition that holds some files.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use gpt::GptConfig;
use gpt::disk::LogicalBlockSize;
use gpt::mbr::ProtectiveMBR;
use gpt::partition_types::BASIC;
use sha2::{Digest, Sha256};

/// The size of the disk in bytes.
pub const SIZE: u64 = 64 << 20;
const SECTOR: u64 = 512;
/// The partition begins and ends on a MiB, as disk tools have it.
const PARTITION_START: u64 = 1 << 20;
const PARTITION_SIZE: u64 = SIZE - (2 << 20);
const NAME: &str = "desktop-images demo";
const VOLUME_LABEL: &[u8; 11] = b"DEMO       ";

/// The files on the disk, by name: texts, and something that does not compress.
pub fn files() -> Vec<(&'static str, Vec<u8>)> {
    let text = "This disk was made by `desktop-images demo`.\r\n\
                It has a partition table, a file system and some files, as any disk has.\r\n";
    let contract =
        include_bytes!("../../../proto/yandex/cloud/clouddesktop/v1/desktop_image_service.proto");
    vec![
        ("README.TXT", text.into()),
        ("desktop_image_service.proto", contract.to_vec()),
        ("random.bin", noise(2 << 20)),
    ]
}

/// Makes the disk as a raw image in a file, which must not exist.
pub fn make(path: &Path) -> io::Result<()> {
    let mut file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(path)?;
    file.set_len(SIZE)?;
    // The protective MBR covers all of the disk but its own sector (UEFI 2.10, section 5.2.3).
    let covered = u32::try_from(SIZE / SECTOR - 1).map_err(io::Error::other)?;
    ProtectiveMBR::with_lb_size(covered)
        .overwrite_lba0(&mut file)
        .map_err(|error| io::Error::other(error.to_string()))?;
    let mut table = GptConfig::new()
        .writable(true)
        .logical_block_size(LogicalBlockSize::Lb512)
        .create_from_device(&mut file, None)
        .map_err(io::Error::other)?;
    let alignment = Some(PARTITION_START / SECTOR);
    table
        .add_partition(NAME, PARTITION_SIZE, BASIC, 0, alignment)
        .map_err(io::Error::other)?;
    table.write().map_err(io::Error::other)?;
    fill(&mut file)?;
    file.sync_all()
}

/// Puts the file system into the partition, and the files into the file system.
fn fill(file: &mut File) -> io::Result<()> {
    let sectors = u32::try_from(PARTITION_SIZE / SECTOR).map_err(io::Error::other)?;
    let options = fatfs::FormatVolumeOptions::new()
        .total_sectors(sectors)
        .volume_label(*VOLUME_LABEL);
    fatfs::format_volume(Partition::new(file), options)?;
    let volume = fatfs::FileSystem::new(Partition::new(file), fatfs::FsOptions::new())?;
    for (name, content) in files() {
        let mut entry = volume.root_dir().create_file(name)?;
        entry.write_all(&content)?;
        entry.flush()?;
    }
    volume.unmount()
}

/// Bytes that look random and are the same each time.
fn noise(length: usize) -> Vec<u8> {
    let blocks = (0..length.div_ceil(32) as u64).flat_map(|at| Sha256::digest(at.to_le_bytes()));
    blocks.take(length).collect()
}

/// The bytes of the partition, as a device of their own.
struct Partition<'a> {
    disk: &'a mut File,
    position: u64,
}

impl<'a> Partition<'a> {
    fn new(disk: &'a mut File) -> Self {
        Self { disk, position: 0 }
    }

    /// How many of `wanted` bytes are left before the end.
    fn within(&self, wanted: usize) -> usize {
        let left = PARTITION_SIZE.saturating_sub(self.position);
        usize::try_from(left).map_or(wanted, |left| wanted.min(left))
    }

    fn seek_disk(&mut self) -> io::Result<()> {
        self.disk
            .seek(SeekFrom::Start(PARTITION_START + self.position))
            .map(drop)
    }
}

impl Read for Partition<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.within(buffer.len());
        self.seek_disk()?;
        let read = self.disk.read(&mut buffer[..length])?;
        self.position += read as u64;
        Ok(read)
    }
}

impl Write for Partition<'_> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let length = self.within(buffer.len());
        self.seek_disk()?;
        let written = self.disk.write(&buffer[..length])?;
        self.position += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.disk.flush()
    }
}

impl Seek for Partition<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::End(offset) => PARTITION_SIZE.checked_add_signed(offset),
            SeekFrom::Current(offset) => self.position.checked_add_signed(offset),
        };
        self.position = position.ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidInput, "before the partition's start")
        })?;
        Ok(self.position)
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn made() -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("demo.img");
        make(&path).unwrap();
        (folder, path)
    }

    #[test]
    fn the_files_are_on_the_disk() {
        let (_folder, path) = made();
        let mut disk = File::open(path).unwrap();
        let volume = fatfs::FileSystem::new(Partition::new(&mut disk), fatfs::FsOptions::new());
        let volume = volume.unwrap();
        assert_eq!(volume.volume_label(), "DEMO");
        for (name, content) in files() {
            let mut found = Vec::new();
            let mut file = volume.root_dir().open_file(name).unwrap();
            file.read_to_end(&mut found).unwrap();
            assert!(found == content, "{name}");
        }
    }

    /// Whether a tool finds nothing wrong; nothing when it is not installed.
    fn passes(test: &str, tool: &str, arguments: &[&std::ffi::OsStr]) -> Option<bool> {
        match Command::new(tool).args(arguments).output() {
            Ok(output) => {
                let said = [output.stdout, output.stderr].concat();
                eprintln!("{tool}: {}", String::from_utf8_lossy(&said));
                Some(output.status.success())
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
    fn sfdisk_finds_the_partition_table_right() {
        let (_folder, path) = made();
        let test = "sfdisk_finds_the_partition_table_right";
        let passed = passes(test, "sfdisk", &["--verify".as_ref(), path.as_os_str()]);
        assert_ne!(passed, Some(false));
    }

    #[test]
    fn fsck_finds_the_file_system_right() {
        let (folder, path) = made();
        let mut content = Vec::new();
        let mut disk = File::open(path).unwrap();
        Partition::new(&mut disk).read_to_end(&mut content).unwrap();
        assert_eq!(content.len() as u64, PARTITION_SIZE);
        let partition = folder.path().join("partition");
        std::fs::write(&partition, content).unwrap();
        let test = "fsck_finds_the_file_system_right";
        let arguments = ["-n".as_ref(), "-v".as_ref(), partition.as_os_str()];
        assert_ne!(passes(test, "fsck.fat", &arguments), Some(false));
    }
}
