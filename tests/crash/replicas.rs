//! Several replicas on one database and one folder of blobs, behind a proxy that hands them connections in turn. A
//! round lets something fail in the midst of the load; the replicas that are left answer for what was acknowledged.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use rand::Rng;
use rand::rngs::StdRng;
use serde_json::json;
use tempfile::TempDir;
use test_support::{Clients, Database, Method, Program, ServerProcess, Transport, eventually};
use tokio::process::Command;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tonic::Code;

use crate::callers::{Callers, check};
use crate::disks::Disks;
use crate::kill::{Moment, Progress};
use crate::load::Shared;
use crate::model::Model;
use crate::proxy::Proxy;
use crate::rounds::Life;
use crate::{checks, quotas, shared_data};

/// The codes of uploads that ended unseen: their server is gone, or the database was when they were to be recorded.
const CUT_SHORT: [Code; 2] = [Code::Aborted, Code::Unavailable];
/// The number of replicas.
const REPLICAS: usize = 3;

/// The database, the folder of blobs, the replicas, and what is known of all that.
pub struct Replicas {
    folder: TempDir,
    database: Database,
    replicas: Vec<Replica>,
    front: Proxy,
    /// Whether operations take longer than a round.
    slow: bool,
    model: Shared,
}

struct Replica {
    process: Option<ServerProcess>,
    /// Its ways to the primary of the database and to its standby, which can be cut.
    ways: [Proxy; 2],
}

/// A failure in the midst of the load.
#[derive(Debug, Clone, Copy)]
enum Fault {
    /// One replica is killed, or two.
    Kill(usize),
    /// A replica stands still for longer than its leases last, and then goes on.
    Pause,
    /// The database is stopped without a clean shutdown, and recovers.
    DatabaseStop,
    /// All connections of the database end, a few times.
    ConnectionsEnd(usize),
    /// The network between a replica and the database is cut.
    Cut,
    /// The standby of the database takes the place of the primary, which has failed or is out of the replicas' reach.
    FailOver(Fence),
}

/// Keeps replicas from a primary whose place another one takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fence {
    /// It is stopped.
    Stop,
    /// It works on, out of their reach.
    Cut,
}

impl Fault {
    fn random(random: &mut StdRng) -> Self {
        match random.random_range(0..12) {
            0..4 => Self::Kill(random.random_range(1..REPLICAS)),
            4 | 5 => Self::Pause,
            6 => Self::DatabaseStop,
            7 => Self::ConnectionsEnd(random.random_range(1..4)),
            8 | 9 => Self::Cut,
            10 => Self::FailOver(Fence::Stop),
            _ => Self::FailOver(Fence::Cut),
        }
    }
}

impl Life for Replicas {
    const ROUNDS: u64 = 10;

    async fn begin(mut random: StdRng) -> Self {
        let folder = TempDir::with_prefix("crash-test-").expect("a temporary folder");
        let disks = Disks::make(&folder.path().join("imports"));
        let log = folder.path().join("database.log");
        let database = Database::start("kills of replicas", &log).await;
        let mut database = database.expect("asked before");
        database.add_standby().await;
        let mut life = Self {
            folder,
            database,
            replicas: Vec::new(),
            front: Proxy::start().await,
            slow: random.random_bool(0.3),
            model: Shared::new(Model::new(disks)),
        };
        for number in 0..REPLICAS {
            let ways = [Proxy::start().await, Proxy::start().await];
            for (way, address) in ways.iter().zip(life.database.addresses()) {
                way.open(address);
            }
            life.replicas.push(Replica {
                process: None,
                ways,
            });
            life.start(number).await;
        }
        quotas::set(&life.clients()).await;
        life
    }

    async fn round(&mut self, round: u64, mut random: StdRng) -> String {
        let moment = Moment::random(&mut random);
        let fault = Fault::random(&mut random);
        let progress = Arc::new(Progress::default());
        let (clients, slow) = (|| self.clients(), self.slow);
        let callers = Callers::start(&self.model, round, clients, &progress, slow, &mut random);
        let (data, waiting) = (self.data(), progress.clone());
        tokio::task::spawn_blocking(move || moment.wait(&data, &waiting))
            .await
            .expect("a moment comes");
        self.model.kill();
        let woken = self.fail(fault, &mut random).await;
        callers.end().await;
        let unknown = self.model.lock().unknown().len();
        let unfinished = self.model.lock().unfinished().len();
        for replica in &self.replicas {
            if let Some(process) = &replica.process
                && woken.as_ref().is_none_or(|woken| woken.id != process.id())
            {
                serves(&process.clients).await;
            }
        }
        let database = self.database.client().await;
        shared_data::files_have_rows(&database, &self.data()).await;
        check(&self.clients(), &self.model, &CUT_SHORT, &mut random).await;
        if let Some(woken) = woken {
            woken.goes_on.await.expect("it goes on");
            let mut paused = self.replicas.iter().filter_map(|it| it.process.as_ref());
            let paused = paused.find(|process| process.id() == woken.id);
            let paused = paused.expect("a replica that was paused");
            serves(&paused.clients).await;
            self.front.open(paused.address);
        }
        shared_data::agrees(&database, &self.data(), &self.model).await;
        checks::bytes(&self.clients(), &self.model).await;
        for number in 0..REPLICAS {
            if self.replicas[number].process.is_none() {
                self.start(number).await;
            }
        }
        format!(
            "{fault:?} by {moment:?}, {} replies, {unknown} unknown, {unfinished} running",
            progress.replied.load(Relaxed),
        )
    }

