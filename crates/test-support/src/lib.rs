//! Knows how to start a whole server, to ask it things, and to make disk images for it: for the tests and benches of
//! the program. Never mentions what a test expects of it.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a test that fails may panic where it stands"
)]

mod authority;
mod call;
mod contract;
mod database;
mod disks;
mod postgres_faults;
mod postgres_proxy;
pub mod postgres_server;
mod process;
mod program;
mod refusal;
mod s3s_fs;
pub mod seaweedfs;
mod server;
mod slow_upload;
mod small_disk;
mod streams;
mod tools;

pub use authority::{Authority, Signed};
pub use call::{Caller, Method, NoReply, Transport};
pub use contract::{from_json, to_json};
pub use database::Database;
pub use disks::{Disk, Fill};
pub use postgres_faults::PostgresFaults;
pub use postgres_proxy::{Lost, PostgresProxy};
pub use process::ServerProcess;
pub use program::Program;
pub use refusal::{Refusal, quota_violations};
pub use server::{Clients, TestServer, blob_files};
pub use slow_upload::SlowUpload;
pub use small_disk::SmallDisk;
pub use streams::{Watch, audit_events, within};
pub use tools::{has_tool, left_out, may_trace, run, say_left_out};

use std::future::Future;
use std::time::{Duration, Instant};

use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(10);

/// Polls until `attempt` gives something, and panics when that takes longer than is bearable.
pub async fn eventually<T, F: Future<Output = Option<T>>>(
    what: &str,
    attempt: impl FnMut() -> F,
) -> T {
    eventually_within(PATIENCE, what, attempt).await
}

/// The same with another patience.
pub async fn eventually_within<T, F: Future<Output = Option<T>>>(
    patience: Duration,
    what: &str,
    mut attempt: impl FnMut() -> F,
) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = attempt().await {
            return found;
        }
        assert!(started.elapsed() < patience, "waited in vain: {what}");
        tokio::time::sleep(PAUSE).await;
    }
}

/// The resource of an operation that is done and succeeded.
pub fn response(operation: &Value) -> &Value {
    assert_eq!(operation["done"], true, "{operation}");
    assert!(operation.get("error").is_none(), "{operation}");
    &operation["response"]
}

/// Code and message of an operation that is done and failed.
pub fn failure(operation: &Value) -> (tonic::Code, &str) {
    assert_eq!(operation["done"], true, "{operation}");
    assert!(operation.get("response").is_none(), "{operation}");
    let error = &operation["error"];
    let code = error["code"].as_i64().expect("a failed operation");
    let message = error["message"].as_str().expect("a message");
    ((code as i32).into(), message)
}

/// The text under a name, which must be there.
pub fn text<'v>(value: &'v Value, name: &str) -> &'v str {
    value[name]
        .as_str()
        .unwrap_or_else(|| panic!("no text under {name:?}: {value}"))
}

/// The id of the image that an operation is about.
pub fn image_id(operation: &Value) -> String {
    text(&operation["metadata"], "imageId").to_owned()
}

/// A 64-bit number, which is text in JSON.
pub fn number(value: &Value, name: &str) -> i64 {
    text(value, name).parse().expect("a number")
}
