//! Uploads: what is refused and when, and that nothing is left of what failed.

use std::io::ErrorKind;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use test_support::{
    Clients, Disk, Fill, Method, Refusal, SlowUpload, TestServer, eventually, failure, image_id,
    number, response, text,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::Code;

/// The value of `Content-Digest` for a body.
pub fn digest(body: &[u8]) -> String {
    format!("sha-256=:{}:", STANDARD.encode(Sha256::digest(body)))
}

async fn reply(request: reqwest::RequestBuilder) -> (u16, Value) {
    let reply = request.send().await.expect("a reply");
    let status = reply.status().as_u16();
    let body = reply.bytes().await.expect("a body");
    (status, serde_json::from_slice(&body).expect("JSON"))
}

/// Nothing of folder `f` is left, and the name is free.
async fn left_nothing(server: &TestServer, what: &str) {
    eventually(&format!("nothing is listed after {what}"), || async {
        (server.compute_images("f").await == 0).then_some(())
    })
    .await;
    server.has_blobs(0).await;
}

#[tokio::test]
async fn an_upload_becomes_a_ready_image_with_all_that_its_query_says() {
    let server = TestServer::start().await;
    let disk = Disk::gpt(5, Fill::Sparse(1));
    let query = "folderId=f&name=n&family=linux&description=a+b%20c&labels[k]=v&labels[l]=\
                 &minDiskSize=8388608&productIds=a&productIds=b&os.type=LINUX&os.nvidia.driver=550\
                 &pooled=true";
    let url = server.url(&format!("/compute/v1/images:upload?{query}"));
    let request = server
        .http
        .post(url)
        .header("content-digest", digest(&disk));
    let (status, operation) = reply(request.body(disk.clone())).await;
    assert_eq!(status, 200);
    let image = response(&operation);
    assert_eq!(image["status"], "READY");
    for (field, value) in [
        ("folderId", json!("f")),
        ("name", json!("n")),
        ("family", json!("linux")),
        ("description", json!("a b c")),
        ("labels", json!({"k": "v", "l": ""})),
        ("minDiskSize", json!("8388608")),
        ("productIds", json!(["a", "b"])),
        ("os", json!({"type": "LINUX", "nvidia": {"driver": "550"}})),
        ("pooled", json!(true)),
    ] {
        assert_eq!(image[field], value, "{field}");
    }
    assert_eq!(number(image, "size"), disk.len() as i64);
    assert_eq!(number(image, "storageSize"), Disk::stored_size(&disk));
    let read = server
        .ask(
            Method::OperationGet,
            json!({"operationId": operation["id"]}),
        )
        .await;
    assert_eq!(read, operation);
    let id = server.copied("f", "copy", &image_id(&operation)).await;
    assert!(server.downloaded(&id).await == disk);
}

#[tokio::test]
async fn what_the_head_of_an_upload_says_is_checked_before_the_body() {
    let server = TestServer::start().await;
    let disk = Disk::mbr(1, Fill::Random(1));
    for (query, header, fields) in [
        ("", None, &["folder_id"][..]),
        ("folderId=", None, &["folder_id"]),
        ("folderId=f&name=Upper", None, &["name"]),
        ("folderId=f&unknown=1", None, &["unknown"]),
        ("folderId=f&folderId=g", None, &["folderId"]),
        ("folderId=f&labels=x", None, &["labels"]),
        ("folderId=f&minDiskSize=1", None, &["min_disk_size"]),
        ("folderId=f&minDiskSize=x", None, &["minDiskSize"]),
        ("folderId=f&name=%00", None, &["name"]),
        (
            "folderId=f&os.nvidia.driver=%00",
            None,
            &["os.nvidia.driver"],
        ),
        ("folderId=f&uri=file:///x", None, &["source"]),
        ("folderId=f&imageId=x", None, &["source"]),
        (
            "folderId=f",
            Some(("content-encoding", "gzip")),
            &["Content-Encoding"],
        ),
        (
            "folderId=f",
            Some(("content-digest", "x")),
            &["Content-Digest"],
        ),
        (
            "folderId=f",
            Some(("content-digest", "sha-256=:AAAA:")),
            &["Content-Digest"],
        ),
        (
            "folderId=f",
            Some(("content-digest", "md5=:AAAA:")),
            &["Content-Digest"],
        ),
        (
            "name=Upper&uri=x",
            Some(("content-digest", "")),
            &["folder_id", "name", "source", "Content-Digest"],
        ),
    ] {
        let url = server.url(&format!("/compute/v1/images:upload?{query}"));
        let mut request = server.http.post(url).body(disk.clone());
        if let Some((name, value)) = header {
            request = request.header(name, value);
        }
        let (status, body) = reply(request).await;
        assert_eq!(status, 400, "{query} {header:?} {body}");
        let refusal = Refusal::from_json(&body);
        assert_eq!(refusal.code, Code::InvalidArgument);
        assert_eq!(refusal.fields, fields, "{query} {header:?}");
    }
    let request = server
        .upload("f", "n")
        .header("idempotency-key", "x")
        .body(disk.clone());
    assert_eq!(reply(request).await.0, 400);
    let request = server
        .upload("f", "n")
        .header("content-encoding", "identity")
        .body(disk.clone());
    let (status, operation) = reply(request).await;
    assert_eq!(status, 200);
    server
        .ask(
            Method::ComputeDelete,
            json!({"imageId": image_id(&operation)}),
        )
        .await;
    left_nothing(&server, "refused heads").await;
}

#[tokio::test]
async fn a_taken_name_is_told_before_the_body_is_read() {
    let server = TestServer::start().await;
    server
        .compute_image("f", "taken", &Disk::mbr(1, Fill::Sparse(1)))
        .await;
    for expect in ["", "Expect: 100-continue\r\n"] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        // A body that never comes.
        let head = format!(
            "POST /compute/v1/images:upload?folderId=f&name=taken HTTP/1.1\r\nHost: {}\r\n\
             {expect}Content-Length: 1000000000000\r\n\r\n",
            server.address
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 409", "{expect}");
    }
    assert_eq!(server.compute_images("f").await, 1);
}

#[tokio::test]
async fn a_client_that_sends_all_before_it_reads_learns_of_a_taken_name_too() {
    let server = TestServer::start().await;
    server
        .compute_image("f", "taken", &Disk::mbr(1, Fill::Sparse(1)))
        .await;
    for mebibytes in [1, 5] {
        let body = vec![1; mebibytes << 20];
        let head = format!(
            "POST /compute/v1/images:upload?folderId=f&name=taken HTTP/1.1\r\nHost: {}\r\n\
             Content-Length: {}\r\n\r\n",
            server.address,
            body.len()
        );
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&body).await.unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 409", "{mebibytes} MiB");
    }
}

