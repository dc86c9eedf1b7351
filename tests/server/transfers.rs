//! Uploads and downloads that do not move: they end, release what they hold, and shut out nobody.

use std::time::Duration;

use bytes::Bytes;
use desktop_images::app::UploadSettings;
use h2::client::SendRequest;
use serde_json::json;
use test_support::{
    Disk, Fill, Method, SlowUpload, TestServer, eventually, failure, image_id, response, text,
    within,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::Code;

/// More than the kernel keeps for a client that does not read.
const LARGE: u64 = 64 << 20;

/// The path of a desktop image of [`LARGE`] bytes.
async fn large_download(server: &TestServer) -> String {
    let uri = server.importable_hole("large.img", LARGE);
    let accepted = server
        .ask(Method::Create, json!({"folderId": "f", "uri": uri}))
        .await;
    let operation = server.wait(text(&accepted, "id")).await;
    response(&operation);
    let id = server.copied("f", "large", &image_id(&operation)).await;
    format!("/cloud-desktop/v1/images/{id}:download")
}

/// How many blob files the server, which is this process, holds open.
fn open_blobs(server: &TestServer) -> usize {
    let contents = server.data().join("contents");
    let files = std::fs::read_dir("/proc/self/fd").expect("descriptors");
    files
        .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
        .filter(|file| file.parent() == Some(&contents))
        .count()
}

async fn have_open(server: &TestServer, count: usize) {
    eventually(&format!("{count} files of blobs are open"), || async {
        (open_blobs(server) == count).then_some(())
    })
    .await;
}

/// A connection over HTTP/2 whose streams get no more than the first 64 KiB unless they are read.
async fn http2(server: &TestServer) -> SendRequest<Bytes> {
    let stream = TcpStream::connect(server.address).await.unwrap();
    let (requests, connection) = h2::client::Builder::new()
        .initial_connection_window_size(16 << 20)
        .handshake(stream)
        .await
        .unwrap();
    tokio::spawn(connection);
    requests
}

async fn ask(
    requests: &SendRequest<Bytes>,
    request: http::request::Builder,
    ends: bool,
) -> (h2::client::ResponseFuture, h2::SendStream<Bytes>) {
    let mut requests = requests.clone().ready().await.unwrap();
    let request = request.body(()).unwrap();
    requests.send_request(request, ends).unwrap()
}

#[tokio::test]
async fn a_download_that_nobody_reads_is_cut_off_and_gives_back_its_file() {
    let server = TestServer::start_with(|config| {
        config.transfers.unread = Duration::from_millis(500);
    })
    .await;
    let path = large_download(&server).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let head = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    have_open(&server, 1).await;
    have_open(&server, 0).await;
    let mut answer = Vec::new();
    let _ = within("it ends", stream.read_to_end(&mut answer)).await;
    assert!(answer.starts_with(b"HTTP/1.1 200"));
    assert!((answer.len() as u64) < LARGE, "it did not end well");

    // Over HTTP/2 it is the stream that ends, and its connection goes on.
    let requests = http2(&server).await;
    let get = |path: &str| http::Request::get(server.url(path));
    let (reply, _) = ask(&requests, get(&path), true).await;
    let mut body = reply.await.unwrap().into_body();
    have_open(&server, 1).await;
    have_open(&server, 0).await;
    let (reply, _) = ask(&requests, get("/compute/v1/images?folderId=f"), true).await;
    assert_eq!(within("a reply", reply).await.unwrap().status(), 200);
    let mut received = 0;
    let end = loop {
        match within("data or an end", body.data()).await {
            Some(Ok(data)) => received += data.len(),
            end => break end,
        }
    };
    let reset = end.expect("no end of the body").expect_err("a reset");
    assert!(reset.is_reset(), "{reset}");
    assert_eq!(received, 65_535, "what it may have unasked");
}

#[tokio::test]
async fn a_download_that_is_read_slowly_is_read_to_its_end() {
    let server = TestServer::start_with(|config| {
        config.transfers.unread = Duration::from_secs(1);
    })
    .await;
    let path = large_download(&server).await;
    let requests = http2(&server).await;
    let (reply, _) = ask(&requests, http::Request::get(server.url(&path)), true).await;
    let mut body = reply.await.unwrap().into_body();
    let http2 = async {
        let (mut received, mut pauses) = (0, 0);
        while let Some(data) = within("data", body.data()).await {
            let data = data.expect("it is not cut off");
            received += data.len() as u64;
            // A reader that takes its time, but less than the limit, for longer than the limit.
            if pauses < 12 {
                pauses += 1;
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            body.flow_control().release_capacity(data.len()).unwrap();
        }
        received
    };
    let http1 = async {
        let mut reply = server.http.get(server.url(&path)).send().await.unwrap();
        let (mut received, mut pauses) = (0, 0);
        while let Some(data) = within("data", reply.chunk()).await.expect("not cut off") {
            received += data.len() as u64;
            if received > pauses * (4 << 20) {
                pauses += 1;
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
        received
    };
    assert_eq!(tokio::join!(http1, http2), (LARGE, LARGE));
}

#[tokio::test]
async fn one_connection_has_no_more_than_its_share() {
    let server = TestServer::start_with(|config| config.transfers.per_connection = 2).await;
    let path = large_download(&server).await;
    let requests = http2(&server).await;
    let mut replies = Vec::new();
    for _ in 0..5 {
        let request = http::Request::get(server.url(&path));
        replies.push(ask(&requests, request, true).await.0);
    }
    let mut replies = replies.into_iter();
    let mut bodies = Vec::new();
    for reply in replies.by_ref().take(2) {
        bodies.push(within("a reply", reply).await.unwrap());
    }
    assert_eq!(open_blobs(&server), 2);
    // Others are not concerned.
    let other = http2(&server).await;
    let (reply, _) = ask(&other, http::Request::get(server.url(&path)), true).await;
    let other = within("a reply", reply).await.unwrap();
    assert_eq!(open_blobs(&server), 3);
    drop(other);
    have_open(&server, 2).await;
    // The next has its turn when one ends.
    drop(bodies.pop());
    let reply = within("a reply", replies.next().unwrap()).await.unwrap();
    assert_eq!(reply.status(), 200);
    have_open(&server, 2).await;

    let requests = http2(&server).await;
    let upload = |name: &str| {
        let path = format!("/compute/v1/images:upload?folderId=g&name={name}");
        http::Request::post(server.url(&path))
    };
    let mut uploads = Vec::new();
    for number in 0..2 {
        uploads.push(ask(&requests, upload(&format!("n-{number}")), false).await);
    }
    eventually("two uploads run", || async {
        (server.compute_images("g").await == 2).then_some(())
    })
    .await;
    let (reply, _body) = ask(&requests, upload("third"), false).await;
    let reply = within("a refusal", reply).await.unwrap();
    assert_eq!(reply.status(), 429);
    assert_eq!(reply.headers()["retry-after"], "5");
    let disk = Disk::mbr(1, Fill::Sparse(1));
    server.compute_image("g", "of-another", &disk).await;
    let _ = uploads.pop();
    eventually("its slot is free", || async {
        (server.compute_images("g").await == 2).then_some(())
    })
    .await;
    let (reply, mut body) = ask(&requests, upload("third"), false).await;
    body.reserve_capacity(disk.len());
    body.send_data(disk.into(), true).unwrap();
    assert_eq!(within("a reply", reply).await.unwrap().status(), 200);
}

#[tokio::test]
async fn uploads_that_trickle_shut_out_nobody() {
    let server = TestServer::start_with(|config| {
        config.uploads = UploadSettings {
            slots: 4,
            slowest: 10_000,
            judged_after: Duration::from_millis(300),
        };
    })
    .await;
    let disk = Disk::mbr(1, Fill::Random(1));
    let mut slow = Vec::new();
    for number in 0..4 {
        let name = format!("slow-{number}");
        slow.push(SlowUpload::start(&server, "f", &name, &disk[..100]).await);
    }
    for number in 0..3 {
        server
            .compute_image("f", &format!("good-{number}"), &disk)
            .await;
    }
    let mut ended = 0;
    for upload in slow {
        let request = json!({"operationId": upload.operation_id});
        let operation = server.ask(Method::OperationGet, request).await;
        if operation["done"] == true {
            let (code, message) = failure(&operation);
            assert_eq!(code, Code::Aborted);
            assert!(message.contains("too slowly"), "{message}");
            // It is told, and its name is free again.
            let told = within("an answer", upload.reply()).await;
            assert_eq!(told, operation);
            ended += 1;
        } else {
            upload.hang_up();
        }
    }
    // The first took the slot of a slow one, and the others had its own.
    assert_eq!(ended, 1);
}

#[tokio::test]
async fn uploads_that_are_fast_enough_keep_their_slots() {
    let server = TestServer::start_with(|config| {
        config.uploads = UploadSettings {
            slots: 2,
            slowest: 0,
            judged_after: Duration::from_millis(300),
        };
    })
    .await;
    let disk = Disk::mbr(1, Fill::Random(1));
    let first = SlowUpload::start(&server, "f", "first", &disk[..100]).await;
    let second = SlowUpload::start(&server, "f", "second", &disk[..100]).await;
    let reply = server.upload("f", "third").body(disk.clone()).send().await;
    let reply = reply.unwrap();
    assert_eq!(reply.status(), 429);
    assert_eq!(reply.headers()["retry-after"], "5");
    let body = reply.text().await.unwrap();
    assert!(body.contains("google.rpc.RetryInfo"), "{body}");
    for upload in [first, second] {
        upload.send(&disk[100..]).await;
        response(&upload.finish().await);
    }
}

/// A peer that has vanished sends no end: the kernel must ask.
#[tokio::test]
async fn connections_are_probed_for_peers_that_are_gone() {
    let server = TestServer::start().await;
    let client = TcpStream::connect(server.address).await.unwrap();
    let (own, peer) = (server.address.port(), client.local_addr().unwrap().port());
    let (own, peer) = (format!(":{own:04X}"), format!(":{peer:04X}"));
    eventually("a keepalive timer runs", || async {
        let sockets = std::fs::read_to_string("/proc/net/tcp").expect("sockets");
        let socket = sockets.lines().find(|line| {
            let mut fields = line.split_whitespace().skip(1);
            let is = |field: Option<&str>, port| field.is_some_and(|field| field.ends_with(port));
            is(fields.next(), &own) && is(fields.next(), &peer)
        })?;
        let timer = socket.split_whitespace().nth(5).expect("a timer");
        timer.starts_with("02:").then_some(())
    })
    .await;
}
