//! Uploads that are sent again under their key, after all the ways in which the first try can end.

use std::time::Duration;

use serde_json::{Value, json};
use test_support::{
    Clients, Disk, Fill, Method, Program, ServerProcess, TestServer, audit_events, eventually,
    failure, image_id, response, text, within,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tonic::Code;

use crate::uploads::{digest, half_an_upload};

const KEY: &str = "idempotency-key";

fn new_key() -> String {
    uuid::Uuid::new_v4().to_string()
}

/// Sends a whole upload named `half`.
async fn send(clients: &Clients, key: &str, headers: &[(&str, &str)], body: &[u8]) -> (u16, Value) {
    let mut request = clients.upload("f", "half").header(KEY, key);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let sent = request.body(body.to_vec()).send();
    let reply = within("the upload is answered", sent)
        .await
        .expect("a reply");
    let status = reply.status().as_u16();
    let body = reply.bytes().await.expect("a body");
    (status, serde_json::from_slice(&body).expect("JSON"))
}

/// Sends the upload again, which makes its image now, and once.
async fn succeeds_at_last(clients: &Clients, key: &str, failed: &str, disk: &[u8]) {
    let (status, done) = send(clients, key, &[], disk).await;
    assert_eq!(status, 200, "{done}");
    response(&done);
    assert_ne!(text(&done, "id"), failed);
    assert_eq!(send(clients, key, &[], disk).await, (200, done.clone()));
    assert_eq!(clients.compute_images("f").await, 1);
    let first = clients.wait(failed).await;
    assert!(first.get("error").is_some(), "as it ended: {first}");
    let copy = clients.copied("f", "copy", &image_id(&done)).await;
    assert!(clients.downloaded(&copy).await == disk);
}

fn framing(key: &str, length: usize) -> String {
    format!("Idempotency-Key: {key}\r\nContent-Length: {length}")
}

#[tokio::test]
async fn a_retry_after_a_broken_upload_starts_again() {
    let disk = Disk::mbr(2, Fill::Random(1));
    let key = new_key();

    // A body that ends early.
    let server = TestServer::start().await;
    let (mut stream, id) = half_an_upload(&server, &framing(&key, disk.len())).await;
    stream.write_all(&disk[..1 << 20]).await.unwrap();
    drop(stream);
    assert_eq!(failure(&server.wait(&id).await).0, Code::Aborted);
    succeeds_at_last(&server, &key, &id, &disk).await;

    // One that is damaged on its way, by what its head says.
    let server = TestServer::start().await;
    let mut damaged = disk.clone();
    damaged[1_000_000] ^= 1;
    let stated = digest(&disk);
    let headers = [("content-digest", stated.as_str())];
    let (_, failed) = send(&server, &key, &headers, &damaged).await;
    let (code, message) = failure(&failed);
    assert_eq!(code, Code::InvalidArgument, "{message}");
    let (status, done) = send(&server, &key, &headers, &disk).await;
    assert_eq!(status, 200);
    response(&done);
    assert_eq!(server.compute_images("f").await, 1);

    // A server that stops, and one that is killed.
    let drain = |config: &mut desktop_images::app::Config| {
        config.drain_timeout = Duration::from_millis(100);
    };
    let mut server = TestServer::start_with(drain).await;
    let (stream, id) = half_an_upload(&server, &framing(&key, disk.len())).await;
    server.restart().await;
    drop(stream);
    assert_eq!(failure(&server.wait(&id).await).0, Code::Aborted);
    succeeds_at_last(&server, &key, &id, &disk).await;

    let folder = tempfile::tempdir().unwrap();
    let server = ServerProcess::start(folder.path()).await;
    let (stream, id) = half_an_upload(&server, &framing(&key, disk.len())).await;
    server.kill().await;
    drop(stream);
    let server = ServerProcess::start(folder.path()).await;
    succeeds_at_last(&server, &key, &id, &disk).await;
}

#[tokio::test]
async fn a_retry_supersedes_an_upload_whose_body_still_arrives() {
    let server = TestServer::start().await;
    let disk = Disk::mbr(2, Fill::Random(1));
    let key = new_key();
    let (mut stream, id) = half_an_upload(&server, &framing(&key, disk.len())).await;
    stream.write_all(&disk[..1 << 20]).await.unwrap();
    // The key is for this request only, as ever.
    let other = server.upload("f", "other").header(KEY, &key);
    let other = other.body(disk.clone()).send().await.expect("a reply");
    assert_eq!(other.status(), 400);
    succeeds_at_last(&server, &key, &id, &disk).await;
    // The first sender is told, though it sends on.
    let _ = stream.write_all(&disk[1 << 20..]).await;
    let mut answer = vec![0; 4096];
    let read = within("the first is answered", stream.read(&mut answer)).await;
    let answer = String::from_utf8_lossy(&answer[..read.expect("an answer")]).into_owned();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("superseded by a retry"), "{answer}");
    let (code, message) = {
        let ended = server.wait(&id).await;
        let (code, message) = failure(&ended);
        (code, message.to_owned())
    };
    assert_eq!(
        (code, message.as_str()),
        (Code::Aborted, "superseded by a retry")
    );
    let events = audit_events(&server, "f", 0).await;
    let of_first: Vec<&str> = events
        .iter()
        .filter(|event| event["operationId"] == id.as_str())
        .map(|event| text(event, "status"))
        .collect();
    assert_eq!(of_first, ["STARTED", "ERROR"]);
    server.has_blobs(1).await;
}

