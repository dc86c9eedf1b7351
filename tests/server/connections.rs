//! Connections: how long they are kept, and what becomes of them when descriptors run short.

use std::io::ErrorKind;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;
use test_support::{
    Clients, Disk, Fill, Method, Program, ServerProcess, TestServer, eventually, has_tool, within,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;

const IDLE: Duration = Duration::from_millis(400);

/// Asks for the quotas on a connection that stays; the status of the reply.
async fn ask(stream: &mut TcpStream, path: &str) -> std::io::Result<u16> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut reply = Vec::new();
    loop {
        let read = within("a reply", stream.read_buf(&mut reply)).await?;
        if read == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let text = String::from_utf8_lossy(&reply);
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let length = head.to_lowercase();
        let length = length
            .lines()
            .find_map(|it| it.strip_prefix("content-length: ")?.parse().ok());
        if body.len() >= length.unwrap_or(0) {
            return Ok(head[9..12].parse().expect("a status"));
        }
    }
}

const QUOTAS: &str = "/desktop-images/v1/quotas";

#[tokio::test]
async fn a_connection_is_kept_for_the_idle_timeout() {
    let server = TestServer::start_with(|config| config.idle_timeout = IDLE).await;
    let mut used = TcpStream::connect(server.address).await.unwrap();
    let unused = TcpStream::connect(server.address).await.unwrap();
    let connected = Instant::now();
    // The timeout counts from the last request: who asks again and again outlives who does not ask.
    let outliving = async {
        loop {
            let asked = Instant::now();
            assert_eq!(ask(&mut used, QUOTAS).await.unwrap(), 200);
            match unused.try_read(&mut [0]) {
                Ok(read) => break (asked, read),
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
        }
    };
    let (asked, read) = within("the server closes the unused one", outliving).await;
    assert_eq!(read, 0);
    // Sooner than headers have time: none have begun. The server counts whole milliseconds.
    let lived = connected.elapsed() + Duration::from_millis(2);
    assert!(
        lived >= IDLE && lived < Duration::from_secs(20),
        "{lived:?}"
    );
    let mut rest = Vec::new();
    let read = within("the server closes it", used.read_to_end(&mut rest)).await;
    assert_eq!((read.unwrap(), &*rest), (0, &b""[..]));
    let kept = asked.elapsed() + Duration::from_millis(2);
    assert!(kept >= IDLE, "{kept:?}");
}

#[tokio::test]
async fn an_idle_connection_of_http_2_is_closed_in_words() {
    let server = TestServer::start_with(|config| config.idle_timeout = IDLE).await;
    let stream = TcpStream::connect(server.address).await.unwrap();
    let (mut requests, connection) = h2::client::handshake(stream).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = http::Request::get(server.url(QUOTAS)).body(()).unwrap();
    let (reply, _) = requests.send_request(request, true).unwrap();
    assert_eq!(within("a reply", reply).await.unwrap().status(), 200);
    let begun = Instant::now();
    let ended = within("the server closes it", connection).await.unwrap();
    assert!(ended.is_ok(), "by GOAWAY, without an error: {ended:?}");
    assert!(begun.elapsed() >= IDLE / 2, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn what_takes_longer_than_the_idle_timeout_is_not_idle() {
    let server = TestServer::start_with(|config| config.idle_timeout = IDLE).await;
    let disk = Disk::mbr(1, Fill::Random(1));
    let upload = test_support::SlowUpload::start(&server, "f", "n", &disk[..1000]).await;
    // Connections that are idle from now on are closed, one after the other: so long the upload sends nothing.
    for _ in 0..3 {
        let mut idle = TcpStream::connect(server.address).await.unwrap();
        let read = within("the server closes it", idle.read(&mut [0])).await;
        assert_eq!(read.unwrap(), 0);
    }
    upload.send(&disk[1000..]).await;
    test_support::response(&upload.finish().await);
}

/// A server that may have so many descriptors.
async fn with_descriptors(folder: &Path, count: u32) -> ServerProcess {
    let mut limited = Command::new("prlimit");
    limited.args([&format!("--nofile={count}:{count}"), &Program::path()]);
    // Each try to accept a connection has a line.
    limited.env("RUST_LOG", "info,desktop_images::server::descriptors=debug");
    ServerProcess::listening(ServerProcess::serve(limited, folder), folder).await
}

fn lines(folder: &Path, words: &str) -> usize {
    let log = std::fs::read_to_string(folder.join("server.log")).unwrap();
    log.lines().filter(|line| line.contains(words)).count()
}

#[tokio::test]
async fn idle_connections_make_way_for_new_ones() {
    if !has_tool("idle_connections_make_way_for_new_ones", "prlimit") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let server = with_descriptors(folder.path(), 128).await;
    let mut kept = Vec::new();
    for number in 0..300 {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let status = ask(&mut stream, QUOTAS).await;
        assert_eq!(status.ok(), Some(200), "connection {number}");
        kept.push(stream);
    }
    // The first ones are those that were idle for longest.
    let (mut first, mut last) = (kept.remove(0), kept.pop().unwrap());
    assert!(ask(&mut first, QUOTAS).await.is_err());
    assert_eq!(ask(&mut last, QUOTAS).await.unwrap(), 200);
    server.terminate();
    assert_eq!(server.exit_code().await, Some(0));
}

#[tokio::test]
async fn without_descriptors_requests_are_unavailable_and_that_is_said_once() {
    let test = "without_descriptors_requests_are_unavailable_and_that_is_said_once";
    if !has_tool(test, "prlimit") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let server = with_descriptors(folder.path(), 100).await;
    let disk = Disk::mbr(1, Fill::Random(1));
    let image = server.compute_image("f", "n", &disk).await;
    let copy = server.copied("f", "c", &image).await;
    // A connection that has a request is not closed for others.
    let stream = TcpStream::connect(server.address).await.unwrap();
    let (mut requests, connection) = h2::client::handshake(stream).await.unwrap();
    let connection = tokio::spawn(connection);
    let get = |path: &str| http::Request::get(server.url(path)).body(()).unwrap();
    let events = get("/desktop-images/v1/auditEvents?follow=true");
    let _followed = requests.send_request(events, true).unwrap();
    // Requests that have begun are not idle either.
    let mut busy = Vec::new();
    for _ in 0..150 {
        let mut other = TcpStream::connect(server.address).await.unwrap();
        other.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
        busy.push(other);
    }
    eventually("no connection can be accepted", || async {
        (lines(folder.path(), "no connection can be accepted") > 0).then_some(())
    })
    .await;
    let path = format!("/cloud-desktop/v1/images/{copy}:download");
    // Idle connections that were closed have left a few; a body that is not read keeps its file open.
    let mut held = Vec::new();
    let refused = loop {
        let (reply, _) = requests.send_request(get(&path), true).unwrap();
        let reply = within("a reply", reply).await.unwrap();
        if reply.status() != 200 {
            break reply;
        }
        held.push(reply);
        assert!(held.len() < 100, "there are descriptors");
    };
    assert_eq!(refused.status(), 503);
    assert_eq!(refused.headers()["retry-after"], "1");
    drop(held);
    connection.abort();
    let tries = || lines(folder.path(), "a connection was not accepted");
    let before = tries();
    eventually("more tries to accept one", || async {
        (tries() >= before + 5).then_some(())
    })
    .await;
    assert_eq!(lines(folder.path(), "no connection can be accepted"), 1);
    drop(busy);
    let clients = Clients::new(server.address);
    eventually("there are descriptors again", || async {
        let url = clients.url(&path);
        let reply = clients.http.get(url).send().await.ok()?;
        (reply.status() == 200).then_some(())
    })
    .await;
    server
        .ask(Method::DesktopGet, json!({"imageId": copy}))
        .await;
    server.terminate();
    assert_eq!(server.exit_code().await, Some(0));
}

#[tokio::test]
async fn the_soft_limit_of_descriptors_is_raised() {
    if !has_tool("the_soft_limit_of_descriptors_is_raised", "prlimit") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut limited = Command::new("prlimit");
    limited.args(["--nofile=64:256", &Program::path()]);
    let command = ServerProcess::serve(limited, folder.path());
    let server = ServerProcess::listening(command, folder.path()).await;
    assert_eq!(
        lines(folder.path(), "limit of file descriptors is raised"),
        1
    );
    // More than the soft limit, all of them in use.
    let mut busy = Vec::new();
    for _ in 0..100 {
        let mut other = TcpStream::connect(server.address).await.unwrap();
        other.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
        busy.push(other);
    }
    server.ask(Method::QuotaList, json!({})).await;
    assert_eq!(lines(folder.path(), "no connection can be accepted"), 0);
}
