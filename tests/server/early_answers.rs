//! Requests that are answered before the end of their body: the answer arrives, whatever their client
//! still sends.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use test_support::{Disk, Fill, TestServer, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const MIB: usize = 1 << 20;

/// Method, path, headers and status of requests that are answered by their head.
const ANSWERED: [(&str, &str, &str, u16); 14] = [
    // Of uploads.
    ("POST", "/compute/v1/images:upload", "", 400),
    (
        "POST",
        "/compute/v1/images:upload?folderId=f&name=taken",
        "",
        409,
    ),
    ("PUT", "/compute/v1/images:upload?folderId=f", "", 405),
    ("DELETE", "/compute/v1/images:upload", "", 405),
    // By the guard.
    (
        "POST",
        "/compute/v1/images:upload?folderId=f",
        "Host: evil.example",
        403,
    ),
    (
        "POST",
        "/compute/v1/images",
        "Origin: https://evil.example",
        403,
    ),
    // Of paths and methods that are not served.
    ("POST", "/nothing", "", 404),
    ("PUT", "/", "", 404),
    ("POST", "/openapi.json", "", 405),
    ("PUT", "/compute/v1/images", "", 405),
    ("POST", "/cloud-desktop/v1/images/x:download", "", 405),
    // With a body where none belongs.
    ("GET", "/cloud-desktop/v1/images/x:download", "", 404),
    // Of bodies that are no JSON, or too much of it.
    (
        "POST",
        "/cloud-desktop/v1/images:copy",
        "Content-Type: application/zip",
        415,
    ),
    (
        "POST",
        "/cloud-desktop/v1/images:copy",
        "Content-Encoding: br",
        415,
    ),
];

/// The same, where the size of the body is what is wrong.
const TOO_LARGE: [(&str, &str, &str, u16); 2] = [
    ("POST", "/cloud-desktop/v1/images:copy", "", 413),
    ("POST", "/grpc.health.v1.Health/Check", "", 413),
];

async fn server() -> TestServer {
    let server = TestServer::start().await;
    let disk = Disk::mbr(1, Fill::Sparse(1));
    server.compute_image("f", "taken", &disk).await;
    server
}

fn head(address: SocketAddr, request: (&str, &str, &str, u16), framing: &str) -> String {
    let (method, path, header, _) = request;
    let host = match header.starts_with("Host:") {
        true => String::new(),
        false => format!("Host: {address}\r\n"),
    };
    let header = match header {
        "" => String::new(),
        header => format!("{header}\r\n"),
    };
    format!("{method} {path} HTTP/1.1\r\n{host}{header}{framing}\r\n\r\n")
}

/// The head and the body of the next answer on a connection.
async fn answer(stream: &mut TcpStream) -> (String, String) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.expect("an answer"));
    }
    let head = String::from_utf8(head).expect("text").to_lowercase();
    let length = head
        .split_once("content-length: ")
        .and_then(|(_, rest)| rest.split("\r\n").next()?.parse().ok())
        .unwrap_or(0);
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.expect("a whole answer");
    (head, String::from_utf8(body).expect("text"))
}

fn status(head: &str) -> u16 {
    head["http/1.1 ".len()..][..3].parse().expect("a status")
}

