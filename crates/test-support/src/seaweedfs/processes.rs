//! SeaweedFS as four processes, each of which can be killed, stopped for a while and started again.
//!
//! A SIGKILL of any of them is fair: an object that was acknowledged is still there. Volumes and the index of each are
//! written by plain `write` calls before the answer, and so is the journal of the filer's LevelDB, so that the kernel has
//! them when the process dies (740 objects that were acknowledged under 24 such kills were all there, SeaweedFS 4.48).
//! None of it is synced by default, so that a loss of power would not be fair without `fs.configure -fsync`, but nothing
//! here stops the kernel.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tempfile::TempDir;
use tokio::process::{Child, Command};

use super::{
    BUCKET, IDENTITIES, KEY, ObjectPlace, Objects, SECRET, credentials, free_ports, program,
};

/// A process of the storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// It gives places to new bytes: without it nothing can be written. It needs some 8 s to come back.
    Master,
    /// It has the bytes.
    Volume,
    /// It has the names of the objects.
    Filer,
    /// It speaks S3.
    S3,
}

impl Part {
    pub const ALL: [Self; 4] = [Self::Master, Self::Volume, Self::Filer, Self::S3];
}

/// The processes, with their data, which are removed when this is dropped.
pub struct ObjectStorage {
    folder: TempDir,
    program: PathBuf,
    /// The ports of each part, for HTTP and for gRPC.
    ports: [[u16; 2]; 4],
    processes: [Option<Child>; 4],
}

impl ObjectStorage {
    /// Starts all parts, and waits until the storage takes objects. Only where [`super::is_installed`] says so.
    pub async fn start() -> Self {
        let folder = TempDir::with_prefix("desktop-images-s3-").expect("a temporary folder");
        for name in ["master", "volume", "filer"] {
            std::fs::create_dir(folder.path().join(name)).expect("a folder");
        }
        std::fs::write(folder.path().join("s3.json"), IDENTITIES).expect("a file of identities");
        let ports: [u16; 8] = free_ports();
        let mut storage = Self {
            folder,
            program: program().expect("asked only where it is installed"),
            ports: [0, 2, 4, 6].map(|at| [ports[at], ports[at + 1]]),
            processes: [const { None }; 4],
        };
        for part in Part::ALL {
            storage.run(part);
        }
        storage.answers().await;
        storage
    }

    /// The address of the S3 server.
    pub fn address(&self) -> SocketAddr {
        let [http, _] = self.ports[Part::S3 as usize];
        (Ipv4Addr::LOCALHOST, http).into()
    }

    /// The log of all parts.
    pub fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    /// A place for the blobs of one installation, and the credentials of one who may do all there.
    pub fn place(&self, prefix: &str) -> ObjectPlace {
        let [filer, _] = self.ports[Part::Filer as usize];
        ObjectPlace {
            url: format!("s3://{BUCKET}/{prefix}"),
            endpoint: format!("http://{}", self.address()),
            environment: credentials(KEY, SECRET),
            objects: Objects::Filer(format!("http://127.0.0.1:{filer}/buckets/{BUCKET}/")),
            prefix: prefix.to_owned(),
        }
    }

    /// Ends a part without a warning.
    pub async fn kill(&mut self, part: Part) {
        let process = self.processes[part as usize].take();
        let killed = process.expect("a part that runs").kill().await;
        killed.expect("a running process");
    }

    /// Sends a part a signal, by its name.
    pub fn signal(&self, part: Part, name: &str) {
        let process = self.processes[part as usize].as_ref();
        let id = process.and_then(Child::id).expect("a part that runs");
        crate::run(
            Path::new("/"),
            "kill",
            &[&format!("-{name}"), &id.to_string()],
        );
    }

    /// Starts a part.
    pub fn run(&mut self, part: Part) {
        let log = File::options().create(true).append(true).open(self.log());
        let log = log.expect("a log");
        let [http, grpc] = self.ports[part as usize];
        let of = |part: Part| {
            let [http, grpc] = self.ports[part as usize];
            format!("127.0.0.1:{http}.{grpc}")
        };
        let path = |name: &str| {
            let path = self.folder.path().join(name);
            path.to_str().expect("a path in UTF-8").to_owned()
        };
        let mut command = Command::new(&self.program);
        match part {
            // Without other masters there is no vote to wait for.
            Part::Master => command
                .args(["master", "-mdir", &path("master"), "-peers", "none"])
                .args(["-volumeSizeLimitMB", "1024", "-telemetry=false"]),
            Part::Volume => command
                .args(["volume", "-dir", &path("volume"), "-max", "50"])
                .args(["-master", &of(Part::Master)]),
            Part::Filer => command
                .args(["filer", "-master", &of(Part::Master), "-iam=false"])
                .args(["-localSocket", &path("filer.sock")]),
            Part::S3 => command
                .args(["s3", "-filer", &of(Part::Filer)])
                .args(["-config", &path("s3.json")])
                .args(["-port.iceberg", "0", "-port.lance", "0"])
                .args(["-localSocket", &path("s3.sock")])
                .args(["-localFilerSocket", &path("filer.sock")]),
        };
        command
            .args(["-ip", "127.0.0.1", "-ip.bind", "127.0.0.1"])
            .args(["-port", &http.to_string()])
            .args(["-port.grpc", &grpc.to_string()])
            // The filer keeps its names where it is started.
            .current_dir(path("filer"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .kill_on_drop(true);
        let process = command.spawn().expect("SeaweedFS");
        self.processes[part as usize] = Some(process);
    }

    /// Waits until the storage takes objects and gives them back.
    pub async fn answers(&self) {
        self.place("ready").answers(&self.log()).await;
    }
}

impl Drop for ObjectStorage {
    fn drop(&mut self) {
        // The folder is removed, so that all are to be gone.
        for process in self.processes.iter_mut().flatten() {
            let _ = process.start_kill();
            while let Ok(None) = process.try_wait() {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }
}