    fn into_folder(self) -> TempDir {
        self.folder
    }
}

/// A replica that stands still, and when it goes on.
struct Paused {
    id: u32,
    goes_on: JoinHandle<()>,
}

impl Replicas {
    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Clients with connections of their own.
    fn clients(&self) -> Clients {
        Clients::new(self.front.address())
    }

    async fn start(&mut self, number: usize) {
        let mut command = ServerProcess::serve(Command::new(Program::path()), self.folder.path());
        let replica = &mut self.replicas[number];
        let ways = replica.ways.each_ref().map(Proxy::address);
        let url = Database::url_of_any(&ways);
        command.arg(format!("--store={url}"));
        // Operations of a replica that is gone are resumed when their leases have run out. A shorter lease would run out
        // beside three replicas on a small machine, and end uploads that nothing has happened to.
        command.args(["--lease-duration", "3s"]);
        if self.slow {
            command.args(["--simulate-latency", "1s"]);
        }
        let process = ServerProcess::listening(command, self.folder.path()).await;
        self.front.open(process.address);
        replica.process = Some(process);
    }

    fn each_way_to(&self, node: SocketAddr, change: impl Fn(&Proxy, SocketAddr)) {
        let number = self.database.addresses().iter().position(|it| *it == node);
        let number = number.expect("a node of the database");
        for replica in &self.replicas {
            change(&replica.ways[number], node);
        }
    }

    /// Lets something fail, and makes good what does not come back by itself. Replicas that were killed are left so, and
    /// one that stands still goes on later.
    async fn fail(&mut self, fault: Fault, random: &mut StdRng) -> Option<Paused> {
        let pause = Duration::from_millis(random.random_range(200..6000));
        let number = random.random_range(0..REPLICAS);
        match fault {
            Fault::Kill(count) => {
                for number in rand::seq::index::sample(random, REPLICAS, count) {
                    let killed = self.replicas[number].process.take();
                    let killed = killed.expect("all run at the begin of a round");
                    let address = killed.address;
                    killed.kill().await;
                    self.front.cut(address);
                }
            }
            Fault::Pause => {
                let process = self.replicas[number].process.as_ref();
                let process = process.expect("all run at the begin of a round");
                process.signal("STOP");
                self.model.lock().stands_still = true;
                self.front.cut(process.address);
                let id = process.id();
                let goes_on = tokio::spawn(async move {
                    sleep(pause).await;
                    test_support::run(Path::new("/"), "kill", &["-CONT", &id.to_string()]);
                });
                return Some(Paused { id, goes_on });
            }
            Fault::DatabaseStop => {
                self.database.stop_at_once().await;
                sleep(pause / 3).await;
                self.database.run().await;
            }
            Fault::ConnectionsEnd(times) => {
                for _ in 0..times {
                    self.database.terminate_connections().await;
                    sleep(pause / 20).await;
                }
            }
            Fault::Cut => {
                let addresses = self.database.addresses();
                let ways = || self.replicas[number].ways.iter().zip(addresses);
                ways().for_each(|(way, address)| way.cut(address));
                sleep(pause).await;
                ways().for_each(|(way, address)| way.open(address));
            }
            Fault::FailOver(fence) => {
                let primary = self.database.address();
                match fence {
                    Fence::Stop => self.database.stop_at_once().await,
                    Fence::Cut => self.each_way_to(primary, Proxy::cut),
                }
                sleep(pause / 10).await;
                self.database.promote().await;
                self.database.follow().await;
                if fence == Fence::Cut {
                    self.each_way_to(primary, Proxy::open);
                }
            }
        }
        None
    }
}

/// Waits until a replica answers.
async fn serves(clients: &Clients) {
    let caller = clients.caller(Transport::Rest);
    eventually("a replica serves", || async {
        let request = json!({"folderId": "none"});
        let listed = caller.attempt(Method::DesktopList, request, &[]).await;
        listed.ok()?.ok()
    })
    .await;
}
