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

/// The place of a server: its data, and where it keeps its records if not there.
pub struct Place<'a> {
    pub data: &'a Path,
    /// The URL of a database.
    pub store: Option<String>,
    pub lease: Option<Duration>,
}

impl Place<'_> {
    fn command(&self) -> Result<Command, Box<dyn Error>> {
        let mut command = Command::new(Program::path());
        let imports = self.data.with_file_name("imports");
        fs::create_dir_all(&imports)?;
        command.args(["serve", "--import-dir"]).arg(imports);
        if let Some(url) = &self.store {
            command.arg(format!("--store={url}"));
        }
        if let Some(lease) = self.lease {
            command.args(["--lease-duration", &format!("{}s", lease.as_secs())]);
        }
        Ok(command)
    }
}

/// The command of a program that serves; arguments follow.
fn serve(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.arg("serve");
    command
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
            Variant::Durable => serve(Path::new(&Program::path())),
            Variant::StoresNothing => {
                let mut command = Command::new(std::env::current_exe()?);
                command.args([IN_MEMORY, "serve"]);
                command
            }
        };
        Self::start_command(command, log_level, data).await
    }

    /// Starts a server at a place, the first one there.
    pub async fn start_at(place: Place<'_>) -> Result<Self, Box<dyn Error>> {
        Self::start_command(place.command()?, LOG, place.data).await
    }

    /// Starts another replica at the place of the first.
    pub async fn start_beside(first: &Self, place: Place<'_>) -> Result<Self, Box<dyn Error>> {
        Ok(Self {
            process: Self::process(place.command()?, LOG, place.data).await,
            compute_image_id: first.compute_image_id.clone(),
        })
    }

    /// Ends the server without a warning.
    pub async fn kill(self) {
        self.process.kill().await;
    }

    /// Starts another build of the program.
    pub async fn start_binary(
        binary: &Path,
        log_level: &str,
        data: &Path,
    ) -> Result<Self, Box<dyn Error>> {
        Self::start_command(serve(binary), log_level, data).await
    }

    async fn start_command(
        command: Command,
        log_level: &str,
        data: &Path,
    ) -> Result<Self, Box<dyn Error>> {
        let process = Self::process(command, log_level, data).await;
        let disk = Disk::mbr(2, Fill::Sparse(1));
        let compute_image_id = process.compute_image("catalogue", "disk", &disk).await;
        Ok(Self {
            process,
            compute_image_id,
        })
    }

    async fn process(mut command: Command, log_level: &str, data: &Path) -> ServerProcess {
        command
            .args(["--listen", "127.0.0.1:0", "--data-dir"])
            .arg(data)
            .args(["--log-level", log_level])
            .stdout(Stdio::piped())
            // Lines are made, and written nowhere: those in a file on the disk of the data would be
            // written back by the kernel, half a minute's at once, and all commits would wait meanwhile.
            .stderr(Stdio::null())
            .kill_on_drop(true);
        ServerProcess::listening(command, data).await
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
