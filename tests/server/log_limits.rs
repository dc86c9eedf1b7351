//! The log at its limits: nobody reads it, or the process ends at once.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;
use test_support::{Disk, Fill, Method, Program, ServerProcess, Transport, may_trace};
use tokio::process::Command;
use tokio::time::timeout;

/// Longer than other tests wait: thousands of requests, on a machine that has other work too.
const BOUND: Duration = Duration::from_secs(180);

#[tokio::test]
async fn a_log_that_nobody_reads_holds_up_no_request_and_says_what_it_lost() {
    const REQUESTS: usize = 12_000;
    let folder = tempfile::tempdir().unwrap();
    let (log, stderr) = std::io::pipe().unwrap();
    let mut command = ServerProcess::serve(Command::new(Program::path()), folder.path());
    command.stderr(stderr);
    let server = ServerProcess::listening(command, folder.path()).await;
    let callers = (0..20).map(|_| async {
        for _ in 0..REQUESTS / 20 {
            let caller = server.caller(Transport::Grpc);
            let request = json!({"imageId": "e3v00000000000000000"});
            caller.call(Method::DesktopGet, request).await.unwrap_err();
        }
    });
    timeout(BOUND, join_all(callers))
        .await
        .expect("all are answered");
    let read = tokio::task::spawn_blocking(move || std::io::read_to_string(log).unwrap());
    server.terminate();
    assert_eq!(server.exit_code().await, Some(0));
    let log = read.await.unwrap();
    let written = log
        .lines()
        .filter(|line| line.contains(" answered "))
        .count();
    let lost: usize = log
        .lines()
        .filter_map(|line| {
            line.split_once("lines of the log were dropped")?
                .1
                .split_once("lines=")
        })
        .map(|(_, lost)| lost.trim().parse::<usize>().unwrap())
        .sum();
    assert!(written < REQUESTS, "{written}");
    assert!(written + lost >= REQUESTS, "{written} and {lost}");
}

#[tokio::test]
async fn the_last_words_of_a_server_whose_commit_failed_are_in_its_log() {
    const TEST: &str = "last words after a failed commit";
    if !may_trace(TEST) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut strace = Command::new("strace");
    strace
        .args(["-D", "-f", "-e", "trace=fdatasync", "-e"])
        .args(["inject=fdatasync:error=EIO:when=100+", "-o", "/dev/null"])
        .arg(Program::path());
    let command = ServerProcess::serve(strace, folder.path());
    let server = ServerProcess::listening(command, folder.path()).await;
    let source = server
        .compute_image("sources", "", &Disk::mbr(1, Fill::Sparse(1)))
        .await;
    let copies = (0..16).map(async |caller: usize| {
        for number in 0.. {
            let name = format!("{caller} {number}");
            let request = json!({"folderId": "f", "name": name, "imageId": source});
            let copied = server
                .caller(Transport::Grpc)
                .call(Method::Copy, request)
                .await;
            if copied.is_err() {
                return number;
            }
        }
        unreachable!("the numbers do not end")
    });
    let copied = timeout(BOUND, join_all(copies)).await;
    let copied: i32 = copied.expect("the server ends").iter().sum();
    assert!(copied > 0);
    assert_eq!(server.exit_code().await, None, "ended by a signal");
    let log = std::fs::read_to_string(folder.path().join("server.log")).unwrap();
    assert!(log.contains("a commit failed; the process ends"), "{log}");
}
