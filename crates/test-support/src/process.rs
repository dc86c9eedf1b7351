//! The server as a process of its own, to be killed.

use std::fs::File;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::{Clients, Program, postgres_server};

const PATIENCE: Duration = Duration::from_secs(30);
const LISTENING: &str = "Listening on http";

pub struct ServerProcess {
    child: Child,
    pub clients: Clients,
}

impl std::ops::Deref for ServerProcess {
    type Target = Clients;

    fn deref(&self) -> &Clients {
        &self.clients
    }
}

impl ServerProcess {
    /// Runs `desktop-images serve` on the folders `data` and `imports` of `folder`.
    pub async fn start(folder: &Path) -> Self {
        Self::listening(Self::serve(Command::new(Program::path()), folder), folder).await
    }

    /// The same with more arguments.
    pub async fn start_with(folder: &Path, arguments: &[&str]) -> Self {
        let mut command = Self::serve(Command::new(Program::path()), folder);
        command.args(arguments);
        Self::listening(command, folder).await
    }

    /// Adds to the program, or to what runs it, the arguments that `start` gives it. The log is
    /// added to `server.log` in the folder.
    pub fn serve(mut command: Command, folder: &Path) -> Command {
        let imports = folder.join("imports");
        std::fs::create_dir_all(&imports).expect("a folder for imports");
        let log = File::options()
            .create(true)
            .append(true)
            .open(folder.join("server.log"))
            .expect("a log");
        command
            .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(folder.join("data"))
            .arg("--import-dir")
            .arg(imports)
            .args(postgres_server::store_of(folder).map(|url| format!("--store={url}")))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true);
        command
    }

    /// Runs the command until the server listens.
    pub async fn listening(mut command: Command, folder: &Path) -> Self {
        let mut child = command.spawn().expect("the program runs");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let line = timeout(PATIENCE, lines.next_line()).await;
        let line = line.expect("the server listens").expect("readable");
        let address = line.as_deref().and_then(|line| {
            line.strip_prefix(LISTENING)?
                .split_once("://")?
                .1
                .parse()
                .ok()
        });
        let address = address.unwrap_or_else(|| {
            let log = std::fs::read_to_string(folder.join("server.log")).unwrap_or_default();
            panic!("the server ended without listening: {line:?}\n{log}")
        });
        Self {
            child,
            clients: Clients::new(address),
        }
    }

    /// The id of the process.
    pub fn id(&self) -> u32 {
        self.child.id().expect("a running process")
    }

    /// Ends the process without a warning.
    pub async fn kill(mut self) {
        self.child.kill().await.expect("a running process");
    }

    /// Asks the process to end.
    pub fn terminate(&self) {
        self.signal("TERM");
    }

    /// Sends the process a signal, by its name.
    pub fn signal(&self, name: &str) {
        let id = self.id().to_string();
        crate::run(Path::new("/"), "kill", &[&format!("-{name}"), &id]);
    }

    /// The exit code once the process has ended by itself.
    pub async fn exit_code(mut self) -> Option<i32> {
        let ended = timeout(PATIENCE, self.child.wait()).await;
        ended.expect("the process ends").expect("a status").code()
    }
}
