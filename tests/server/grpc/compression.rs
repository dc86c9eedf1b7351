//! gzip and zstd, of requests and of replies.

use test_support::{Disk, Fill, TestServer};
use tonic::Code;

use super::super::codings::{Codec, gzip, ungzip, unzstd, zstd};
use super::frames::padding;
use super::{LIMIT, LIST, LIST_REQUEST, call, frame};

const CODECS: [(&str, Codec, Codec); 2] = [("gzip", gzip, ungzip), ("zstd", zstd, unzstd)];

/// Of images enough for a List that is worth compressing.
const NAMES: [&str; 6] = [
    "image-of-a-long-name-1",
    "image-of-a-long-name-2",
    "image-of-a-long-name-3",
    "image-of-a-long-name-4",
    "image-of-a-long-name-5",
    "image-of-a-long-name-6",
];

/// Methods of each kind, with a request that is granted: a reply, a stream, other crates' services.
const METHODS: [(&str, &[u8]); 4] = [
    (LIST, LIST_REQUEST),
    ("/desktopimages.v1.AuditService/Read", LIST_REQUEST),
    ("/grpc.health.v1.Health/Check", b""),
    // list_services
    (
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        b"\x3a\x00",
    ),
];

#[tokio::test]
async fn every_service_takes_and_gives_gzip_and_zstd() {
    let server = TestServer::start().await;
    let disk = Disk::mbr(1, Fill::Sparse(1));
    for name in NAMES {
        server.compute_image("f", name, &disk).await;
    }
    for (path, request) in METHODS {
        let plain = call(server.address, path, &[], vec![frame(0, request)]).await;
        assert_eq!(plain.code(), Code::Ok, "{path}: {}", plain.message());
        assert!(!plain.headers.contains_key("grpc-encoding"), "{path}");
        for (name, encode, decode) in CODECS {
            // Compressed requests, and plain ones where others are compressed.
            for (flag, message) in [(1, encode(request)), (0, request.to_vec())] {
                let headers = [
                    ("grpc-encoding", name),
                    ("grpc-accept-encoding", "identity"),
                ];
                let reply = call(server.address, path, &headers, vec![frame(flag, &message)]).await;
                assert_eq!(reply.code(), Code::Ok, "{name} {path}: {}", reply.message());
                assert_eq!(reply.messages(), plain.messages(), "{name} {path}");
            }
            let accepted = format!("br, {name}");
            let headers = [("grpc-accept-encoding", accepted.as_str())];
            let reply = call(server.address, path, &headers, vec![frame(0, request)]).await;
            assert_eq!(reply.code(), Code::Ok, "{name} {path}");
            assert_eq!(reply.headers["grpc-encoding"], name, "{path}");
            let mut messages = reply.messages();
            for (flag, message) in &mut messages {
                if *flag == 1 {
                    *message = decode(message);
                    assert!(message.len() >= 256, "{path}: small ones are left alone");
                    *flag = 0;
                }
            }
            assert_eq!(messages, plain.messages(), "{name} {path}");
            let has_long = messages.iter().any(|(_, message)| message.len() > 600);
            assert!(
                !has_long || reply.data.len() < plain.data.len(),
                "{name} {path}"
            );
        }
    }
    let long = call(server.address, LIST, &[], vec![frame(0, LIST_REQUEST)]).await;
    assert!(
        long.data.len() > 300,
        "one that is compressed: {}",
        long.data.len()
    );
}

#[tokio::test]
async fn what_cannot_be_decompressed_is_refused() {
    let server = TestServer::start().await;
    let bombs = CODECS.map(|(_, encode, _)| {
        [vec![0; 16 << 20], padding(LIMIT + 1)].map(|message| frame(1, &encode(&message)))
    });
    for (path, request) in METHODS {
        for (coding, flag) in [("deflate", 1), ("snappy", 0), ("x", 1)] {
            let headers = [("grpc-encoding", coding)];
            let reply = call(server.address, path, &headers, vec![frame(flag, request)]).await;
            assert_eq!(reply.code(), Code::Unimplemented, "{coding} {path}");
            assert_eq!(reply.headers["grpc-accept-encoding"], "identity,gzip,zstd");
            assert!(reply.message().contains(coding), "{}", reply.message());
        }
        for ((coding, encode, _), [bomb, too_long]) in CODECS.into_iter().zip(&bombs) {
            let headers = [("grpc-encoding", coding)];
            assert!(bomb.len() < 1 << 20, "small as it is sent");
            let message = encode(&[request, &padding(300)[..]].concat());
            let cut = frame(1, &message[..message.len() - 1]);
            for (name, bytes, code) in [
                ("garbage", frame(1, b"garbage"), Code::Internal),
                ("cut", cut, Code::Internal),
                ("too long", too_long.clone(), Code::ResourceExhausted),
                ("a bomb", bomb.clone(), Code::ResourceExhausted),
            ] {
                let reply = call(server.address, path, &headers, vec![bytes]).await;
                let told = reply.message();
                assert_eq!(reply.code(), code, "{name} {coding} {path}: {told}");
                let is_ours = told.starts_with("a message");
                assert!(is_ours, "{name} {coding} {path}: {told}");
            }
        }
    }
}

#[tokio::test]
async fn grpc_web_is_compressed_as_grpc_is() {
    let server = TestServer::start().await;
    let disk = Disk::mbr(1, Fill::Sparse(1));
    for name in NAMES {
        server.compute_image("f", name, &disk).await;
    }
    for (name, encode, decode) in CODECS {
        let request = server
            .http
            .post(server.url(LIST))
            .header("content-type", "application/grpc-web+proto")
            .header("grpc-encoding", name)
            .header("grpc-accept-encoding", name)
            .body(frame(1, &encode(LIST_REQUEST)));
        let reply = request.send().await.expect("a reply");
        assert_eq!(reply.headers()["grpc-encoding"], name);
        let body = reply.bytes().await.expect("a body");
        assert_eq!(body[0], 1, "compressed");
        let length = u32::from_be_bytes(body[1..5].try_into().expect("four bytes")) as usize;
        let message = decode(&body[5..5 + length]);
        assert!(message.len() > length);
        let trailers = String::from_utf8_lossy(&body[5 + length..]);
        assert!(trailers.contains("grpc-status:0"), "{trailers}");
    }
}