#[tokio::test]
async fn a_body_that_is_no_sound_disk_image_leaves_nothing() {
    let test = "a_body_that_is_no_sound_disk_image_leaves_nothing";
    let server = TestServer::start().await;
    let disk = Disk::gpt(2, Fill::Random(1));
    let mut bodies = vec![
        ("empty", Vec::new(), "empty"),
        ("short", b"no disk".to_vec(), "512"),
        ("zeros", vec![0; 1 << 20], "partition table"),
        (
            "random",
            disk[40_000..1_000_000].to_vec(),
            "partition table",
        ),
        (
            "cut in a sector",
            disk[..disk.len() - 100].to_vec(),
            "truncated",
        ),
        ("cut", disk[..1 << 20].to_vec(), "truncated"),
        ("gzip", [&[0x1f, 0x8b, 8][..], &[0; 5000]].concat(), "gzip"),
        (
            "false checksum",
            [&disk[..600], &[1], &disk[601..]].concat(),
            "corrupt",
        ),
    ];
    // A sound disk whose boot code QEMU takes for a VMDK image, made of a file of its own host.
    let mut disguised = disk.clone();
    let descriptor = b"#\n \r\nversion=1\nCID=fffffffe\nparentCID=ffffffff\n\
        createType=\"monolithicFlat\"\nRW 8 FLAT \"/etc/passwd\" 0\n";
    disguised[..descriptor.len()].copy_from_slice(descriptor);
    bodies.push(("disguised", disguised.clone(), "descriptor of a VMDK"));
    for options in [&[][..], &["-c"]] {
        if let Some(qcow2) = Disk::qcow2(test, &disguised, options) {
            bodies.push(("disguised in qcow2", qcow2, "descriptor of a VMDK"));
        }
    }
    if let Some(qcow2) = Disk::qcow2(test, &disk, &[]) {
        bodies.push(("cut qcow2", qcow2[..qcow2.len() / 2].to_vec(), "truncated"));
        let mut corrupt = qcow2.clone();
        corrupt[40..48].copy_from_slice(&[0xff; 8]);
        bodies.push(("corrupt qcow2", corrupt, "qcow2"));
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("base.qcow2"), &qcow2).unwrap();
        let base = "create -q -f qcow2 -F qcow2 -b base.qcow2 overlay.qcow2";
        let external = "create -q -f qcow2 -o data_file=data.raw external.qcow2 1M";
        for command in [base, external] {
            let arguments: Vec<&str> = command.split(' ').collect();
            test_support::run(folder.path(), "qemu-img", &arguments);
        }
        let read = |name| std::fs::read(folder.path().join(name)).unwrap();
        bodies.push(("overlay", read("overlay.qcow2"), "backing file"));
        bodies.push((
            "external data",
            read("external.qcow2"),
            "external data file",
        ));
    }
    for (what, body, expected) in bodies {
        let uri = server.importable("bad.img", &body);
        let request = json!({"folderId": "f", "name": "bad", "uri": uri});
        let accepted = server.ask(Method::Create, request).await;
        let imported = server.wait(text(&accepted, "id")).await;
        let uploaded = server.uploaded("f", "bad", &body).await;
        for operation in [imported, uploaded] {
            let (code, message) = failure(&operation);
            assert_eq!(code, Code::InvalidArgument, "{what}");
            assert!(message.contains(expected), "{what}: {message}");
            let gone = json!({"imageId": image_id(&operation)});
            let gone = server.callers()[0].call(Method::ComputeGet, gone).await;
            assert_eq!(gone.unwrap_err().code, Code::NotFound, "{what}");
        }
        left_nothing(&server, what).await;
    }
    server.compute_image("f", "bad", &disk).await;
}

