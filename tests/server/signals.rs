//! Signals: which end a server, how, and which do not.

use std::path::Path;
use std::process::Stdio;

use serde_json::json;
use test_support::{
    Disk, Fill, Method, Program, ServerProcess, SlowUpload, eventually, has_tool, run, within,
};
use tokio::process::Command;

fn log(folder: &Path) -> String {
    std::fs::read_to_string(folder.join("server.log")).unwrap_or_default()
}

async fn answers(server: &ServerProcess) {
    server.ask(Method::QuotaList, json!({})).await;
}

#[tokio::test]
async fn without_a_terminal_a_hangup_is_logged_and_ignored() {
    let folder = tempfile::tempdir().unwrap();
    let server = ServerProcess::start(folder.path()).await;
    for signal in ["HUP", "USR1", "USR2", "HUP"] {
        let lines = log(folder.path()).matches("is ignored").count();
        server.signal(signal);
        eventually("the signal is logged", || async {
            (log(folder.path()).matches("is ignored").count() > lines).then_some(())
        })
        .await;
        assert!(log(folder.path()).contains(&format!("SIG{signal}")));
        answers(&server).await;
    }
    server.terminate();
    assert_eq!(server.exit_code().await, Some(0));
}

#[tokio::test]
async fn a_terminal_that_is_closed_lets_the_server_drain() {
    let test = "a_terminal_that_is_closed_lets_the_server_drain";
    if !has_tool(test, "script") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    // The terminal's own process gets the signal.
    let line = format!(
        "exec {} serve --listen 0 --data-dir {} 2>{}",
        Program::path(),
        at("data"),
        at("server.log")
    );
    let mut terminal = Command::new("script")
        .args(["-q", "-e", "-c", &line, "/dev/null"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("script runs");
    eventually("the server listens", || async {
        log(folder.path()).contains("listening").then_some(())
    })
    .await;
    terminal.kill().await.expect("it ran");
    eventually("the server drains and stops", || async {
        log(folder.path()).contains("stopped").then_some(())
    })
    .await;
}

#[tokio::test]
async fn each_order_to_stop_lets_requests_end_and_a_second_one_does_not() {
    for signal in ["TERM", "INT", "QUIT"] {
        let folder = tempfile::tempdir().unwrap();
        let server = ServerProcess::start(folder.path()).await;
        let disk = Disk::mbr(1, Fill::Random(1));
        let upload = SlowUpload::start(&server, "f", "n", &disk[..300_000]).await;
        server.signal(signal);
        eventually("it stops", || async {
            log(folder.path()).contains("another signal").then_some(())
        })
        .await;
        upload.send(&disk[300_000..]).await;
        let ended = upload.finish().await;
        assert_eq!(ended["response"]["status"], "READY", "{signal}: {ended}");
        assert_eq!(server.exit_code().await, Some(0), "{signal}");

        let server = ServerProcess::start(folder.path()).await;
        let upload = SlowUpload::start(&server, "f", "m", &disk[..300_000]).await;
        let orders = log(folder.path()).matches("another signal").count();
        server.signal(signal);
        eventually("it stops", || async {
            let seen = log(folder.path()).matches("another signal").count();
            (seen > orders).then_some(())
        })
        .await;
        server.signal(signal);
        let ended = within("it ends at once", server.exit_code()).await;
        assert_eq!(ended, Some(130), "{signal}");
        upload.hang_up();
    }
}

#[tokio::test]
async fn a_log_that_nobody_reads_ends_nothing() {
    let test = "a_log_that_nobody_reads_ends_nothing";
    if !has_tool(test, "bash") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut shell = Command::new("bash");
    // What reads the standard error ends before the first line comes.
    shell.args(["-c", "exec \"$@\" 2> >(true)", "bash", &Program::path()]);
    let command = ServerProcess::serve(shell, folder.path());
    let server = ServerProcess::listening(command, folder.path()).await;
    for _ in 0..20 {
        answers(&server).await;
    }
    let disk = Disk::mbr(1, Fill::Sparse(1));
    let image = server.compute_image("f", "n", &disk).await;
    server.copied("f", "c", &image).await;
    server.terminate();
    assert_eq!(server.exit_code().await, Some(0));
}

#[tokio::test]
async fn an_order_to_stop_that_comes_early_is_obeyed() {
    let folder = tempfile::tempdir().unwrap();
    for _ in 0..5 {
        let mut child = ServerProcess::serve(Command::new(Program::path()), folder.path())
            .spawn()
            .unwrap();
        let id = child.id().expect("it runs").to_string();
        // From the moment on at which it takes signals, it ends well.
        eventually("it takes signals", || async {
            let status = std::fs::read_to_string(format!("/proc/{id}/status")).ok()?;
            let caught = status
                .lines()
                .find_map(|line| line.strip_prefix("SigCgt:"))?;
            let caught = u64::from_str_radix(caught.trim(), 16).ok()?;
            (caught & (1 << 14) != 0).then_some(())
        })
        .await;
        run(folder.path(), "kill", &["-TERM", &id]);
        let ended = within("it ends", child.wait()).await.unwrap();
        assert_eq!(ended.code(), Some(0), "{}", log(folder.path()));
    }
}
