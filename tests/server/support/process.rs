//! The server as a process of its own, to be killed.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::Clients;

const PATIENCE: Duration = Duration::from_secs(30);
const HOST: &str = "127.0.0.1:";

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
        let imports = folder.join("imports");
        std::fs::create_dir_all(&imports).expect("a folder for imports");
        let mut child = Command::new(env!("CARGO_BIN_EXE_desktop-images"))
            .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(folder.join("data"))
            .arg("--import-dir")
            .arg(imports)
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the program runs");
        let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
        let address = async {
            let mut said = String::new();
            while let Some(line) = lines.next_line().await.expect("readable") {
                if let Some(address) = address_in(&line) {
                    return address;
                }
                said.push_str(&line);
                said.push('\n');
            }
            panic!("the server ended without listening: {said}")
        };
        let address = timeout(PATIENCE, address)
            .await
            .expect("the server listens");
        // A full pipe would stop the server.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Self {
            child,
            clients: Clients::new(address),
        }
    }

    /// Ends the process without a warning.
    pub async fn kill(mut self) {
        self.child.kill().await.expect("a running process");
    }

    /// Asks the process to end.
    pub fn terminate(&self) {
        let id = self.child.id().expect("a running process").to_string();
        super::run(Path::new("/"), "kill", &["-TERM", &id]);
    }

    /// The exit code once the process has ended by itself.
    pub async fn exit_code(mut self) -> Option<i32> {
        let ended = timeout(PATIENCE, self.child.wait()).await;
        ended.expect("the process ends").expect("a status").code()
    }
}

fn address_in(line: &str) -> Option<std::net::SocketAddr> {
    let port: String = line
        .split_once(HOST)?
        .1
        .chars()
        .take_while(char::is_ascii_digit)
        .collect();
    format!("{HOST}{port}").parse().ok()
}
