//! Requests that are not one message in one piece.

use test_support::TestServer;
use tonic::Code;

use super::{LIMIT, LIST, LIST_REQUEST, call, frame};

const WATCH: &str = "/desktopimages.v1.OperationWatchService/Watch";
const CHECK: &str = "/grpc.health.v1.Health/Check";

/// A field that no message has, of so many bytes with its tag: all readers pass over it.
pub fn padding(length: usize) -> Vec<u8> {
    // Tag and length take 4 + 4 bytes where the length takes four.
    let inner = length - 8;
    let mut bytes = vec![0xfa, 0xff, 0xff, 0x0f];
    for shift in [0, 7, 14, 21] {
        let more = if shift < 21 { 0x80 } else { 0 };
        bytes.push(((inner >> shift) & 0x7f) as u8 | more);
    }
    bytes.resize(length, b'x');
    bytes
}

fn whole(message: &[u8]) -> Vec<Vec<u8>> {
    vec![frame(0, message)]
}

/// As many pieces as there are bytes, but no more than a hundred.
fn cut(bytes: &[u8]) -> Vec<Vec<u8>> {
    let size = bytes.len().div_ceil(100);
    bytes.chunks(size).map(<[u8]>::to_vec).collect()
}

#[tokio::test]
async fn a_request_may_come_in_any_pieces_and_without_te() {
    let server = TestServer::start().await;
    let bytes = frame(0, LIST_REQUEST);
    for (name, headers, pieces) in [
        ("whole", &[][..], vec![bytes.clone()]),
        ("byte by byte", &[], cut(&bytes)),
        ("empty pieces", &[], vec![vec![], bytes.clone(), vec![]]),
        ("no te", &[("te", "")], vec![bytes.clone()]),
        (
            "identity",
            &[("grpc-encoding", "identity")],
            vec![bytes.clone()],
        ),
    ] {
        let reply = call(server.address, LIST, headers, pieces).await;
        assert_eq!(reply.code(), Code::Ok, "{name}: {}", reply.message());
        assert_eq!(reply.http, 200, "{name}");
        assert_eq!(reply.messages(), [(0, vec![])], "{name}");
    }
}

#[tokio::test]
async fn what_is_no_request_is_refused_by_the_codes_of_grpc_and_never_hangs() {
    let server = TestServer::start().await;
    let list = frame(0, LIST_REQUEST);
    let huge = [&[0][..], &u32::MAX.to_be_bytes()].concat();
    let cases: Vec<(&str, Vec<Vec<u8>>, Code, &str)> = vec![
        ("nothing", vec![], Code::Internal, "no message"),
        ("an empty piece", vec![vec![]], Code::Internal, "no message"),
        (
            "half a prefix",
            vec![list[..3].to_vec()],
            Code::Internal,
            "ends within",
        ),
        (
            "half a message",
            vec![list[..6].to_vec()],
            Code::Internal,
            "ends within",
        ),
        (
            "a length beyond the limit",
            vec![huge],
            Code::ResourceExhausted,
            "4294967295 bytes",
        ),
        (
            "two messages",
            vec![list.clone(), list.clone()],
            Code::Internal,
            "exactly one",
        ),
        (
            "two messages in a piece",
            vec![list.repeat(2)],
            Code::Internal,
            "exactly one",
        ),
        (
            "a byte behind",
            vec![[&list[..], &[0]].concat()],
            Code::Internal,
            "exactly one",
        ),
        (
            "the flag 2",
            vec![frame(2, LIST_REQUEST)],
            Code::Internal,
            "flag 2",
        ),
        (
            "the flag 255",
            vec![frame(255, LIST_REQUEST)],
            Code::Internal,
            "flag 255",
        ),
        (
            "compressed by nothing",
            vec![frame(1, LIST_REQUEST)],
            Code::Internal,
            "no grpc-encoding",
        ),
        (
            "no protobuf",
            whole(b"\xff\xff"),
            Code::Internal,
            "valid message of the type",
        ),
        (
            "text that is not UTF-8",
            whole(b"\x0a\x01\xff"),
            Code::Internal,
            "valid message",
        ),
    ];
    for (name, pieces, code, words) in &cases {
        // One message and a reply, one and a stream, and a service of another crate.
        for path in [LIST, WATCH, CHECK] {
            let reply = call(server.address, path, &[], pieces.clone()).await;
            let told = reply.message();
            assert_eq!(
                (reply.http.as_u16(), reply.code()),
                (200, *code),
                "{name} {path}: {told}"
            );
            assert!(told.contains(words), "{name} {path}: {told}");
            for library in [
                "prost",
                "protobuf message",
                "tonic",
                "h2",
                "hyper",
                "decoding",
                "EOF",
            ] {
                assert!(
                    !told.to_lowercase().contains(&library.to_lowercase()),
                    "{name} {path}: {told}"
                );
            }
        }
    }
    // The server serves on.
    let reply = call(server.address, LIST, &[], whole(LIST_REQUEST)).await;
    assert_eq!(reply.code(), Code::Ok);
}

#[tokio::test]
async fn a_message_beyond_four_mebibytes_is_resource_exhausted_however_it_comes() {
    let server = TestServer::start().await;
    let message = |length: usize| [LIST_REQUEST, &padding(length - LIST_REQUEST.len())].concat();
    let (fits, too_long) = (frame(0, &message(LIMIT)), frame(0, &message(LIMIT + 1)));
    for path in [LIST, WATCH, CHECK] {
        for (name, pieces, fits) in [
            ("at the limit", vec![fits.clone()], true),
            ("at the limit, in pieces", cut(&fits), true),
            ("beyond it", vec![too_long.clone()], false),
            ("beyond it, in pieces", cut(&too_long), false),
        ] {
            let reply = call(server.address, path, &[], pieces).await;
            let told = reply.message();
            assert_eq!(
                reply.code() != Code::ResourceExhausted,
                fits,
                "{name} {path}: {told}"
            );
            let says_so = told.contains("larger than the limit of 4194304 bytes");
            assert_eq!(says_so, !fits, "{name} {path}: {told}");
        }
    }
}

#[tokio::test]
async fn what_is_no_base64_is_refused_in_our_own_words() {
    let server = TestServer::start().await;
    for body in ["!!!!", "AAAAAAM", "=AAA"] {
        let headers = [("content-type", "application/grpc-web-text")];
        let reply = call(server.address, LIST, &headers, vec![body.into()]).await;
        assert_eq!(reply.http, 200, "{body}");
        let told = reply.message();
        assert_eq!(reply.code(), Code::Internal, "{body}: {told}");
        assert!(told.starts_with("the request"), "{body}: {told}");
    }
}
