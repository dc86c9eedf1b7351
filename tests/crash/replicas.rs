//! Several replicas on one database and one place of blobs, behind a proxy that hands them connections in turn. A
//! round lets something fail in the midst of the load; the replicas that are left answer for what was acknowledged.
//! The blobs of every other life are in an object storage, on the way to which requests get into trouble; those of the
//! others are in a folder.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::json;
use tempfile::TempDir;
use test_support::seaweedfs::{self, ObjectStorage, Part};
use test_support::{Clients, Database, Method, Program, ServerProcess, Transport, eventually};
use tokio::process::Command;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tonic::Code;

use crate::blobs::{Blobs, Bucket};
use crate::callers::{Callers, check};
use crate::disks::Disks;
use crate::kill::{Moment, Progress};
use crate::load::Shared;
use crate::model::Model;
use crate::object_proxy::ObjectProxy;
use crate::proxy::Proxy;
use crate::rounds::Life;
use crate::{checks, quotas, shared_data};

/// The codes of uploads that ended unseen: their server is gone, or the database was when they were to be recorded.
const CUT_SHORT: [Code; 2] = [Code::Aborted, Code::Unavailable];
/// The number of replicas.
const REPLICAS: usize = 3;

/// The object storage, and how many lives there were.
pub struct Site {
    storage: Option<ObjectStorage>,
    lives: usize,
}

/// The database, the place of the blobs, the replicas, and what is known of all that.
pub struct Replicas {
    folder: TempDir,
    database: Database,
    blobs: Arc<Blobs>,
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
    /// A part of the object storage is killed, or all are, and started again.
    StorageKill(Option<Part>),
    /// A part of the object storage stands still, and then goes on.
    StoragePause(Part),
    /// The network between the replicas and the object storage is cut.
    StorageCut,
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
    fn random(has_storage: bool, random: &mut StdRng) -> Self {
        match random.random_range(0..if has_storage { 17 } else { 12 }) {
            0..4 => Self::Kill(random.random_range(1..REPLICAS)),
            4 | 5 => Self::Pause,
            6 => Self::DatabaseStop,
            7 => Self::ConnectionsEnd(random.random_range(1..4)),
            8 | 9 => Self::Cut,
            10 => Self::FailOver(Fence::Stop),
            11 => Self::FailOver(Fence::Cut),
            // The master takes its time to come back.
            12 if random.random_bool(0.5) => Self::StorageKill(None),
            12 => Self::StorageKill(Some(Part::Master)),
            13 | 14 => {
                let quick = [Part::Volume, Part::Filer, Part::S3];
                Self::StorageKill(quick.choose(random).copied())
            }
            15 => Self::StoragePause(*Part::ALL.choose(random).expect("parts")),
            _ => Self::StorageCut,
        }
    }
}

impl Life for Replicas {
    const ROUNDS: u64 = 10;

    type Site = Site;

    async fn site() -> Site {
        let storage = match seaweedfs::is_installed("faults of an object storage") {
            true => Some(ObjectStorage::start().await),
            false => None,
        };
        Site { storage, lives: 0 }
    }

