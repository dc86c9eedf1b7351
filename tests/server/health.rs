//! Health for orchestrators and load balancers: `/livez`, `/readyz` and gRPC health by service, while the server runs,
//! while something is lost, and while it stops.

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use desktop_images::contract;
use http::Method as Verb;
use serde_json::{Value, json};
use test_support::{
    Clients, Disk, Fill, Method, ServerProcess, SlowUpload, TestServer, Transport, eventually,
    response, within,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus};

/// The services that every gRPC server has.
const COMMON: [&str; 3] = [
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
];

/// A request for health by HTTP, with the address of a pod in `Host`, as an orchestrator sends it.
async fn ask(address: SocketAddr, verb: Verb, path: &str) -> (u16, String) {
    let url = format!("http://{address}{path}");
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let request = client.request(verb, url).header("host", "10.1.2.3:8080");
    let reply = request.send().await.unwrap();
    (reply.status().as_u16(), reply.text().await.unwrap())
}

/// The status of readiness, and each check that fails with its reason.
async fn readiness(address: SocketAddr) -> (u16, Vec<(String, String)>) {
    let (status, body) = ask(address, Verb::GET, "/readyz").await;
    let told: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(told["ready"], json!(status == 200), "{told}");
    let checks = told["checks"].as_object().unwrap();
    let names: Vec<_> = checks.keys().map(String::as_str).collect();
    assert!(names.iter().all(|it| CHECKS.contains(it)), "{names:?}");
    let failing = checks.iter().filter(|(_, check)| check["ok"] == false);
    let reason = |check: &Value| check["reason"].as_str().unwrap().to_owned();
    let failing = failing.map(|(name, check)| (name.clone(), reason(check)));
    (status, failing.collect())
}

const CHECKS: [&str; 4] = ["store", "schema", "blobs", "draining"];

async fn status_of(channel: &Channel, service: &str) -> Result<ServingStatus, Code> {
    let mut client = HealthClient::new(channel.clone());
    let service = service.to_owned();
    match client.check(HealthCheckRequest { service }).await {
        Ok(reply) => Ok(ServingStatus::try_from(reply.into_inner().status).unwrap()),
        Err(status) => Err(status.code()),
    }
}

#[tokio::test]
async fn health_is_told_to_whoever_asks_by_whatever_name() {
    for require_auth in [false, true] {
        let server = TestServer::start_with(|config| config.require_auth = require_auth).await;
        let address = server.address;
        let (status, body) = ask(address, Verb::GET, "/livez").await;
        assert_eq!((status, body.as_str()), (200, "{\"live\":true}\n"));
        let all = eventually("all checks were made", || async {
            let (status, body) = ask(address, Verb::GET, "/readyz").await;
            assert_eq!(status, 200, "{body}");
            let told: Value = serde_json::from_str(&body).unwrap();
            (told["checks"].as_object().unwrap().len() == CHECKS.len()).then_some(told)
        })
        .await;
        let ok = json!({"ok": true});
        let all_ok = json!({"ready": true, "checks": {"store": ok, "schema": ok, "blobs": ok, "draining": ok}});
        assert_eq!(all, all_ok);
        for path in ["/livez", "/readyz"] {
            assert_eq!(ask(address, Verb::HEAD, path).await, (200, String::new()));
            assert_eq!(ask(address, Verb::OPTIONS, path).await.0, 204);
            assert_eq!(ask(address, Verb::POST, path).await.0, 405);
        }
        let (status, _) = ask(address, Verb::GET, "/readyz/").await;
        assert_ne!(status, 200, "nothing else is open");
    }
}

#[tokio::test]
async fn each_service_has_its_own_health() {
    let server = TestServer::start().await;
    for service in contract::services().chain(COMMON).chain([""]) {
        let told = status_of(&server.channel, service).await;
        assert_eq!(told, Ok(ServingStatus::Serving), "{service:?}");
    }
    let strange = status_of(&server.channel, "no.such.Service").await;
    assert_eq!(strange, Err(Code::NotFound));
}

#[tokio::test]
async fn readiness_names_what_is_lost_until_it_is_back() {
    let server = TestServer::start().await;
    let data = server.data();
    let becomes = |failing: &'static [&'static str]| {
        let address = server.address;
        async move {
            let what = format!("{failing:?} fail");
            let found = eventually(&what, || async {
                let (status, found) = readiness(address).await;
                assert_eq!(status == 200, found.is_empty());
                let names: Vec<_> = found.iter().map(|(name, _)| name.as_str()).collect();
                (names == failing).then_some(found)
            });
            for (_, reason) in found.await {
                assert!(!reason.contains('/'), "a path is told: {reason}");
            }
        }
    };
    becomes(&[]).await;
    let service = String::new();
    let watched = HealthClient::new(server.channel.clone())
        .watch(HealthCheckRequest { service })
        .await;
    let mut watched = watched.unwrap().into_inner();
    for (name, failing) in [
        ("contents", &["blobs"] as &[_]),
        ("metadata.sqlite", &["store"]),
    ] {
        fs::rename(data.join(name), data.join("away")).unwrap();
        becomes(failing).await;
        let told = status_of(&server.channel, "").await;
        assert_eq!(told, Ok(ServingStatus::NotServing));
        assert_eq!(ask(server.address, Verb::GET, "/livez").await.0, 200);
        fs::rename(data.join("away"), data.join(name)).unwrap();
        becomes(&[]).await;
    }
    // Another process, of a later version, has brought the schema up to date.
    let database = rusqlite::Connection::open(data.join("metadata.sqlite")).unwrap();
    let version: i64 = database
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .unwrap();
    let set = |version: i64| database.pragma_update(None, "user_version", version);
    set(99).unwrap();
    becomes(&["schema"]).await;
    set(version).unwrap();
    becomes(&[]).await;
    // A watcher is told of changes, and of nothing else.
    for _ in 0..3 {
        for expected in [ServingStatus::Serving, ServingStatus::NotServing] {
            let told = within("a change is told", watched.message()).await;
            assert_eq!(told.unwrap().unwrap().status(), expected);
        }
    }
}

