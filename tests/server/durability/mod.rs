//! The order in which data reach the disk, seen from outside: the program runs under `strace`, and no
//! acknowledgement leaves it before it is durable.

mod order;
mod trace;
mod wrong_orders;

use std::path::Path;

use futures_util::future::join_all;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::process::Command;

use self::order::{blob_precedes_commit, reply_follows_commit};
use test_support::{
    Clients, Disk, Fill, Method, Program, ServerProcess, Transport, eventually, image_id,
    may_trace, response, text,
};

/// The calls that write, send, sync or make files. More than a page of the database is not needed
/// of what they are given.
const TRACED: &str = "trace=write,writev,pwrite64,pwritev,pwritev2,ftruncate,sendto,sendmsg,\
                      fsync,fdatasync,openat";
const TRACING: [&str; 9] = ["-D", "-f", "-yy", "-x", "-s", "8192", "-e", TRACED, "-o"];
const TRACE: &str = "trace";
const KEY: &str = "idempotency-key";

/// A request that was granted: bytes that its commit was the first to store, and bytes that only
/// replies to it hold.
struct Acknowledged {
    what: String,
    stored: Vec<u8>,
    sent: Vec<String>,
}

impl Acknowledged {
    fn new(what: impl Into<String>, stored: impl Into<Vec<u8>>, operation: &Value) -> Self {
        Self {
            what: what.into(),
            stored: stored.into(),
            sent: vec![text(operation, "id").to_owned()],
        }
    }
}

#[tokio::test]
async fn no_reply_precedes_its_commit_and_no_commit_precedes_its_blob() {
    const TEST: &str = "order of durability";
    if !may_trace(TEST) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let server = start(folder.path()).await;
    let (mut acknowledged, mut digests) = (Vec::new(), Vec::new());

    let disk = Disk::mbr(2, Fill::Random(1));
    let operation = server.uploaded("f", "uploaded", &disk).await;
    let source = image_id(&operation);
    let digest = Sha256::digest(&disk).to_vec();
    acknowledged.push(Acknowledged::new("upload", digest.clone(), &operation));
    digests.push(digest);

    let disk = Disk::mbr(2, Fill::Random(2));
    let (accepted, done) = import(&server, folder.path(), &disk).await;
    let digest = Sha256::digest(&disk).to_vec();
    acknowledged.push(Acknowledged::new(
        "acceptance of an import",
        "imported",
        &accepted,
    ));
    let mut end = Acknowledged::new("end of an import", digest.clone(), &done);
    end.sent.push(r#""done":true"#.to_owned());
    acknowledged.push(end);
    digests.push(digest);

    acknowledged.extend(changes(&server, &source).await);
    acknowledged.extend(copies_at_once(&server, &source).await);

    let calls = trace::parse(&ended(server, folder.path()).await).unwrap();
    for Acknowledged { what, stored, sent } in acknowledged {
        let sent: Vec<&[u8]> = sent.iter().map(String::as_bytes).collect();
        let found = reply_follows_commit(&calls, &stored, &sent);
        assert_eq!(found, Ok(()), "{what}");
    }
    for digest in digests {
        assert_eq!(blob_precedes_commit(&calls, &digest), Ok(()));
    }
}

async fn start(folder: &Path) -> ServerProcess {
    let mut strace = Command::new("strace");
    strace
        .args(TRACING)
        .arg(folder.join(TRACE))
        .arg(Program::path());
    ServerProcess::listening(ServerProcess::serve(strace, folder), folder).await
}

/// Stops the server; its whole trace.
async fn ended(server: ServerProcess, folder: &Path) -> String {
    server.terminate();
    assert_eq!(server.exit_code().await, Some(0));
    // strace ends after what it traces.
    eventually("the trace ends", || async {
        let text = std::fs::read_to_string(folder.join(TRACE)).expect("a trace");
        let ended = text
            .lines()
            .any(|line| line.ends_with("+++ exited with 0 +++"));
        (ended && text.ends_with('\n')).then_some(text)
    })
    .await
}

/// The operation of an import as it was accepted, and as it ended.
async fn import(server: &Clients, folder: &Path, disk: &[u8]) -> (Value, Value) {
    let path = folder.join("imports/disk.img");
    std::fs::write(&path, disk).unwrap();
    let uri = format!("file://{}", path.display());
    let caller = server.caller(Transport::Rest);
    let request = json!({"folderId": "f", "name": "imported", "uri": uri});
    let accepted = caller.call(Method::Create, request).await.unwrap();
    let look = || async {
        let request = json!({"operationId": accepted["id"]});
        let operation = caller.call(Method::OperationGet, request).await.unwrap();
        (operation["done"] == true).then_some(operation)
    };
    let done = eventually("the import ends", look).await;
    response(&done);
    (accepted, done)
}

/// A copy, an update and a deletion, one after the other, over each transport.
async fn changes(server: &Clients, source: &str) -> Vec<Acknowledged> {
    let mut acknowledged = Vec::new();
    for transport in [Transport::Grpc, Transport::Rest] {
        let caller = server.caller(transport);
        let name = |verb: &str| format!("{verb} over {transport:?}");
        let (copied, renamed) = (name("copied"), name("renamed"));
        let request = json!({"folderId": "f", "name": copied, "imageId": source});
        let operation = caller.call(Method::Copy, request).await.unwrap();
        let image = image_id(&operation);
        acknowledged.push(Acknowledged::new(&copied, copied.as_str(), &operation));
        let request = json!({"imageId": image, "name": renamed, "updateMask": "name"});
        let operation = caller.call(Method::DesktopUpdate, request).await.unwrap();
        acknowledged.push(Acknowledged::new(&renamed, renamed.as_str(), &operation));
        // A deletion adds no name, but its key.
        let key = uuid::Uuid::new_v4();
        let request = json!({"imageId": image});
        let headers = [(KEY, key.to_string())];
        let headers = headers.each_ref().map(|(name, key)| (*name, key.as_str()));
        let operation = caller
            .call_with(Method::DesktopDelete, request, &headers)
            .await;
        let stored = key.into_bytes();
        acknowledged.push(Acknowledged::new(
            name("deleted"),
            stored,
            &operation.unwrap(),
        ));
    }
    acknowledged
}

/// Copies that share commits.
async fn copies_at_once(server: &Clients, source: &str) -> Vec<Acknowledged> {
    let copies = (0..32).map(|number| async move {
        let transport = [Transport::Grpc, Transport::Rest][number % 2];
        let name = format!("one-of-many-{number:02}");
        let request = json!({"folderId": "g", "name": name, "imageId": source});
        let operation = server.caller(transport).call(Method::Copy, request).await;
        Acknowledged::new(&name, name.as_str(), &operation.unwrap())
    });
    join_all(copies).await
}
