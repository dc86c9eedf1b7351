//! A PostgreSQL server of its own, which writes to the disk as a real one does, and can be stopped at once. Tests that only
//! need some database share the one of `postgres_server`, which writes nothing to the disk.

use std::fs::{File, Permissions};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio_postgres::{Client, NoTls};

use crate::{eventually, postgres_server, run};

/// A server and its data, which are removed when this is dropped.
pub struct Database {
    programs: PathBuf,
    log: PathBuf,
    folder: TempDir,
    address: SocketAddr,
    process: Option<Child>,
}

impl Database {
    /// The user of the database, who needs no password.
    pub const USER: &str = "images";

    /// A new database that is served; none where PostgreSQL is not installed, so that `test` is left out. Its log is
    /// added to `log`.
    pub async fn start(test: &str, log: &Path) -> Option<Self> {
        if !postgres_server::is_installed(test) {
            return None;
        }
        let programs = postgres_server::programs()?;
        // PostgreSQL does not run as root, and its user must be able to reach the folder.
        let folder = TempDir::with_prefix("crash-test-pg-").expect("a temporary folder");
        if rustix::process::geteuid().is_root() {
            let path = folder.path().to_owned();
            std::fs::set_permissions(&path, Permissions::from_mode(0o755)).expect("permissions");
            run(
                Path::new("/"),
                "chown",
                &["nobody", &path.to_string_lossy()],
            );
        }
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = free.local_addr().expect("an address");
        drop(free);
        let mut database = Self {
            programs,
            log: log.to_owned(),
            folder,
            address,
            process: None,
        };
        let made = database
            .command("initdb")
            .args([
                "--username",
                Self::USER,
                "--auth=trust",
                "--encoding=UTF8",
                "--locale=C.UTF-8",
            ])
            .status()
            .await;
        assert!(made.is_ok_and(|status| status.success()), "initdb failed");
        database.run().await;
        Some(database)
    }

    /// The folder of PostgreSQL's programs.
    pub fn programs(&self) -> &Path {
        &self.programs
    }

    /// The id of the process that all others of the database are children of, while it runs.
    pub fn id(&self) -> Option<u32> {
        self.process.as_ref()?.id()
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL by which it is reached at an address, its own or that of a proxy.
    pub fn url(address: SocketAddr) -> String {
        format!(
            "postgres://{}@{address}/postgres?sslmode=disable",
            Self::USER
        )
    }

    /// Serves the database, and waits until it does.
    pub async fn run(&mut self) {
        let port = self.address.port().to_string();
        let process = self
            .command("postgres")
            .args(["-p", &port, "-c", "listen_addresses=127.0.0.1"])
            .args([
                "-c",
                "unix_socket_directories=",
                "-c",
                "max_connections=400",
            ])
            .args(["-c", "shared_buffers=64MB", "-c", "log_min_messages=error"])
            .spawn();
        self.process = Some(process.expect("PostgreSQL"));
        eventually("the database answers", || async {
            let client = self.connect().await?;
            client.batch_execute("SELECT 1").await.ok()
        })
        .await;
    }

    /// Ends it without a clean shutdown, as after a failure: it recovers when it runs again.
    pub async fn stop_at_once(&mut self) {
        let mut process = self.process.take().expect("a database that runs");
        let id = process.id().expect("a running process").to_string();
        run(Path::new("/"), "kill", &["-QUIT", &id]);
        process.wait().await.expect("it ends");
    }

    /// Ends all connections but its own.
    pub async fn terminate_connections(&self) {
        let client = self.client().await;
        let terminated = client
            .batch_execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                 WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()",
            )
            .await;
        terminated.expect("connections are ended");
    }

    /// A connection of its own.
    pub async fn client(&self) -> Client {
        self.connect().await.expect("a connection")
    }

    async fn connect(&self) -> Option<Client> {
        let url = Self::url(self.address);
        let (client, connection) = tokio_postgres::connect(&url, NoTls).await.ok()?;
        tokio::spawn(connection);
        Some(client)
    }

    /// A program of PostgreSQL on the data, as a user that it accepts.
    fn command(&self, program: &str) -> Command {
        let path = self.programs.join(program);
        let mut command = match rustix::process::geteuid().is_root() {
            false => Command::new(path),
            true => {
                let mut command = Command::new("setpriv");
                command.args(["--reuid=nobody", "--regid=nogroup", "--clear-groups"]);
                command.arg(path);
                command
            }
        };
        let log = File::options().create(true).append(true).open(&self.log);
        let log = log.expect("a log");
        command
            .env("PGDATA", self.folder.path().join("data"))
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .kill_on_drop(true);
        command
    }
}