/// Sends a whole request before it reads, and then asks something else over the same connection.
async fn send_all_then_read(
    address: SocketAddr,
    request: (&str, &str, &str, u16),
    size: usize,
    chunked: bool,
) {
    let what = format!("{request:?}, {} MiB, chunked: {chunked}", size / MIB);
    let framing = match chunked {
        true => "Transfer-Encoding: chunked".to_owned(),
        false => format!("Content-Length: {size}"),
    };
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    let piece = vec![b'{'; MIB];
    let sending = async {
        stream
            .write_all(head(address, request, &framing).as_bytes())
            .await?;
        for _ in 0..size / MIB {
            if chunked {
                stream.write_all(format!("{MIB:x}\r\n").as_bytes()).await?;
            }
            stream.write_all(&piece).await?;
            if chunked {
                stream.write_all(b"\r\n").await?;
            }
        }
        if chunked {
            stream.write_all(b"0\r\n\r\n").await?;
        }
        Ok::<_, std::io::Error>(())
    };
    let sent = within("the body is taken", sending).await;
    sent.unwrap_or_else(|error| panic!("{what}: {error}"));
    let (first, body) = within("the answer comes", answer(&mut stream)).await;
    assert_eq!(status(&first), request.3, "{what}: {first}{body}");
    let next = format!("GET /openapi.json HTTP/1.1\r\nHost: {address}\r\n\r\n");
    stream.write_all(next.as_bytes()).await.expect("it is open");
    let (next, _) = within("the next answer comes", answer(&mut stream)).await;
    assert_eq!(status(&next), 200, "{what}: {next}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_sends_all_before_it_reads_gets_every_answer() {
    let server = server().await;
    for request in ANSWERED.into_iter().chain(TOO_LARGE) {
        for chunked in [false, true] {
            send_all_then_read(server.address, request, 16 * MIB, chunked).await;
        }
    }
    for size in [1, 96] {
        send_all_then_read(server.address, ANSWERED[0], size * MIB, false).await;
        send_all_then_read(server.address, ANSWERED[6], size * MIB, true).await;
    }
}

#[tokio::test]
async fn who_asks_for_leave_to_send_what_is_refused_is_not_told_to_continue() {
    let server = server().await;
    for request in ANSWERED.into_iter().chain(TOO_LARGE) {
        let framing = "Content-Length: 100000000\r\nExpect: 100-continue";
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let head = head(server.address, request, framing);
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut all = Vec::new();
        let read = within("the connection ends", stream.read_to_end(&mut all)).await;
        read.unwrap_or_else(|error| panic!("{request:?}: {error}"));
        let all = String::from_utf8(all).expect("text").to_lowercase();
        assert_eq!(status(&all), request.3, "{request:?}: {all}");
        assert!(!all.contains("http/1.1 100"), "{request:?}: {all}");
        assert!(
            all.contains("\r\nconnection: close\r\n"),
            "{request:?}: {all}"
        );
        // One that begins to send all the same is not cut off while it does.
        for _ in 0..64 {
            stream.write_all(&[0; 64 << 10]).await.expect("it is taken");
        }
    }
    // One whose head is in order is.
    let disk = Disk::mbr(1, Fill::Sparse(2));
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let framing = format!("Content-Length: {}\r\nExpect: 100-continue", disk.len());
    let request = ("POST", "/compute/v1/images:upload?folderId=f", "", 200);
    let head = head(server.address, request, &framing);
    stream.write_all(head.as_bytes()).await.unwrap();
    let (go_on, _) = within("leave to send comes", answer(&mut stream)).await;
    assert_eq!(status(&go_on), 100, "{go_on}");
    stream.write_all(&disk).await.unwrap();
    let (done, body) = within("the answer comes", answer(&mut stream)).await;
    assert_eq!(status(&done), 200, "{body}");
}

#[tokio::test]
async fn over_http2_no_stream_is_reset_before_its_client_has_ended_it() {
    let server = server().await;
    let connection = TcpStream::connect(server.address).await.unwrap();
    let (requests, connection) = h2::client::handshake(connection).await.unwrap();
    tokio::spawn(connection);
    let mut requests = requests.ready().await.unwrap();
    let grpc = (
        "POST",
        "/desktopimages.v1.Nothing/Get",
        "Content-Type: application/grpc",
        200,
    );
    for (method, path, header, status) in ANSWERED.into_iter().chain(TOO_LARGE).chain([grpc]) {
        let what = format!("{method} {path} {header}");
        let (name, value) = header.split_once(": ").unwrap_or(("x-nothing", ""));
        if name == "Host" {
            continue;
        }
        let request = http::Request::builder()
            .method(method)
            .uri(server.url(path))
            .header(name, value)
            .body(())
            .unwrap();
        let (answer, mut body) = requests.send_request(request, false).unwrap();
        // Much after the answer: it waits for nothing where the head decides.
        let mut answer = Box::pin(answer);
        let mut left = 24 * MIB;
        let mut answered = None;
        while left > 0 {
            body.reserve_capacity(MIB.min(left));
            let sending = async {
                let capacity = std::future::poll_fn(|context| body.poll_capacity(context)).await;
                let capacity = capacity.expect("no reset").expect("no reset");
                let piece = Bytes::from(vec![0; capacity.min(left)]);
                left -= piece.len();
                body.send_data(piece, left == 0).expect("no reset");
            };
            tokio::select! {
                got = &mut answer, if answered.is_none() => answered = Some(got),
                () = within(&what, sending) => {}
            }
        }
        let answered = match answered {
            Some(answered) => answered,
            None => within(&what, answer).await,
        };
        assert_eq!(answered.expect("an answer").status(), status, "{what}");
    }
}

#[tokio::test]
async fn what_cannot_be_read_to_its_end_is_answered_and_closed_slowly() {
    let server = server().await;
    let mut stalled = Vec::new();
    let open = async |framing: &str| {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let head = head(server.address, ANSWERED[0], framing);
        stream.write_all(head.as_bytes()).await.unwrap();
        let (head, _) = within("the answer comes", answer(&mut stream)).await;
        assert_eq!(status(&head), ANSWERED[0].3);
        let closes = head.contains("\r\nconnection: close\r\n");
        (stream, closes)
    };
    // As many as are waited for at a time, and larger than any.
    for _ in 0..8 {
        let (stream, closes) = open("Content-Length: 1000000").await;
        assert!(!closes, "it may go on");
        stalled.push(stream);
    }
    let too_large = format!("Content-Length: {}", (16_u64 << 30) + 1);
    for framing in [
        "Content-Length: 1000000",
        "Transfer-Encoding: chunked",
        &too_large,
    ] {
        if framing == too_large {
            for mut stream in stalled.drain(..) {
                stream.write_all(&vec![0; 1_000_000]).await.unwrap();
                let next = format!(
                    "GET /openapi.json HTTP/1.1\r\nHost: {}\r\n\r\n",
                    server.address
                );
                stream.write_all(next.as_bytes()).await.unwrap();
                assert_eq!(status(&answer(&mut stream).await.0), 200);
            }
        }
        let (mut stream, closes) = open(framing).await;
        assert!(
            closes,
            "{framing}: the answer says that the connection ends"
        );
        let rest = within("it ends", stream.read_to_end(&mut Vec::new())).await;
        assert!(matches!(rest, Ok(0)), "{framing}: {rest:?}");
        // What is on its way is taken for a while, so that it takes no answer away.
        for _ in 0..16 {
            stream.write_all(&[0; 64 << 10]).await.expect("it is taken");
        }
        let cut = async {
            while stream.write_all(&[0; 1000]).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        within("it is closed at last", cut).await;
    }
}

#[tokio::test]
async fn a_request_that_is_no_http_gets_its_answer_too() {
    let server = server().await;
    let long = format!("GET / HTTP/1.1\r\nHost: a\r\nX-Long: {}", "x".repeat(MIB));
    for (head, expected) in [
        ("POST /a b HTTP/1.1\r\nHost: a\r\n", "http/1.1 400"),
        (
            "POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
            "http/1.1 400",
        ),
        (&long, "http/1.1 431"),
    ] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        for _ in 0..16 {
            stream
                .write_all(&[b'x'; 64 << 10])
                .await
                .expect("it is taken");
        }
        let mut all = Vec::new();
        within("it ends", stream.read_to_end(&mut all))
            .await
            .expect("an answer");
        let all = String::from_utf8(all).expect("text").to_lowercase();
        assert!(all.starts_with(expected), "{expected}: {all}");
    }
}
