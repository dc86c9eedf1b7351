//! The program, and its runs as a client of a server.

use std::net::SocketAddr;
use std::process::Stdio;

use serde_json::Value;
use tokio::process::Command;

use crate::within;

/// The result of a run of the program.
#[derive(Debug)]
pub struct Program {
    pub exit_code: Option<i32>,
    pub output: String,
    pub errors: String,
}

impl Program {
    /// The path of the program. Cargo gives it to the tests and benches of the program's package when it runs them,
    /// since version 1.94 (https://github.com/rust-lang/cargo/pull/16421).
    pub fn path() -> String {
        std::env::var("CARGO_BIN_EXE_desktop-images").expect("a test that cargo runs")
    }

    /// The program with arguments, in words, ready to run.
    pub fn command(address: SocketAddr, arguments: &str) -> Command {
        let mut command = Command::new(Self::path());
        command
            .env("DESKTOP_IMAGES_ENDPOINT", format!("http://{address}"))
            .args(arguments.split(' '))
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// Runs the program to its end.
    pub async fn run(address: SocketAddr, arguments: &str) -> Self {
        let ended = Self::command(address, arguments).output();
        let ended = within("the program ends", ended).await.expect("it runs");
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        Self {
            exit_code: ended.status.code(),
            output: text(ended.stdout),
            errors: text(ended.stderr),
        }
    }

    /// The output of a run that succeeded.
    pub fn succeeded(self) -> String {
        assert_eq!(self.exit_code, Some(0), "{}", self.errors);
        self.output
    }

    /// The same as JSON.
    pub fn json(self) -> Value {
        serde_json::from_str(&self.succeeded()).expect("JSON")
    }
}
