//! Rounds: load, a kill, a restart, checks.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use tempfile::TempDir;
use test_support::{Clients, Program, ServerProcess};
use tokio::process::Command;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::timeout;

use crate::disks::Disks;
use crate::kill::{Moment, Progress};
use crate::load::{AnotherPanicked, CALLERS, Load, Shared};
use crate::model::Model;
use crate::{audit, checks, data_folder, quotas, resolve};

/// After so many rounds a new data folder is begun.
const ROUNDS_OF_A_FOLDER: u64 = 50;
/// How long a caller may take to end once the server is gone.
const SEES_THE_END: Duration = Duration::from_secs(10);
/// How many operations of earlier rounds are looked at in each round.
const LOOKED_AT_AGAIN: usize = 100;

/// Runs rounds until one fails; tells which one that was.
pub fn run(rounds: u64, seed: u64) -> Result<(), String> {
    let runtime = tokio::runtime::Runtime::new().map_err(|error| error.to_string())?;
    let mut times = Vec::new();
    let mut life = None;
    for round in 0..rounds {
        if round % ROUNDS_OF_A_FOLDER == 0 {
            life = None;
        }
        let mut current = match life.take() {
            Some(life) => life,
            None => runtime.block_on(Life::begin()),
        };
        let random = StdRng::seed_from_u64(seed.wrapping_mul(1_000_003).wrapping_add(round));
        let started = Instant::now();
        let ended = catch_unwind(AssertUnwindSafe(|| {
            runtime.block_on(current.round(round, random))
        }));
        match ended {
            Ok(summary) => {
                let time = started.elapsed();
                println!("round {round}: {summary}, {} ms", time.as_millis());
                times.push(time);
                life = Some(current);
            }
            Err(panic) => {
                let kept = current.folder.keep();
                return Err(format!(
                    "seed {seed}, round {round}: {}\nThe data folder is kept at {kept}/data, the \
                     server's log at {kept}/server.log",
                    message(&*panic),
                    kept = kept.display()
                ));
            }
        }
    }
    times.sort();
    if let (Some(median), Some(longest)) = (times.get(times.len() / 2), times.last()) {
        println!(
            "{rounds} rounds of seed {seed}: median {} ms, longest {} ms",
            median.as_millis(),
            longest.as_millis()
        );
    }
    Ok(())
}

fn message(panic: &(dyn Any + Send)) -> &str {
    match (panic.downcast_ref::<String>(), panic.downcast_ref::<&str>()) {
        (Some(message), _) => message,
        (_, Some(message)) => message,
        _ => "a panic without a message",
    }
}

/// A data folder, its server, and what is known of it.
struct Life {
    folder: TempDir,
    server: Option<ServerProcess>,
    /// Whether operations of this server take longer than a round.
    slow: bool,
    model: Shared,
}

impl Life {
    async fn begin() -> Self {
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

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// One round; what happened in it.
    async fn round(&mut self, round: u64, mut random: StdRng) -> String {
        let moment = Moment::random(&mut random);
        let progress = Arc::new(Progress::default());
        let server = self.server.take().expect("the server of the round before");
        let callers = self.callers(round, &server.clients, &progress, &mut random);
        let callers: Vec<_> = callers
            .into_iter()
            .map(|load| tokio::spawn(load.run()))
            .collect();
        let (data, waiting) = (self.data(), progress.clone());
        let started = Instant::now();
        tokio::task::spawn_blocking(move || moment.wait(&data, &waiting))
            .await
            .expect("a moment comes");
        self.model.kill();
        server.kill().await;
        let killed_after = started.elapsed();
        let ended = join_all(callers.into_iter().map(end)).await;
        let broken = ended.into_iter().filter_map(Result::err);
        let mut panics: Vec<_> = broken.filter_map(|it| it.try_into_panic().ok()).collect();
        panics.sort_by_key(|panic| panic.is::<AnotherPanicked>());
        if let Some(first) = panics.into_iter().next() {
            resume_unwind(first);
        }
        let unknown = self.model.lock().unknown().len();
        let unfinished = self.model.lock().unfinished().len();
        data_folder::files_have_rows(&self.data());
        let again = random.random_bool(0.25);
        if again {
            self.kill_while_starting(&mut random).await;
        }
        self.slow = random.random_bool(0.3);
        let server = start(self.folder.path(), self.slow).await;
        self.check(&server.clients, &mut random).await;
        self.server = Some(server);
        format!(
            "killed {}after {} ms by {moment:?}, {} replies, {unknown} unknown, {unfinished} running",
            if again { "twice " } else { "" },
            killed_after.as_millis(),
            progress.replied.load(Relaxed),
        )
    }

    /// Gives each caller its share of the images.
    fn callers(
        &self,
        round: u64,
        clients: &Clients,
        progress: &Arc<Progress>,
        random: &mut StdRng,
    ) -> Vec<Load> {
        let mut model = self.model.lock();
        model.round = round;
        model.killed = false;
        let mut images: Vec<String> = model.living().map(|(id, _)| id.clone()).collect();
        images.shuffle(random);
        let sources: Vec<String> = model
            .living()
            .filter(|(_, image)| !image.desktop)
            .map(|(id, _)| id.clone())
            .collect();
        let large = random
            .random_bool(0.5)
            .then(|| random.random_range(0..CALLERS));
        (0..CALLERS)
            .map(|caller| Load {
                random: StdRng::from_rng(random),
                clients: clients.clone(),
                model: self.model.clone(),
                progress: progress.clone(),
                own: images
                    .iter()
                    .skip(caller)
                    .step_by(CALLERS)
                    .cloned()
                    .collect(),
                sources: sources.clone(),
                large: large == Some(caller),
                patient: !self.slow,
                sent: Vec::new(),
            })
            .collect()
    }

    /// Starts the server and kills it before or soon after it listens.
    async fn kill_while_starting(&self, random: &mut StdRng) {
        let mut child = command(self.folder.path())
            .spawn()
            .expect("the program runs");
        tokio::time::sleep(Duration::from_micros(random.random_range(0..120_000))).await;
        child.kill().await.expect("a running process");
    }

    async fn check(&self, clients: &Clients, random: &mut StdRng) {
        let model = &self.model;
        resolve::ask_again(clients, model, random).await;
        resolve::all_done(clients, model).await;
        let (mut numbers, mut earlier): (Vec<_>, Vec<_>) = {
            let model = model.lock();
            let round = model.round;
            (0..model.requests.len()).partition(|number| model.requests[*number].round == round)
        };
        earlier.shuffle(random);
        numbers.extend(earlier.into_iter().take(LOOKED_AT_AGAIN));
        resolve::unchanged(clients, model, numbers).await;
        checks::images(clients, model).await;
        checks::deleted_images(clients, model).await;
        audit::agrees(clients, model).await;
        quotas::agree(clients, model).await;
        data_folder::agrees(&self.data(), model).await;
        checks::bytes(clients, model).await;
    }
}

/// Waits until a caller has ended, whose server is gone. Once in some thousand rounds its client does not see
/// that, and would wait for ever: its request is one that was not answered.
async fn end(mut caller: JoinHandle<()>) -> Result<(), JoinError> {
    match timeout(SEES_THE_END, &mut caller).await {
        Ok(ended) => ended,
        Err(_) => {
            println!("a client waits for a server that is gone");
            caller.abort();
            caller.await
        }
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
