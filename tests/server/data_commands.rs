//! Commands that work on data folders, run as a user does.

use std::process::Stdio;
use std::time::Duration;

use rand::Rng;
use serde_json::Value;
use test_support::{Program, within};
use tokio::process::Command;

/// A command of the program, to be printed as JSON. It ends with its handle.
pub fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(Program::path());
    command
        .args(arguments)
        .args(["--format", "json"])
        .kill_on_drop(true);
    command
}

/// The output of a command that succeeds.
pub async fn told(mut command: Command) -> Value {
    let output = within("the command ends", command.output()).await.unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The words of a command that fails.
pub async fn refused(mut command: Command) -> String {
    let output = within("the command ends", command.output()).await.unwrap();
    assert_eq!(output.status.code(), Some(1));
    String::from_utf8(output.stderr).unwrap()
}

/// Runs a command again and again, killed at random moments, until it succeeds, or was killed after all was done. Each time
/// it has longer.
pub async fn killed_until_it_succeeds(
    command: impl Fn() -> Command,
    is_done: impl Fn() -> bool,
) -> usize {
    let mut kills = 0;
    loop {
        let mut command = command();
        let mut child = command.stdout(Stdio::null()).spawn().unwrap();
        let most = 20 * (1 + kills as u64);
        let moment = Duration::from_millis(rand::rng().random_range(1..=most));
        match tokio::time::timeout(moment, child.wait()).await {
            Ok(ended) => {
                assert!(ended.unwrap().success());
                return kills;
            }
            Err(_) => {
                child.kill().await.unwrap();
                kills += 1;
                if is_done() {
                    return kills;
                }
            }
        }
    }
}