#[tokio::test]
async fn of_several_senders_the_last_has_it() {
    let server = TestServer::start().await;
    let disk = Disk::mbr(1, Fill::Random(1));
    for _ in 0..5 {
        let key = new_key();
        let sent = (0..6).map(|_| send(&server, &key, &[], &disk));
        let replies = futures_util::future::join_all(sent).await;
        let (_, last) = send(&server, &key, &[], &disk).await;
        response(&last);
        for (status, reply) in replies {
            assert_eq!(status, 200);
            if reply != last {
                let (code, message) = failure(&reply);
                assert_eq!((code, message), (Code::Aborted, "superseded by a retry"));
            }
        }
        assert_eq!(server.compute_images("f").await, 1);
        let delete = json!({"imageId": image_id(&last)});
        server.ask(Method::ComputeDelete, delete).await;
    }
    server.has_blobs(0).await;
}

#[tokio::test]
async fn refused_bytes_and_a_cancel_keep_their_key() {
    let server = TestServer::start().await;
    let disk = Disk::mbr(2, Fill::Random(1));
    let key = new_key();
    let (_, refused) = send(&server, &key, &[], &[0; 4096]).await;
    assert_eq!(failure(&refused).0, Code::InvalidArgument);
    assert_eq!(send(&server, &key, &[], &disk).await, (200, refused));

    let key = new_key();
    let (mut stream, id) = half_an_upload(&server, &framing(&key, disk.len())).await;
    stream.write_all(&disk[..1 << 20]).await.unwrap();
    let request = json!({"operationId": id});
    server.ask(Method::OperationCancel, request).await;
    let cancelled = server.wait(&id).await;
    assert_eq!(failure(&cancelled).0, Code::Cancelled);
    assert_eq!(send(&server, &key, &[], &disk).await, (200, cancelled));
    assert_eq!(server.compute_images("f").await, 0);
}

/// Passes connections on, but cuts those of `cut` after so many bytes of the client.
async fn proxy(
    server: std::net::SocketAddr,
    cut: &'static [Option<usize>],
) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        let mut cut = cut.iter().copied();
        while let Ok((client, _)) = listener.accept().await {
            let limit = cut.next().flatten();
            tokio::spawn(async move {
                let mut client = client;
                let mut server = TcpStream::connect(server).await.expect("the server");
                match limit {
                    None => drop(tokio::io::copy_bidirectional(&mut client, &mut server).await),
                    Some(limit) => {
                        let (from_client, mut to_client) = client.split();
                        let (mut from_server, mut to_server) = server.split();
                        let mut limited = from_client.take(limit as u64);
                        // Where the limit is reached both directions end.
                        tokio::select! {
                            _ = tokio::io::copy(&mut limited, &mut to_server) => {}
                            _ = tokio::io::copy(&mut from_server, &mut to_client) => {}
                        }
                    }
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn the_command_line_sends_again_what_broke_off() {
    let server = TestServer::start().await;
    let disk = Disk::mbr(8, Fill::Random(1));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("disk.img");
    std::fs::write(&file, &disk).unwrap();
    let address = proxy(server.address, &[Some(3 << 20), Some(5 << 20)]).await;
    let arguments = format!(
        "compute-image import {} --folder-id f --name n --format json",
        file.display()
    );
    let run = Program::run(address, &arguments).await;
    assert_eq!(run.exit_code, Some(0), "{}", run.errors);
    assert_eq!(
        run.errors.matches("Sending it again").count(),
        2,
        "{}",
        run.errors
    );
    let images = eventually("only one is left", || async {
        let page = server
            .ask(Method::ComputeList, json!({"folderId": "f"}))
            .await;
        let images = page["images"].as_array().expect("a list").clone();
        (images.len() == 1).then_some(images)
    })
    .await;
    let copy = server.copied("f", "copy", text(&images[0], "id")).await;
    assert!(server.downloaded(&copy).await == disk);
    // What is refused is refused once, and a server that is not there is not waited for.
    let again = Program::run(server.address, &arguments).await;
    assert_eq!(again.exit_code, Some(5), "{}", again.errors);
    assert!(!again.errors.contains("Sending"), "{}", again.errors);
    let address = server.address;
    drop(server);
    let gone = Program::run(address, &arguments).await;
    assert_ne!(gone.exit_code, Some(0));
    assert!(!gone.errors.contains("Sending"), "{}", gone.errors);
}
