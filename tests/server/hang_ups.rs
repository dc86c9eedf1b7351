//! Clients that go away, or end their requests in ways that look like something else.

use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use test_support::{
    Disk, Fill, Method, TestServer, blob_files, eventually, failure, image_id, response, text,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::Code;

use crate::uploads::digest;

/// The caller is gone before, while or after its request is committed: whatever was accepted ends.
#[tokio::test]
async fn accepted_imports_run_although_nobody_waits_for_the_reply() {
    let server = TestServer::start().await;
    let uri = server.importable("disk.img", &Disk::mbr(1, Fill::Random(1)));
    let body = json!({"folderId": "f", "uri": uri}).to_string();
    let request = format!(
        "POST /compute/v1/images HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\n\r\n{body}",
        server.address,
        body.len()
    );
    for round in 0..60 {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        // Not a wait for anything: the point at which the caller goes is what varies.
        tokio::time::sleep(Duration::from_micros(150 * round)).await;
        drop(stream);
    }
    let images = eventually("all accepted images are READY", || async {
        let request = json!({"folderId": "f"});
        let page = server.ask(Method::ComputeList, request).await;
        let images = page["images"].as_array().unwrap().clone();
        let ready = images.iter().all(|image| image["status"] == "READY");
        (ready && !images.is_empty()).then_some(images)
    })
    .await;
    for image in images {
        let request = json!({"imageId": image["id"]});
        let page = server.ask(Method::ListOperations, request).await;
        response(&page["operations"][0]);
    }
    server.has_blobs(1).await;
}

/// A stream that is reset without an error has not ended, even where all that came is a sound disk.
#[tokio::test]
async fn an_upload_whose_stream_is_reset_without_an_error_is_no_whole_one() {
    let server = TestServer::start().await;
    // As much as the server gathers before it writes, so that all of it is seen to arrive.
    let disk = Disk::mbr(4, Fill::Random(1));
    let connection = TcpStream::connect(server.address).await.unwrap();
    let (requests, connection) = h2::client::handshake(connection).await.unwrap();
    tokio::spawn(connection);
    let mut requests = requests.ready().await.unwrap();
    let request = http::Request::post(server.url("/compute/v1/images:upload?folderId=f&name=half"));
    let (_reply, mut body) = requests
        .send_request(request.body(()).unwrap(), false)
        .unwrap();
    body.send_data(Bytes::from(disk.clone()), false).unwrap();
    eventually("all bytes are written", || async {
        let file = blob_files(&server.data()).pop()?;
        let file = std::fs::metadata(server.data().join("contents").join(file)).ok()?;
        (file.len() == disk.len() as u64).then_some(())
    })
    .await;
    let page = server
        .ask(Method::ComputeList, json!({"folderId": "f"}))
        .await;
    let request = json!({"imageId": page["images"][0]["id"]});
    let page = server.ask(Method::ListOperations, request).await;
    let operation = text(&page["operations"][0], "id").to_owned();
    body.send_reset(h2::Reason::NO_ERROR);
    let operation = server.wait(&operation).await;
    assert_eq!(failure(&operation).0, Code::Aborted);
    let gone = json!({"imageId": image_id(&operation)});
    let gone = server.callers()[0].call(Method::ComputeGet, gone).await;
    assert_eq!(gone.unwrap_err().code, Code::NotFound);
    server.has_blobs(0).await;
}

/// A client that digests while it sends knows the digest only at the end.
#[tokio::test]
async fn a_digest_in_the_trailer_is_verified() {
    let server = TestServer::start().await;
    let disk = Disk::mbr(1, Fill::Random(1));
    for (digest, accepted) in [(digest(b""), false), (digest(&disk), true)] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let head = format!(
            "POST /compute/v1/images:upload?folderId=f&name=n HTTP/1.1\r\nHost: {}\r\n\
             Connection: close\r\nTrailer: Content-Digest\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n",
            server.address,
            disk.len()
        );
        let tail = format!("\r\n0\r\nContent-Digest: {digest}\r\n\r\n");
        let request = [head.as_bytes(), &disk, tail.as_bytes()].concat();
        stream.write_all(&request).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let body = answer.split("\r\n\r\n").nth(1).expect("a body");
        let operation: serde_json::Value = serde_json::from_str(body).expect(body);
        if accepted {
            response(&operation);
        } else {
            let (code, message) = failure(&operation);
            assert_eq!(code, Code::InvalidArgument);
            assert!(message.contains("Content-Digest"), "{message}");
        }
    }
}
