//! One server on a data folder. A round kills it and starts it again.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use rand::Rng;
use rand::rngs::StdRng;
use tempfile::TempDir;
use test_support::{Program, ServerProcess, blob_files};
use tokio::process::Command;
use tonic::Code;

use crate::callers::{Callers, check};
use crate::disks::Disks;
use crate::kill::{Moment, Progress};
use crate::load::Shared;
use crate::model::Model;
use crate::rounds::Life;
use crate::{checks, data_folder, quotas};

/// A data folder, its server, and what is known of it.
pub struct Embedded {
    folder: TempDir,
    server: Option<ServerProcess>,
    /// Whether operations of this server take longer than a round.
    slow: bool,
    model: Shared,
}

impl Life for Embedded {
    const ROUNDS: u64 = 50;

    type Site = ();

    async fn site() {}

    async fn begin((): &mut (), _: StdRng) -> Self {
        let folder = TempDir::with_prefix("crash-test-").expect("a temporary folder");
        let disks = Disks::make(&folder.path().join("imports"));
        let server = start(folder.path(), false).await;
        quotas::set(&server.clients).await;
        Self {
            folder,
            server: Some(server),
            slow: false,
            model: Shared::new(Model::new(disks)),
        }
    }

    async fn round(&mut self, (): &mut (), round: u64, mut random: StdRng) -> String {
        let moment = Moment::random(&mut random);
        let progress = Arc::new(Progress::default());
        let server = self.server.take().expect("the server of the round before");
        let (model, slow) = (&self.model, self.slow);
        let clients = || server.clients.clone();
        let callers = Callers::start(model, round, clients, &progress, slow, &mut random);
        let (data, waiting) = (self.data(), progress.clone());
        let started = Instant::now();
        let files = move || blob_files(&data).into_iter().collect();
        tokio::task::spawn_blocking(move || moment.wait(files, &waiting))
            .await
            .expect("a moment comes");
        self.model.kill();
        server.kill().await;
        let killed_after = started.elapsed();
        callers.end().await;
        let unknown = self.model.lock().unknown().len();
        let unfinished = self.model.lock().unfinished().len();
        data_folder::files_have_rows(&self.data());
        let again = random.random_bool(0.25);
        if again {
            self.kill_while_starting(&mut random).await;
        }
        self.slow = random.random_bool(0.3);
        let server = start(self.folder.path(), self.slow).await;
        check(&server.clients, &self.model, &[Code::Aborted], &mut random).await;
        data_folder::agrees(&self.data(), &self.model).await;
        checks::bytes(&server.clients, &self.model).await;
        self.server = Some(server);
        format!(
            "killed {}after {} ms by {moment:?}, {} replies, {unknown} unknown, {unfinished} running",
            if again { "twice " } else { "" },
            killed_after.as_millis(),
            progress.replied.load(Relaxed),
        )
    }

    fn into_folder(self, (): &()) -> TempDir {
        self.folder
    }
}

impl Embedded {
    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Starts the server and kills it before or soon after it listens.
    async fn kill_while_starting(&self, random: &mut StdRng) {
        let mut child = command(self.folder.path())
            .spawn()
            .expect("the program runs");
        tokio::time::sleep(Duration::from_micros(random.random_range(0..120_000))).await;
        child.kill().await.expect("a running process");
    }
}

async fn start(folder: &Path, slow: bool) -> ServerProcess {
    let mut command = command(folder);
    if slow {
        command.args(["--simulate-latency", "1s"]);
    }
    ServerProcess::listening(command, folder).await
}

fn command(folder: &Path) -> Command {
    let mut command = ServerProcess::serve(Command::new(Program::path()), folder);
    // An operation of a killed server is resumed when its lease has run out.
    command.args(["--lease-duration", "1s"]);
    command
}
