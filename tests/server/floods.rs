//! Floods of frames, headers and connections: they end their own connection, and others are served meanwhile.

use std::time::{Duration, Instant};

use test_support::{Clients, TestServer, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const QUOTAS: &str = "/desktop-images/v1/quotas";

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const ENHANCE_YOUR_CALM: u32 = 0xb;

/// GET / of localhost, in HPACK.
const REQUEST: &[u8] = b"\x82\x86\x84\x41\x09localhost";

/// A frame of HTTP/2 (RFC 9113, section 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
    [&head, payload].concat()
}

/// A connection of HTTP/2 of which each byte is written by hand.
struct Raw(TcpStream);

impl Raw {
    async fn connect(server: &Clients) -> Self {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        let begin = [&preface[..], &frame(SETTINGS, 0, 0, &[])].concat();
        stream.write_all(&begin).await.unwrap();
        Self(stream)
    }

    /// The next frame: kind and payload. None at the end.
    async fn next(&mut self) -> Option<(u8, Vec<u8>)> {
        let mut head = [0; 9];
        within("a frame", self.0.read_exact(&mut head)).await.ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        within("a frame", self.0.read_exact(&mut payload))
            .await
            .ok()?;
        Some((head[3], payload))
    }

    /// The error with which the server ends the connection; none where it is cut off.
    async fn error(&mut self) -> Option<u32> {
        while let Some((kind, payload)) = self.next().await {
            if kind == GOAWAY {
                return Some(u32::from_be_bytes(payload[4..8].try_into().unwrap()));
            }
        }
        None
    }
}

/// Asks on a new connection, which must not take long.
async fn is_served(server: &Clients) {
    let begun = Instant::now();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let reply = within("a reply", client.get(server.url(QUOTAS)).send()).await;
    assert_eq!(reply.unwrap().status(), 200);
    let waited = begun.elapsed();
    assert!(waited < Duration::from_secs(5), "{waited:?}");
}

#[tokio::test]
async fn the_limits_of_a_connection_are_announced() {
    let server = TestServer::start().await;
    let mut raw = Raw::connect(&server).await;
    let (kind, settings) = raw.next().await.unwrap();
    assert_eq!(kind, SETTINGS);
    let value = |id: u16| {
        let mut settings = settings.chunks(6);
        let found = settings.find(|it| it[..2] == id.to_be_bytes())?;
        Some(u32::from_be_bytes(found[2..].try_into().unwrap()))
    };
    // MAX_CONCURRENT_STREAMS and MAX_HEADER_LIST_SIZE.
    assert_eq!((value(3), value(6)), (Some(200), Some(16 << 10)));
}

#[tokio::test]
async fn a_flood_of_resets_ends_its_connection() {
    let server = TestServer::start().await;
    let mut raw = Raw::connect(&server).await;
    let mut flood = Vec::new();
    for number in 0..2000u32 {
        let stream = 2 * number + 1;
        // Header fields and streams both end.
        flood.extend(frame(HEADERS, 5, stream, REQUEST));
        flood.extend(frame(RST_STREAM, 0, stream, &8u32.to_be_bytes()));
    }
    // The server may close before it has taken all.
    let _ = raw.0.write_all(&flood).await;
    is_served(&server).await;
    assert_eq!(raw.error().await, Some(ENHANCE_YOUR_CALM));
}

#[tokio::test]
async fn streams_that_are_wrong_again_and_again_end_their_connection() {
    let server = TestServer::start().await;
    let mut raw = Raw::connect(&server).await;
    let mut flood = Vec::new();
    for number in 0..2000u32 {
        let stream = 2 * number + 1;
        flood.extend(frame(HEADERS, 4, stream, REQUEST));
        // No window grows by nothing: an error of the stream.
        flood.extend(frame(WINDOW_UPDATE, 0, stream, &[0; 4]));
    }
    let _ = raw.0.write_all(&flood).await;
    is_served(&server).await;
    // However it ends, it ends.
    raw.error().await;
}

#[tokio::test]
async fn control_frames_of_a_client_that_reads_nothing_hold_no_other() {
    let server = TestServer::start_with(|config| {
        config.transfers.unread = Duration::from_millis(500);
    })
    .await;
    for control in [
        frame(PING, 0, 0, &[7; 8]),
        frame(SETTINGS, 0, 0, &[]),
        frame(DATA, 0, 1, &[]),
    ] {
        let mut raw = Raw::connect(&server).await;
        raw.0
            .write_all(&frame(HEADERS, 4, 1, REQUEST))
            .await
            .unwrap();
        let flood = control.repeat(1000);
        let written = async {
            // The server stops to read, or ends the connection.
            for _ in 0..1000 {
                let stalled =
                    tokio::time::timeout(Duration::from_millis(200), raw.0.write_all(&flood));
                if !matches!(stalled.await, Ok(Ok(()))) {
                    return;
                }
            }
        };
        within("the flood ends", written).await;
        is_served(&server).await;
    }
}

#[tokio::test]
async fn headers_have_bounds() {
    let server = TestServer::start().await;
    for (name, length, count, status) in [
        ("small", 100, 50, 200),
        ("large", 30 << 10, 1, 200),
        ("larger than all", 200 << 10, 1, 431),
        ("many", 1, 150, 431),
    ] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let value = "a".repeat(length);
        let headers: String = (0..count)
            .map(|it| format!("x-{it}: {value}\r\n"))
            .collect();
        let request = format!(
            "GET {QUOTAS} HTTP/1.1\r\nhost: localhost\r\n{headers}connection: close\r\n\r\n"
        );
        let _ = stream.write_all(request.as_bytes()).await;
        let mut reply = Vec::new();
        let _ = within("a reply", stream.read_to_end(&mut reply)).await;
        let reply = String::from_utf8_lossy(&reply);
        assert!(
            reply.starts_with(&format!("HTTP/1.1 {status} ")),
            "{name}: {reply}"
        );
    }
    let two = reqwest::Client::builder()
        .no_proxy()
        .http2_prior_knowledge();
    let two = two.build().unwrap();
    for (length, status) in [(8 << 10, 200), (20 << 10, 431)] {
        let request = two
            .get(server.url(QUOTAS))
            .header("x-large", "a".repeat(length));
        let reply = within("a reply", request.send()).await.unwrap();
        assert_eq!(reply.status(), status, "{length}");
    }
}

#[tokio::test]
async fn connections_have_a_number_and_make_way_for_new_ones() {
    const MOST: usize = 10;
    let server = TestServer::start_with(|config| config.transfers.connections = MOST).await;
    let mut idle = Vec::new();
    for _ in 0..MOST {
        idle.push(TcpStream::connect(server.address).await.unwrap());
    }
    is_served(&server).await;
    let mut first = idle.remove(0);
    let read = within("it is closed", first.read(&mut [0])).await;
    assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
    drop(idle);
    // Those that have begun a request stay; a new one has no room.
    let mut busy = Vec::new();
    for _ in 0..MOST {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let head =
            "GET /desktop-images/v1/auditEvents?follow=true HTTP/1.1\r\nhost: localhost\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut byte = [0];
        assert_eq!(
            within("an answer", stream.read(&mut byte)).await.unwrap(),
            1
        );
        busy.push(stream);
    }
    let mut late = TcpStream::connect(server.address).await.unwrap();
    let read = within("it is closed", late.read(&mut [0])).await;
    assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
    drop(busy.pop());
    test_support::eventually("there is room", || async {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let reply = client.get(server.url(QUOTAS)).send().await;
        reply.is_ok().then_some(())
    })
    .await;
}