#[tokio::test]
async fn readiness_fails_before_anything_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let server = ServerProcess::start_with(folder.path(), &["--drain-delay", "1h"]).await;
    server.terminate();
    let failing = eventually("readiness fails", || async {
        let (status, failing) = readiness(server.address).await;
        (status == 503).then_some(failing)
    });
    let reason = "the server is stopping".to_owned();
    assert_eq!(failing.await, [("draining".to_owned(), reason)]);
    eventually("gRPC health fails", || async {
        let told = status_of(&server.channel, "").await;
        (told == Ok(ServingStatus::NotServing)).then_some(())
    })
    .await;
    assert_eq!(ask(server.address, Verb::GET, "/livez").await.0, 200);
    // New connections and new work are taken as before.
    let disk = Disk::mbr(1, Fill::Random(1));
    let source = server.compute_image("f", "source", &disk).await;
    let copy = server.copied("f", "copy", &source).await;
    assert!(server.downloaded(&copy).await == disk);
    let (_, failing) = readiness(server.address).await;
    assert_eq!(failing.len(), 1, "the checks go on, and change nothing");
    server.terminate();
    assert_eq!(server.exit_code().await, Some(130), "cut short");
}

/// A proxy that passes on what the server sends only while it is open.
struct Proxy {
    address: SocketAddr,
    open: watch::Sender<bool>,
    /// The bytes that the client has sent.
    sent: watch::Receiver<usize>,
}

impl Proxy {
    async fn start(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (open, gate) = watch::channel(true);
        let (counter, sent) = watch::channel(0);
        tokio::spawn(async move {
            let (client, _) = listener.accept().await.unwrap();
            let server = TcpStream::connect(server).await.unwrap();
            let ((from_client, to_client), (from_server, to_server)) =
                (client.into_split(), server.into_split());
            let (_always, open) = watch::channel(true);
            let (uncounted, _) = watch::channel(0);
            tokio::join!(
                pass(from_client, to_server, open, counter),
                pass(from_server, to_client, gate, uncounted),
            );
        });
        Self {
            address,
            open,
            sent,
        }
    }
}

async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut gate: watch::Receiver<bool>,
    counter: watch::Sender<usize>,
) {
    let mut buffer = vec![0; 16 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        let passed = gate.wait_for(|open| *open).await.is_ok();
        if !passed || to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
        counter.send_modify(|sum| *sum += count);
    }
}

#[tokio::test]
async fn what_comes_too_late_is_refused_and_what_runs_ends_well() {
    let mut server = TestServer::start_with(|config| {
        config.drain_timeout = Duration::from_secs(3600);
    })
    .await;
    let disk = Disk::mbr(2, Fill::Random(1));
    let (first, rest) = disk.split_at(1 << 20);
    let upload = SlowUpload::start(&server.clients, "f", "slow", first).await;

    // The client does not learn that the server stops.
    let mut proxy = Proxy::start(server.address).await;
    let channel = Endpoint::from_shared(format!("http://{}", proxy.address)).unwrap();
    let channel = channel.connect().await.unwrap();
    let told = status_of(&channel, "").await;
    assert_eq!(told, Ok(ServingStatus::Serving));
    proxy.open.send(false).unwrap();
    let address = server.address;
    let stopping = tokio::spawn(async move { server.stop().await });
    eventually("no connection is taken", || async {
        TcpStream::connect(address).await.is_err().then_some(())
    })
    .await;
    let client = Clients {
        channel,
        ..Clients::new(address)
    };
    let before = *proxy.sent.borrow_and_update();
    let client = client.caller(Transport::Grpc);
    let list = tokio::spawn(async move {
        let request = json!({"folderId": "f"});
        client.call(Method::DesktopList, request).await
    });
    proxy.sent.wait_for(|sent| *sent > before).await.unwrap();
    proxy.open.send(true).unwrap();
    let refusal = list.await.unwrap().unwrap_err();
    assert_eq!(refusal.code, Code::Unavailable, "{refusal:?}");
    assert_eq!(refusal.message, "The server is shutting down");

    upload.send(rest).await;
    let operation = upload.finish().await;
    assert_eq!(response(&operation)["status"], "READY");
    within("the server stops", stopping).await.unwrap();
}