#[tokio::test]
async fn another_digest_than_announced_leaves_nothing() {
    let server = TestServer::start().await;
    let disk = Disk::mbr(1, Fill::Random(1));
    let request = server
        .upload("f", "n")
        .header("content-digest", digest(&disk[1..]));
    let (status, operation) = reply(request.body(disk.clone())).await;
    assert_eq!(status, 200);
    let (code, message) = failure(&operation);
    assert_eq!(code, Code::InvalidArgument);
    assert!(message.contains("Content-Digest"), "{message}");
    left_nothing(&server, "a wrong digest").await;

    let both = format!("md5=:AAAA:, {}", digest(&disk));
    let request = server
        .upload("f", "n")
        .header("content-digest", both)
        .body(disk);
    response(&reply(request).await.1);
}

/// Sends the head of an upload over a connection of its own, and waits until it is listed.
pub async fn half_an_upload(server: &Clients, framing: &str) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let head = format!(
        "POST /compute/v1/images:upload?folderId=f&name=half HTTP/1.1\r\nHost: {}\r\n{framing}\r\n\r\n",
        server.address
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let operation = eventually("the upload is listed", || async {
        let page = server
            .ask(Method::ComputeList, json!({"folderId": "f"}))
            .await;
        let id = page["images"].get(0)?["id"].clone();
        let page = server
            .ask(Method::ListOperations, json!({"imageId": id}))
            .await;
        Some(text(&page["operations"][0], "id").to_owned())
    })
    .await;
    (stream, operation)
}

