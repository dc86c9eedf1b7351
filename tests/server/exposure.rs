//! Start rules: what a server that other machines reach must say, and who may then connect.

use std::path::Path;
use std::process::Stdio;

use test_support::{Program, ServerProcess, eventually, within};
use tokio::process::Command;

const QUOTAS: &str = "/desktop-images/v1/quotas";

/// The words of a server that does not start.
async fn refused(arguments: &[&str]) -> String {
    let ended = Command::new(Program::path())
        .args(["serve", "--ephemeral"])
        .args(arguments)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let ended = within("it ends", ended).await.unwrap();
    let errors = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(!ended.status.success(), "{arguments:?}: {errors}");
    assert!(ended.stdout.is_empty(), "{arguments:?}");
    errors
}

#[tokio::test]
async fn without_tls_and_identity_other_machines_are_not_served() {
    const TLS: &str = "there is no TLS";
    const IDENTITY: &str = "need not say who they are";
    const HOST: &str = "--allow-host NAME must say";
    for (arguments, expected) in [
        (&["--listen", ":0"][..], &[TLS, IDENTITY][..]),
        (
            &["--listen", "0", "--listen", "0.0.0.0:0"],
            &[TLS, IDENTITY],
        ),
        (&["--listen", ":0", "--insecure-plaintext"], &[IDENTITY]),
        (&["--listen", ":0", "--tls-self-signed"], &[IDENTITY]),
        (
            &["--listen", ":0", "--trusted-proxy", "10.0.0.1"],
            &[IDENTITY],
        ),
        (&["--listen", ":0", "--require-auth"], &[TLS]),
        (
            &["--listen", ":0", "--insecure-allow-anonymous"],
            &[TLS, HOST],
        ),
        (
            &[
                "--listen",
                ":0",
                "--tls-self-signed",
                "--insecure-allow-anonymous",
            ],
            &[HOST],
        ),
    ] {
        let errors = refused(arguments).await;
        for words in [TLS, IDENTITY, HOST] {
            let said = errors.contains(words);
            assert_eq!(said, expected.contains(&words), "{arguments:?}: {errors}");
        }
        assert!(errors.contains("other machines reach"), "{errors}");
    }
}

async fn logged(folder: &Path, words: &str) {
    eventually(words, || async {
        let log = std::fs::read_to_string(folder.join("server.log")).unwrap();
        log.contains(words).then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_is_insecure_is_said_loudly() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = [
        "--listen",
        "0.0.0.0:0",
        "--insecure-plaintext",
        "--insecure-allow-anonymous",
        "--allow-host",
        "images.example",
    ];
    let server = ServerProcess::start_with(folder.path(), &arguments).await;
    for words in [
        "WARN desktop_images::app::exposure: --insecure-plaintext:",
        "WARN desktop_images::app::exposure: --insecure-allow-anonymous:",
        "this server asks for no tokens: whoever reaches the address may do everything",
    ] {
        logged(folder.path(), words).await;
    }
    drop(server);
}

#[tokio::test]
async fn without_tls_only_trusted_proxies_connect() {
    for (proxy, reaches) in [("127.0.0.1", true), ("192.0.2.1", false)] {
        let folder = tempfile::tempdir().unwrap();
        let arguments = [
            "--listen",
            "0.0.0.0:0",
            "--trusted-proxy",
            proxy,
            "--insecure-allow-anonymous",
            "--allow-host",
            "127.0.0.1",
        ];
        // The first listener is on loopback, which is for all.
        let mut command = ServerProcess::serve(Command::new(Program::path()), folder.path());
        command.args(arguments).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut lines = lines(&mut child);
        let mut ports = Vec::new();
        for _ in 0..2 {
            let line = within("it listens", lines.next_line())
                .await
                .unwrap()
                .unwrap();
            ports.push(line.rsplit_once(':').unwrap().1.to_owned());
        }
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let ask = |port: &str| {
            client
                .get(format!("http://127.0.0.1:{port}{QUOTAS}"))
                .send()
        };
        let loopback = within("a reply", ask(&ports[0])).await.unwrap();
        assert_eq!(loopback.status(), 200);
        match within("a reply", ask(&ports[1])).await {
            Ok(reply) => assert!(reaches && reply.status() == 200, "{proxy}: {reply:?}"),
            Err(error) => assert!(!reaches, "{proxy}: {error}"),
        }
        if !reaches {
            logged(folder.path(), "its peer is not among --trusted-proxy").await;
        }
    }
}

fn lines(
    child: &mut tokio::process::Child,
) -> tokio::io::Lines<tokio::io::BufReader<tokio::process::ChildStdout>> {
    use tokio::io::AsyncBufReadExt;
    tokio::io::BufReader::new(child.stdout.take().expect("piped")).lines()
}
