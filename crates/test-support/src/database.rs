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

/// A primary and, once it is added, its standby, with their data, which are removed when this is dropped.
pub struct Database {
    programs: PathBuf,
    log: PathBuf,
    folder: TempDir,
    nodes: [Node; 2],
    /// The node that takes changes.
    primary: usize,
}

/// A server. Its address stays when its data are made anew.
struct Node {
    address: SocketAddr,
    data: PathBuf,
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
        let free = [(); 2].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
        let free = free.map(|it| it.expect("a free port"));
        let mut number = 0;
        let nodes = free.map(|free| {
            number += 1;
            Node {
                address: free.local_addr().expect("an address"),
                data: folder.path().join(format!("data-{number}")),
                process: None,
            }
        });
        let mut database = Self {
            programs,
            log: log.to_owned(),
            folder,
            nodes,
            primary: 0,
        };
        let made = database
            .command("initdb", 0)
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

    /// The id of the process that all others of the primary are children of, while it runs.
    pub fn id(&self) -> Option<u32> {
        self.nodes[self.primary].process.as_ref()?.id()
    }

    /// Where the primary and its standby are, in no order that stays.
    pub fn addresses(&self) -> [SocketAddr; 2] {
        [0, 1].map(|number| self.nodes[number].address)
    }

    /// The address of the primary.
    pub fn address(&self) -> SocketAddr {
        self.nodes[self.primary].address
    }

    /// The URL by which it is reached at an address, its own or that of a proxy.
    pub fn url(address: SocketAddr) -> String {
        Self::url_of_any(&[address])
    }

    /// The URL by which the primary is found at one of some addresses.
    pub fn url_of_any(addresses: &[SocketAddr]) -> String {
        let addresses: Vec<_> = addresses.iter().map(SocketAddr::to_string).collect();
        format!(
            "postgres://{}@{}/postgres?sslmode=disable&target_session_attrs=read-write",
            Self::USER,
            addresses.join(",")
        )
    }

    /// Serves the database, and waits until it does.
    pub async fn run(&mut self) {
        self.serve(self.primary).await;
    }

    async fn serve(&mut self, number: usize) {
        let port = self.nodes[number].address.port().to_string();
        let process = self
            .command("postgres", number)
            .args(["-p", &port, "-c", "listen_addresses=127.0.0.1"])
            .args([
                "-c",
                "unix_socket_directories=",
                "-c",
                "max_connections=400",
            ])
            .args(["-c", "shared_buffers=64MB", "-c", "log_min_messages=error"])
            // A standby comes back at once to a primary that was restarted.
            .args(["-c", "wal_retrieve_retry_interval=100ms"])
            .spawn();
        self.nodes[number].process = Some(process.expect("PostgreSQL"));
        let address = self.nodes[number].address;
        eventually("the database answers", || async {
            let client = connect(address).await?;
            client.batch_execute("SELECT 1").await.ok()
        })
        .await;
    }

    /// Ends the primary without a clean shutdown, as after a failure: it recovers when it runs again.
    pub async fn stop_at_once(&mut self) {
        self.stop(self.primary).await;
    }

    async fn stop(&mut self, number: usize) {
        let process = self.nodes[number].process.take();
        let mut process = process.expect("a database that runs");
        let id = process.id().expect("a running process").to_string();
        run(Path::new("/"), "kill", &["-QUIT", &id]);
        process.wait().await.expect("it ends");
    }

    /// Adds a standby, from now on the one that every commit of the primary waits for.
    pub async fn add_standby(&mut self) {
        let standby = 1 - self.primary;
        let primary = self.address();
        let port = primary.port();
        let copied = self
            .command("pg_basebackup", standby)
            .args(["--pgdata", &self.nodes[standby].data.to_string_lossy()])
            .args([
                "--dbname",
                &format!("host=127.0.0.1 port={port} user={}", Self::USER),
            ])
            .args(["--write-recovery-conf", "--checkpoint=fast", "--no-sync"])
            .status()
            .await;
        let is_copied = copied.is_ok_and(|status| status.success());
        assert!(is_copied, "pg_basebackup failed");
        self.serve(standby).await;
        let client = self.client().await;
        follows(&client, "state = 'streaming'").await;
        for sql in [
            "ALTER SYSTEM SET synchronous_standby_names = '*'",
            "SELECT pg_reload_conf()",
        ] {
            client.batch_execute(sql).await.expect("a setting");
        }
        follows(&client, "sync_state = 'sync'").await;
    }

    /// Ends the standby without a clean shutdown: commits of the primary wait for it.
    pub async fn stop_standby(&mut self) {
        self.stop(1 - self.primary).await;
    }

    /// Serves the standby again, and waits until it answers.
    pub async fn run_standby(&mut self) {
        self.serve(1 - self.primary).await;
    }

    /// Makes the standby the primary. Commits wait for no standby until one is added.
    pub async fn promote(&mut self) {
        self.primary = 1 - self.primary;
        let standby = self.client().await;
        let promoted = standby.query_one("SELECT pg_promote()", &[]).await;
        let promoted: bool = promoted.expect("a standby").get(0);
        assert!(promoted, "the standby was not promoted");
    }

    /// Ends the primary that was, and makes it the standby of the one that is.
    pub async fn follow(&mut self) {
        let former = 1 - self.primary;
        if self.nodes[former].process.is_some() {
            self.stop(former).await;
        }
        std::fs::remove_dir_all(&self.nodes[former].data).expect("the data of a primary");
        self.add_standby().await;
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

    /// A connection of its own to the primary.
    pub async fn client(&self) -> Client {
        connect(self.address()).await.expect("a connection")
    }

    /// A program of PostgreSQL on the data of a node, as a user that it accepts.
    fn command(&self, program: &str, number: usize) -> Command {
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
            .env("PGDATA", &self.nodes[number].data)
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .kill_on_drop(true);
        command
    }
}

async fn connect(address: SocketAddr) -> Option<Client> {
    let url = format!(
        "postgres://{}@{address}/postgres?sslmode=disable",
        Database::USER
    );
    let (client, connection) = tokio_postgres::connect(&url, NoTls).await.ok()?;
    tokio::spawn(connection);
    Some(client)
}

/// Waits until a standby follows the primary so.
async fn follows(primary: &Client, how: &str) {
    let sql = format!("SELECT FROM pg_stat_replication WHERE {how}");
    eventually("a standby follows", || async {
        let rows = primary.query(&sql, &[]).await.expect("an answer");
        (!rows.is_empty()).then_some(())
    })
    .await;
}
