//! Where a server listens: several addresses, Unix sockets, and sockets that systemd passes.

use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;

use desktop_images::app::{Bound, Error, Listen, Server};
use serde_json::{Value, json};
use test_support::{
    Clients, Disk, Fill, Method, Program, ServerProcess, TestServer, has_tool, within,
};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

const QUOTAS: &str = "/desktop-images/v1/quotas";

/// The listener of a free port of loopback.
fn loopback() -> Listen {
    Listen::Tcp(([127, 0, 0, 1], 0).into())
}

fn over(socket: &Path) -> reqwest::Client {
    let client = reqwest::Client::builder().no_proxy();
    client.unix_socket(socket).build().expect("a client")
}

#[tokio::test]
async fn a_server_listens_on_all_places_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("server.sock");
    let server = TestServer::start_with(|config| {
        config.listen = vec![loopback(), Listen::Unix(socket.clone()), loopback()];
    })
    .await;
    let addresses: Vec<_> = server.bound().iter().map(Bound::to_string).collect();
    assert_eq!(addresses.len(), 3, "{addresses:?}");
    assert_eq!(addresses[0], server.address.to_string());
    assert_eq!(addresses[1], format!("unix:{}", socket.display()));

    let disk = Disk::mbr(1, Fill::Random(1));
    let id = server.compute_image("f", "n", &disk).await;
    let copy = server.copied("f", "c", &id).await;
    let second = Clients::new(addresses[2].parse().unwrap());
    assert!(second.downloaded(&copy).await == disk);
    let url = format!("http://localhost/cloud-desktop/v1/images/{copy}:download");
    let reply = over(&socket).get(url).send().await.unwrap();
    assert!(reply.bytes().await.unwrap() == disk[..]);
}

#[tokio::test]
async fn a_unix_socket_takes_http_of_both_versions_and_guards_against_foreign_hosts() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("server.sock");
    let _server =
        TestServer::start_with(|config| config.listen = vec![Listen::Unix(socket.clone())]).await;
    let mode = std::fs::metadata(&socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    for (host, status) in [("localhost", 200), ("evil.example", 403)] {
        let request = over(&socket).get(format!("http://{host}{QUOTAS}"));
        assert_eq!(request.send().await.unwrap().status(), status, "{host}");
    }
    let two = reqwest::Client::builder()
        .unix_socket(socket.as_path())
        .http2_prior_knowledge()
        .build();
    let request = two.unwrap().get(format!("http://localhost{QUOTAS}"));
    let reply = request.send().await.unwrap();
    assert_eq!(
        (reply.status().as_u16(), reply.version()),
        (200, http::Version::HTTP_2)
    );
}

#[tokio::test]
async fn the_file_of_a_unix_socket_is_the_servers_own() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("server.sock");
    let places = vec![Listen::Unix(socket.clone())];
    // A socket that nobody listens on is replaced.
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    assert!(socket.exists());
    let mut server = TestServer::start_with(|config| config.listen = places.clone()).await;
    assert_eq!(
        over(&socket)
            .get(format!("http://localhost{QUOTAS}"))
            .send()
            .await
            .unwrap()
            .status(),
        200
    );

    // One that somebody listens on is not, nor is another file.
    let file = folder.path().join("file");
    std::fs::write(&file, "mine").unwrap();
    for (path, words) in [(&socket, "in use"), (&file, "no socket")] {
        let mut config = server.config();
        config.listen = vec![Listen::Unix(path.clone())];
        config.data = desktop_images::app::Data::Ephemeral;
        let refusal = Server::start(config).await.err().expect("a refusal");
        assert!(matches!(refusal, Error::Listen { .. }), "{refusal}");
        let words_are_there = format!("{refusal}").contains(words);
        assert!(words_are_there, "{refusal}");
    }
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "mine");
    assert_eq!(
        over(&socket)
            .get(format!("http://localhost{QUOTAS}"))
            .send()
            .await
            .unwrap()
            .status(),
        200
    );
    server.stop().await;
    assert!(!socket.exists());
}

#[tokio::test]
async fn curl_speaks_to_a_unix_socket() {
    if !has_tool("curl_speaks_to_a_unix_socket", "curl") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("server.sock");
    let _server =
        TestServer::start_with(|config| config.listen = vec![Listen::Unix(socket.clone())]).await;
    let output = Command::new("curl")
        .args(["--silent", "--fail-with-body", "--unix-socket"])
        .arg(&socket)
        .arg(format!("http://localhost{QUOTAS}"))
        .output();
    let output = within("curl ends", output).await.unwrap();
    assert!(output.status.success(), "{output:?}");
    let quotas: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(quotas["quotas"].is_array(), "{quotas}");
}

/// The program with a socket as its file descriptor 3, as systemd passes it.
fn with_passed(socket: OwnedFd, arguments: &[&str]) -> Command {
    let mut command = Command::new("sh");
    let script = "exec 3<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" \"$@\"";
    command
        .args(["-c", script, &Program::path(), "serve", "--ephemeral"])
        .args(arguments)
        .stdin(Stdio::from(socket))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

#[tokio::test]
async fn sockets_that_systemd_passes_are_served() {
    let passed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = passed.local_addr().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let command = with_passed(passed.into(), &["--listen", "systemd"]);
    let server = ServerProcess::listening(command, folder.path()).await;
    assert_eq!(server.address, address);
    server.ask(Method::QuotaList, json!({})).await;

    let path = folder.path().join("passed.sock");
    let passed = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let mut child = with_passed(passed.into(), &["--listen", "systemd"])
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = within("it listens", lines.next_line()).await.unwrap();
    assert_eq!(
        line.unwrap(),
        format!("Listening on unix:{}", path.display())
    );
    let url = format!("http://localhost{QUOTAS}");
    assert_eq!(over(&path).get(url).send().await.unwrap().status(), 200);
    let id = child.id().expect("it runs").to_string();
    test_support::run(Path::new("/"), "kill", &["-TERM", &id]);
    assert!(within("it ends", child.wait()).await.unwrap().success());
    assert!(path.exists(), "it is systemd's");
}

#[tokio::test]
async fn without_sockets_of_systemd_there_is_nothing_to_listen_on() {
    let refused = Command::new(Program::path())
        .args(["serve", "--ephemeral", "--listen", "systemd"])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let refused = within("it ends", refused).await.unwrap();
    assert_eq!(refused.status.code(), Some(1));
    let errors = String::from_utf8_lossy(&refused.stderr);
    assert!(errors.contains("LISTEN_FDS"), "{errors}");
}