#[tokio::test]
async fn a_client_that_hangs_up_midway_leaves_nothing() {
    let server = TestServer::start().await;
    let disk = Disk::mbr(1, Fill::Random(1));
    let length = format!("Content-Length: {}", disk.len());
    let chunk = [b"80000\r\n".as_slice(), &disk[..0x80000], b"\r\n"].concat();
    let cut_chunk = [b"80000\r\n".as_slice(), &disk[..1000]].concat();
    for (what, framing, body) in [
        ("nothing of a body", length.as_str(), &[][..]),
        (
            "a body shorter than announced",
            &length,
            &disk[..disk.len() - 1],
        ),
        (
            "a chunked body without its end",
            "Transfer-Encoding: chunked",
            &chunk,
        ),
        ("a cut chunk", "Transfer-Encoding: chunked", &cut_chunk),
        (
            "a chunk of nonsense",
            "Transfer-Encoding: chunked",
            b"nonsense\r\n",
        ),
    ] {
        for clean in [true, false] {
            let (mut stream, operation) = half_an_upload(&server, framing).await;
            stream.write_all(body).await.unwrap();
            if clean {
                // The other half stays open for an answer, if there is one.
                stream.shutdown().await.unwrap();
                let mut answer = Vec::new();
                let ended = stream.read_to_end(&mut answer).await;
                let ended = ended.map_err(|error| error.kind());
                assert!(
                    matches!(ended, Ok(_) | Err(ErrorKind::ConnectionReset)),
                    "{what}"
                );
                let answer = String::from_utf8_lossy(&answer);
                assert!(!answer.contains("\"response\""), "{what}: {answer}");
            }
            drop(stream);
            let operation = server.wait(&operation).await;
            assert_eq!(failure(&operation).0, Code::Aborted, "{what}");
            left_nothing(&server, what).await;
        }
    }
    // Over HTTP/2 it is the stream that is reset.
    let mut clients = server.clients.clone();
    clients.http = reqwest::Client::builder()
        .no_proxy()
        .http2_prior_knowledge()
        .build()
        .unwrap();
    for clients in [&server.clients, &clients] {
        let upload = SlowUpload::start(clients, "f", "half", &disk[..500_000]).await;
        let id = upload.operation_id.clone();
        upload.hang_up();
        let operation = server.wait(&id).await;
        assert_eq!(failure(&operation).0, Code::Aborted);
        left_nothing(&server, "a reset").await;
    }
    server.compute_image("f", "half", &disk).await;
}

#[tokio::test]
async fn equal_uploads_are_kept_once_and_until_the_last_image_is_gone() {
    let server = TestServer::start().await;
    let disk = Disk::mbr(2, Fill::Random(1));
    let uploads = (0..4).map(|number| {
        let name = format!("n-{number}");
        let (server, disk) = (&server, &disk);
        async move { server.compute_image("f", &name, disk).await }
    });
    let ids = futures_util::future::join_all(uploads).await;
    server.has_blobs(1).await;
    let copy = server.copied("f", "copy", &ids[0]).await;
    for id in &ids {
        server
            .ask(Method::ComputeDelete, json!({"imageId": id}))
            .await;
    }
    assert!(server.downloaded(&copy).await == disk);
    server
        .ask(Method::DesktopDelete, json!({"imageId": copy}))
        .await;
    server.has_blobs(0).await;
    // What was removed can come again.
    let again = server.compute_image("f", "again", &disk).await;
    let copy = server.copied("f", "copy", &again).await;
    assert!(server.downloaded(&copy).await == disk);
}
