//! The server that is measured: the release binary in a process of its own, on a data folder of
//! its own, with a compute image to copy.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use desktop_images::contract::yandex::cloud::compute::v1 as compute;
use desktop_images::contract::yandex::cloud::operation::{Operation, operation};
use prost::Message;
use test_support::{Disk, Fill, Program, ServerProcess};
use tokio::process::Command;

use super::in_memory::WORD as IN_MEMORY;
use super::machine;

/// How a server logs by default, a line for each request, and how it logs next to nothing.
pub const LOG: &str = "info";
pub const QUIET: &str = "warn";

/// The store behind a Copy.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Variant {
    /// The store that users get.
    Durable,
    /// The same rules on a store in memory, in a process of this benchmark: nothing is written.
    StoresNothing,
}

/// A running server; it is killed when this is dropped.
pub struct Server {
    process: ServerProcess,
    /// A READY compute image.
    pub compute_image_id: String,
}

impl Server {
    pub async fn start(
        variant: Variant,
        log_level: &str,
        data: &Path,
    ) -> Result<Self, Box<dyn Error>> {
        let command = match variant {
            Variant::Durable => Command::new(Program::path()),
            Variant::StoresNothing => {
                let mut command = Command::new(std::env::current_exe()?);
                command.arg(IN_MEMORY);
                command
            }
        };
        Self::start_command(command, log_level, data).await
    }

    /// Starts another build of the program.
    pub async fn start_binary(
        binary: &Path,
        log_level: &str,
        data: &Path,
    ) -> Result<Self, Box<dyn Error>> {
        Self::start_command(Command::new(binary), log_level, data).await
    }

    async fn start_command(
        mut command: Command,
        log_level: &str,
        data: &Path,
    ) -> Result<Self, Box<dyn Error>> {
        command
            .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(data)
            .args(["--log-level", log_level])
            .stdout(Stdio::piped())
            // Lines are made, and written nowhere: those in a file on the disk of the data would be
            // written back by the kernel, half a minute's at once, and all commits would wait meanwhile.
            .stderr(Stdio::null())
            .kill_on_drop(true);
        let process = ServerProcess::listening(command, data).await;
        let disk = Disk::mbr(2, Fill::Sparse(1));
        let compute_image_id = process.compute_image("catalogue", "disk", &disk).await;
        Ok(Self {
            process,
            compute_image_id,
        })
    }

    /// Processor time that the server has used so far.
    pub fn cpu_time(&self) -> Result<Duration, Box<dyn Error>> {
        machine::cpu_time(&self.process.id().to_string())
    }

    /// Bytes that the server has written to its disk so far.
    pub fn bytes_written(&self) -> Result<u64, Box<dyn Error>> {
        let text = fs::read_to_string(self.proc("io"))?;
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("write_bytes: "));
        Ok(line.unwrap_or_default().parse()?)
    }

    fn proc(&self, file: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{file}", self.process.id()))
    }
}

impl std::ops::Deref for Server {
    type Target = ServerProcess;

    fn deref(&self) -> &ServerProcess {
        &self.process
    }
}

/// The image that an operation made. An operation that is not done, or failed, is an error.
pub fn copied(reply: &[u8]) -> Result<String, Box<dyn Error>> {
    let operation = Operation::decode(reply)?;
    match (operation.metadata, operation.result) {
        (Some(metadata), Some(operation::Result::Response(_))) if operation.done => {
            // The metadata of every operation on images has the image's id as its first field.
            Ok(compute::DeleteImageMetadata::decode(&metadata.value[..])?.image_id)
        }
        _ => Err("a Copy did not end well".into()),
    }
}