    async fn begin(site: &mut Site, mut random: StdRng) -> Self {
        let folder = TempDir::with_prefix("crash-test-").expect("a temporary folder");
        let disks = Disks::make(&folder.path().join("imports"));
        let log = folder.path().join("database.log");
        let database = Database::start("kills of replicas", &log).await;
        let mut database = database.expect("asked before");
        database.add_standby().await;
        let storage = site
            .storage
            .as_ref()
            .filter(|_| site.lives.is_multiple_of(2));
        let blobs = match storage {
            None => Blobs::Folder(folder.path().join("data")),
            Some(storage) => {
                let way = Proxy::start().await;
                way.open(storage.address());
                let trouble = StdRng::from_rng(&mut random);
                Blobs::Bucket(Box::new(Bucket {
                    place: storage.place(&format!("life-{}", site.lives)),
                    proxy: ObjectProxy::start(way.address(), trouble).await,
                    way,
                }))
            }
        };
        site.lives += 1;
        let mut life = Self {
            folder,
            database,
            blobs: Arc::new(blobs),
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

    async fn round(&mut self, site: &mut Site, round: u64, mut random: StdRng) -> String {
        let moment = Moment::random(&mut random);
        let fault = Fault::random(self.bucket().is_some(), &mut random);
        let trouble = Trouble::random(&mut random);
        if let Some(bucket) = self.bucket() {
            bucket.proxy.trouble(trouble.share);
        }
        let progress = Arc::new(Progress::default());
        let (clients, slow) = (|| self.clients(), self.slow);
        let callers = Callers::start(&self.model, round, clients, &progress, slow, &mut random);
        let (blobs, waiting) = (self.blobs.clone(), progress.clone());
        tokio::task::spawn_blocking(move || moment.wait(|| blobs.at_once(), &waiting))
            .await
            .expect("a moment comes");
        self.model.kill();
        let mut woken = self.fail(site, fault, &mut random).await;
        callers.end().await;
        let mut troubled = 0;
        if let Some(bucket) = self.bucket()
            && !trouble.stays
        {
            troubled = bucket.proxy.trouble(0.0);
        }
        let unknown = self.model.lock().unknown().len();
        let unfinished = self.model.lock().unfinished().len();
        for replica in &self.replicas {
            if let Some(process) = &replica.process
                && woken.as_ref().is_none_or(|woken| woken.id != process.id())
            {
                serves(&process.clients).await;
            }
        }
        // It may have a request that nobody can ask for again, and carry it out in the midst of the checks.
        if self.model.lock().has_unknown_without_key()
            && let Some(woken) = woken.take()
        {
            self.goes_on(woken).await;
        }
        let database = self.database.client().await;
        shared_data::blobs_have_rows(&database, &self.blobs).await;
        check(&self.clients(), &self.model, &CUT_SHORT, &mut random).await;
        if let Some(woken) = woken {
            self.goes_on(woken).await;
        }
        shared_data::agrees(&database, &self.blobs, &self.model).await;
        checks::bytes(&self.clients(), &self.model).await;
        if let Some(bucket) = self.bucket() {
            troubled += bucket.proxy.trouble(0.0);
        }
        for number in 0..REPLICAS {
            if self.replicas[number].process.is_none() {
                self.start(number).await;
            }
        }
        format!(
            "{fault:?} by {moment:?}, {} replies, {unknown} unknown, {unfinished} running, {troubled} in trouble",
            progress.replied.load(Relaxed),
        )
    }

    fn into_folder(self, site: &Site) -> TempDir {
        if let Some(storage) = &site.storage {
            let kept = self.folder.path().join("seaweedfs.log");
            if let Err(error) = std::fs::copy(storage.log(), kept) {
                println!("the log of the object storage is lost: {error}");
            }
        }
        self.folder
    }
}

/// Trouble on the way to an object storage.
struct Trouble {
    /// The share of requests that get into it.
    share: f64,
    /// Whether it stays beyond the load, and through the checks.
    stays: bool,
}

impl Trouble {
    fn random(random: &mut StdRng) -> Self {
        Self {
            share: match random.random_bool(0.6) {
                true => random.random_range(0.02..0.25),
                false => 0.0,
            },
            stays: random.random_bool(0.3),
        }
    }
}

/// A replica that stands still, and when it goes on.
struct Paused {
    id: u32,
    goes_on: JoinHandle<()>,
}

impl Replicas {
    /// The place in an object storage, where the blobs are in one.
    fn bucket(&self) -> Option<&Bucket> {
        match &*self.blobs {
            Blobs::Folder(_) => None,
            Blobs::Bucket(bucket) => Some(bucket),
        }
    }

    /// Clients with connections of their own.
    fn clients(&self) -> Clients {
        Clients::new(self.front.address())
    }

    async fn start(&mut self, number: usize) {
        let mut command = ServerProcess::serve(Command::new(Program::path()), self.folder.path());
        if let Some(Bucket { place, proxy, .. }) = self.bucket() {
            command
                .args(["--blobs", &place.url])
                .args(["--blobs-endpoint", &format!("http://{}", proxy.address())])
                // So little that parts are small, and wait for each other.
                .args(["--upload-memory", "16M"])
                .envs(place.environment.iter().cloned());
        }
        let replica = &mut self.replicas[number];
        let ways = replica.ways.each_ref().map(Proxy::address);
        let url = Database::url_of_any(&ways);
        command.arg(format!("--store={url}"));
        // Operations of a replica that is gone are resumed when their leases have run out. A shorter lease would run out
        // beside three replicas on a small machine, and end uploads that nothing has happened to.
        // All that is left over must be gone at the end of a round.
        command.args(["--lease-duration", "3s", "--blob-retention", "0s"]);
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
    async fn fail(&mut self, site: &mut Site, fault: Fault, random: &mut StdRng) -> Option<Paused> {
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
            Fault::StorageKill(_) | Fault::StoragePause(_) | Fault::StorageCut => {
                let storage = site.storage.as_mut().expect("one with a bucket");
                self.storage_fails(storage, fault, pause / 3).await;
            }
        }
        None
    }
}

impl Replicas {
    /// Waits until a replica that stands still goes on.
    async fn goes_on(&self, woken: Paused) {
        woken.goes_on.await.expect("it goes on");
        let mut paused = self.replicas.iter().filter_map(|it| it.process.as_ref());
        let paused = paused.find(|process| process.id() == woken.id);
        let paused = paused.expect("a replica that was paused");
        serves(&paused.clients).await;
        self.front.open(paused.address);
    }

    async fn storage_fails(&self, storage: &mut ObjectStorage, fault: Fault, pause: Duration) {
        match fault {
            Fault::StorageKill(part) => {
                let parts = part.map_or(Part::ALL.to_vec(), |part| vec![part]);
                for part in &parts {
                    storage.kill(*part).await;
                }
                sleep(pause).await;
                parts.into_iter().for_each(|part| storage.run(part));
            }
            Fault::StoragePause(part) => {
                storage.signal(part, "STOP");
                sleep(pause).await;
                storage.signal(part, "CONT");
            }
            Fault::StorageCut => {
                let way = &self.bucket().expect("one with a bucket").way;
                way.cut(storage.address());
                sleep(pause).await;
                way.open(storage.address());
            }
            _ => unreachable!("a fault of something else"),
        }
        storage.answers().await;
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
