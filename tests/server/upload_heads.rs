//! Statements of an upload about its body: digests, types, parts, and how its caller would like to be answered.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use sha2::{Digest, Sha256, Sha512};
use test_support::{Disk, Fill, Refusal, TestServer, failure, image_id, response, text, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::Code;

async fn send(
    server: &TestServer,
    headers: &[(&str, &str)],
    body: &[u8],
) -> (http::HeaderMap, u16, Value) {
    let mut request = server.upload("f", "");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let reply = request.body(body.to_vec()).send().await.expect("a reply");
    let (status, headers) = (reply.status().as_u16(), reply.headers().clone());
    let body = reply.bytes().await.expect("a body");
    (
        headers,
        status,
        serde_json::from_slice(&body).expect("JSON"),
    )
}

fn base64(bytes: impl AsRef<[u8]>) -> String {
    STANDARD.encode(bytes)
}

fn md5(bytes: &[u8]) -> String {
    base64(md5::Md5::digest(bytes))
}

/// Fields that state the digests of a body, each with its name as it is told.
fn fields(body: &[u8]) -> Vec<(&'static str, &'static str, String)> {
    let (sha256, sha512) = (base64(Sha256::digest(body)), base64(Sha512::digest(body)));
    let md5 = md5(body);
    vec![
        (
            "content-digest",
            "Content-Digest",
            format!("sha-256=:{sha256}:"),
        ),
        (
            "content-digest",
            "Content-Digest",
            format!("sha-512=:{sha512}:"),
        ),
        ("content-digest", "Content-Digest", format!("md5=:{md5}:")),
        ("repr-digest", "Repr-Digest", format!("sha-256=:{sha256}:")),
        ("repr-digest", "Repr-Digest", format!("sha-512=:{sha512}:")),
        ("digest", "Digest", format!("SHA-256={sha256}")),
        ("digest", "Digest", format!("MD5={md5},unixsum=1")),
        ("content-md5", "Content-MD5", md5),
    ]
}

#[tokio::test]
async fn a_digest_that_is_stated_is_checked_in_whatever_field() {
    let server = TestServer::start().await;
    let disk = Disk::mbr(1, Fill::Random(1));
    let other = Disk::mbr(1, Fill::Random(2));
    for (name, told, value) in fields(&disk) {
        let (_, status, operation) = send(&server, &[(name, &value)], &disk).await;
        assert_eq!(status, 200, "{name}: {value}: {operation}");
        response(&operation);
        let (_, status, operation) = send(&server, &[(name, &value)], &other).await;
        assert_eq!(status, 200, "{name}: {value}");
        let (code, message) = failure(&operation);
        assert_eq!(code, Code::InvalidArgument, "{name}: {value}");
        assert!(message.starts_with(&format!("{told}: ")), "{message}");
    }
    // All of them at once, one of which is wrong.
    let right = fields(&disk);
    let wrong = md5(&other);
    let mut all: Vec<(&str, &str)> = right
        .iter()
        .map(|(name, _, value)| (*name, value.as_str()))
        .collect();
    all.retain(|(name, _)| *name != "content-md5");
    response(&send(&server, &all, &disk).await.2);
    // The MD5 is stated by two fields, and they differ.
    all.push(("content-md5", &wrong));
    assert_eq!(send(&server, &all, &disk).await.1, 400);
}

#[tokio::test]
async fn a_digest_that_cannot_be_checked_is_refused_with_what_would_be_right() {
    let server = TestServer::start().await;
    let disk = Disk::mbr(1, Fill::Random(1));
    let sha256 = base64(Sha256::digest(&disk));
    for (name, told, value) in [
        ("content-digest", "Content-Digest", "sha=:AAAA:".to_owned()),
        (
            "content-digest",
            "Content-Digest",
            "crc32c=:AAAAAA==:".to_owned(),
        ),
        ("repr-digest", "Repr-Digest", "x".to_owned()),
        ("repr-digest", "Repr-Digest", format!("sha-256={sha256}")),
        ("digest", "Digest", "unixsum=30637".to_owned()),
        ("digest", "Digest", format!("sha-256=:{sha256}:")),
        ("content-md5", "Content-MD5", "AAAA".to_owned()),
        (
            "x-amz-checksum-sha256",
            "x-amz-checksum-sha256",
            sha256.clone(),
        ),
        ("x-goog-hash", "x-goog-hash", "crc32c=AAAAAA==".to_owned()),
        ("x-checksum-sha256", "x-checksum-sha256", "00".to_owned()),
    ] {
        let (_, status, body) = send(&server, &[(name, &value)], &disk).await;
        assert_eq!(status, 400, "{name}: {value}: {body}");
        let refusal = Refusal::from_json(&body);
        assert_eq!(refusal.fields, [told], "{name}: {value}");
        let right = ["sha-256=", "16 bytes"];
        assert!(
            right.iter().any(|right| refusal.message.contains(right)),
            "{body}"
        );
    }
    assert_eq!(server.compute_images("f").await, 0);
}

/// The answer to an upload in chunks with trailers.
async fn with_trailers(server: &TestServer, head: &str, trailers: &str, body: &[u8]) -> Value {
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let head = format!(
        "POST /compute/v1/images:upload?folderId=f HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\
         Transfer-Encoding: chunked\r\n{head}\r\n{:x}\r\n",
        server.address,
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(body).await.unwrap();
    let end = format!("\r\n0\r\n{trailers}\r\n");
    stream.write_all(end.as_bytes()).await.unwrap();
    let mut answer = String::new();
    let read = stream.read_to_string(&mut answer);
    within("the upload is answered", read).await.expect("text");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    assert!(head.starts_with("HTTP/1.1 200"), "{answer}");
    serde_json::from_str(body).expect("JSON")
}

#[tokio::test]
async fn a_digest_behind_the_body_is_checked_too() {
    let server = TestServer::start().await;
    let disk = Disk::mbr(1, Fill::Random(1));
    let other = Disk::mbr(1, Fill::Random(2));
    let sha256 = |disk: &[u8]| base64(Sha256::digest(disk));
    let sha512 = base64(Sha512::digest(&disk));
    let stated = |disk: &[u8]| format!("Content-Digest: sha-256=:{}:\r\n", sha256(disk));
    for (head, trailers, right) in [
        // Announced by `Trailer` or not.
        (
            "Trailer: Content-Digest\r\n".to_owned(),
            stated(&disk),
            true,
        ),
        (String::new(), stated(&disk), true),
        (String::new(), stated(&other), false),
        (
            String::new(),
            format!("Repr-Digest: sha-256=:{}:\r\n", sha256(&other)),
            false,
        ),
        (
            String::new(),
            format!("Digest: sha-256={}\r\n", sha256(&disk)),
            true,
        ),
        (
            String::new(),
            format!("Digest: sha-256={}\r\n", sha256(&other)),
            false,
        ),
        (
            "Trailer: Content-MD5\r\n".to_owned(),
            format!("Content-MD5: {}\r\n", md5(&disk)),
            true,
        ),
        (
            "Trailer: Content-MD5\r\n".to_owned(),
            format!("Content-MD5: {}\r\n", md5(&other)),
            false,
        ),
        // What was not computed is not passed over.
        (
            String::new(),
            format!("Content-MD5: {}\r\n", md5(&disk)),
            false,
        ),
        (
            String::new(),
            format!("Content-Digest: sha-512=:{sha512}:\r\n"),
            false,
        ),
        (String::new(), "Content-Digest: x\r\n".to_owned(), false),
        (
            String::new(),
            "x-amz-checksum-crc32: AAAAAA==\r\n".to_owned(),
            false,
        ),
        (
            String::new(),
            "Content-Encoding: gzip\r\n".to_owned(),
            false,
        ),
        (String::new(), "X-Anything: else\r\n".to_owned(), true),
        // Neither the head nor the trailer is passed over for the other.
        (stated(&other), stated(&disk), false),
        (stated(&disk), stated(&other), false),
        (stated(&disk), stated(&disk), true),
    ] {
        let operation = with_trailers(&server, &head, &trailers, &disk).await;
        let what = format!("{head}{trailers}{operation}");
        assert_eq!(operation.get("response").is_some(), right, "{what}");
        if !right {
            let (code, message) = failure(&operation);
            assert_eq!(code, Code::InvalidArgument, "{what}");
            let name = trailers.split(':').next().expect("a name");
            assert!(
                message.to_lowercase().contains(&name.to_lowercase()),
                "{what}"
            );
        }
    }
}

#[tokio::test]
async fn forms_and_other_bodies_that_are_no_image_are_refused_with_words() {
    let server = TestServer::start().await;
    let disk = Disk::mbr(1, Fill::Random(1));
    for (content_type, word) in [
        ("multipart/form-data; boundary=x", "parts"),
        ("Multipart/Mixed; boundary=x", "parts"),
        ("application/x-www-form-urlencoded", "form"),
        ("application/x-www-form-urlencoded; charset=utf-8", "form"),
        ("application/json", "no disk image"),
        ("application/merge-patch+json", "no disk image"),
        ("text/plain; charset=utf-8", "text"),
        ("message/rfc822", "message"),
    ] {
        let (headers, status, body) = send(&server, &[("content-type", content_type)], &disk).await;
        assert_eq!(status, 415, "{content_type}: {body}");
        assert_eq!(headers["accept"], "application/octet-stream");
        let message = text(&body, "message");
        for word in [word, "Content-Type", "curl -X POST -T FILE"] {
            assert!(message.contains(word), "{content_type}: {message}");
        }
    }
    for content_type in [
        "application/octet-stream",
        "application/x-qemu-disk",
        "application/vnd.efi.img",
        "",
    ] {
        let (_, status, operation) = send(&server, &[("content-type", content_type)], &disk).await;
        assert_eq!(status, 200, "{content_type}");
        response(&operation);
    }
}

#[tokio::test]
async fn parts_of_an_image_are_not_taken_for_the_whole() {
    let server = TestServer::start().await;
    let disk = Disk::mbr(1, Fill::Random(1));
    for (name, value) in [
        ("content-range", "bytes 0-1048575/2097152"),
        ("content-range", "x"),
        ("range", "bytes=0-1048575"),
        ("upload-offset", "0"),
        ("upload-length", "1048576"),
        ("upload-complete", "?0"),
        ("upload-draft-interop-version", "6"),
        ("upload-metadata", "name bg=="),
        ("tus-resumable", "1.0.0"),
        ("x-upload-content-length", "1048576"),
        ("x-goog-resumable", "start"),
        ("x-chunk-number", "1"),
    ] {
        let (_, status, body) = send(&server, &[(name, value)], &disk).await;
        assert_eq!(status, 400, "{name}: {body}");
        let refusal = Refusal::from_json(&body);
        assert_eq!(refusal.fields, [name]);
        assert!(refusal.message.contains("in one request"), "{body}");
    }
    assert_eq!(server.compute_images("f").await, 0);
}

#[tokio::test]
async fn a_strict_caller_learns_of_a_failed_operation_by_the_http_code() {
    let server = TestServer::start().await;
    let disk = Disk::mbr(1, Fill::Random(1));
    let strict = ("prefer", "respond-async, handling=\"strict\"");
    let (headers, status, operation) = send(&server, &[strict], &disk).await;
    assert_eq!(status, 200);
    assert_eq!(headers["preference-applied"], "handling=strict");
    assert!(!headers.contains_key("location"));
    response(&operation);

    let wrong = format!("sha-256=:{}:", base64([0; 32]));
    for (extra, body, code, http) in [
        (
            ("x-nothing", ""),
            &[0; 4096][..],
            Code::InvalidArgument,
            400,
        ),
        (
            ("content-digest", wrong.as_str()),
            &disk,
            Code::InvalidArgument,
            400,
        ),
    ] {
        let (headers, status, body_of_it) = send(&server, &[strict, extra], body).await;
        assert_eq!(status, http, "{body_of_it}");
        assert_eq!(headers["preference-applied"], "handling=strict");
        assert_eq!(Refusal::from_json(&body_of_it).code, code);
        let details = body_of_it["details"].as_array().expect("details");
        let infos: Vec<&Value> = details
            .iter()
            .filter(|it| it["@type"] == "type.googleapis.com/google.rpc.ErrorInfo")
            .collect();
        let [info] = infos[..] else {
            panic!("one ErrorInfo: {body_of_it}");
        };
        let id = text(&info["metadata"], "operationId");
        let place = headers["location"].to_str().expect("text");
        assert_eq!(place, format!("/operations/{id}"));
        let read = server
            .http
            .get(server.url(place))
            .send()
            .await
            .expect("a reply");
        let read: Value =
            serde_json::from_slice(&read.bytes().await.expect("a body")).expect("JSON");
        let (failed, message) = failure(&read);
        assert_eq!((failed, message), (code, text(&body_of_it, "message")));
        // Whom that is not asked of gets the operation, as ever.
        let (headers, status, operation) = send(&server, &[extra], body).await;
        assert_eq!(status, 200);
        assert!(!headers.contains_key("preference-applied"));
        assert_eq!(failure(&operation).0, code);
        assert!(!image_id(&operation).is_empty());
    }
    // A cancel is told by the code of the contract.
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let head = format!(
        "POST /compute/v1/images:upload?folderId=f HTTP/1.1\r\nHost: {}\r\n\
         Prefer: handling=strict\r\nContent-Length: 1000\r\n\r\n",
        server.address
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let cancelled = test_support::eventually("it is listed", || async {
        let list = serde_json::json!({"folderId": "f"});
        let page = server.ask(test_support::Method::ComputeList, list).await;
        let images = page["images"].as_array()?.clone();
        let creating = images
            .into_iter()
            .find(|image| image["status"] == "CREATING")?;
        let operations = serde_json::json!({"imageId": creating["id"]});
        let page = server
            .ask(test_support::Method::ListOperations, operations)
            .await;
        Some(text(&page["operations"][0], "id").to_owned())
    })
    .await;
    let cancel = serde_json::json!({"operationId": cancelled});
    server
        .ask(test_support::Method::OperationCancel, cancel)
        .await;
    let mut answer = [0; 12];
    let read = within("the cancel is answered", stream.read_exact(&mut answer)).await;
    read.expect("an answer");
    assert_eq!(&answer, b"HTTP/1.1 499");
}
