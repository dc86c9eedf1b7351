//! The command line, run as the program that users have.

use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use desktop_images::contract::yandex::cloud::operation::{
    CancelOperationRequest, GetOperationRequest, Operation, operation,
    operation_service_server::{OperationService, OperationServiceServer},
};
use serde_json::{Value, json};
use test_support::{Disk, Fill, Method, Program, TestServer, audit_events, text, within};
use tokio::io::{AsyncBufReadExt, BufReader};
use tonic::{Request, Response, Status};

#[tokio::test]
async fn quotas_are_set_listed_and_taken_away() {
    let server = TestServer::start().await;
    let run = |arguments: &'static str| Program::run(server.address, arguments);
    let set = "quota set --name vdi.desktopImages.size --limit 10GiB --folder-id f --format json";
    let quota = run(set).await.json();
    let limit = (10i64 << 30).to_string();
    let expected = json!({
        "folderId": "f", "name": "vdi.desktopImages.size", "limit": limit, "used": "0"
    });
    assert_eq!(quota, expected);
    run("quota set --name compute.images.count --limit 0")
        .await
        .succeeded();
    let all = run("quota list --format json").await.json();
    assert_eq!(all.as_array().unwrap().len(), 2);
    let one = run("quota list --folder-id f --format json").await.json();
    assert_eq!(one, json!([expected]));
    let table = run("quota list").await.succeeded();
    let lines: Vec<Vec<&str>> = table
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(
        lines[1],
        ["(all", "together)", "compute.images.count", "0", "0"]
    );
    assert_eq!(
        lines[2],
        ["f", "vdi.desktopImages.size", "10", "GiB", "0", "B"]
    );
    for name in [
        "compute.images.count",
        "vdi.desktopImages.size --folder-id f",
    ] {
        let set = format!("quota set --limit none --name {name}");
        Program::run(server.address, &set).await.succeeded();
    }
    assert_eq!(run("quota list --format json").await.json(), json!([]));
    let unknown = run("quota set --name disks --limit 1").await;
    assert_eq!(unknown.exit_code, Some(3));
    assert!(
        unknown.errors.contains("compute.images.size"),
        "{}",
        unknown.errors
    );
}

#[tokio::test]
async fn audit_events_are_printed_one_a_line() {
    let server = TestServer::start().await;
    let disk = Disk::mbr(1, Fill::Sparse(1));
    let source = server.compute_image("f", "source", &disk).await;
    server.copied("g", "1", &source).await;
    let events = audit_events(&server, "", 0).await;
    for (arguments, expected) in [
        ("audit".to_owned(), &events[..]),
        ("audit --folder-id g".to_owned(), &events[2..]),
        (
            format!("audit --after {}", text(&events[1], "sequence")),
            &events[2..],
        ),
    ] {
        let printed = Program::run(server.address, &arguments).await.succeeded();
        let printed: Vec<Value> = printed
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(printed, expected, "{arguments}");
    }
}

#[tokio::test]
async fn audit_follows_until_nobody_reads() {
    let server = TestServer::start().await;
    let disk = Disk::mbr(1, Fill::Sparse(1));
    let source = server.compute_image("f", "source", &disk).await;
    let mut program = Program::command(server.address, "audit --follow --folder-id g")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(program.stdout.take().unwrap()).lines();
    let copy = server.copied("g", "1", &source).await;
    let line = within("an event is printed", lines.next_line()).await;
    let event: Value = serde_json::from_str(&line.unwrap().unwrap()).unwrap();
    assert_eq!(event["imageId"], copy.as_str());
    drop(lines);
    server.copied("g", "2", &source).await;
    let ended = within("the program ends", program.wait_with_output())
        .await
        .unwrap();
    assert_eq!(ended.status.code(), Some(0));
    assert!(
        ended.stderr.is_empty(),
        "{}",
        String::from_utf8_lossy(&ended.stderr)
    );
}

#[tokio::test]
async fn commands_wait_for_what_they_start() {
    let server = TestServer::start_with(|config| {
        config.operations.simulated_latency = Duration::from_secs(1);
    })
    .await;
    let uri = server.importable("disk.img", &Disk::mbr(1, Fill::Sparse(1)));
    let started = Instant::now();
    let import = format!("compute-image import --uri {uri} --folder-id f --format json");
    let image = Program::run(server.address, &import).await.json();
    assert_eq!(image["status"], "READY");
    assert!(started.elapsed() >= Duration::from_secs(1));
    let copy = format!(
        "image copy --compute-image-id {} --new-image-name n --folder-id f --format json",
        text(&image, "id")
    );
    let operation = Program::run(server.address, &format!("{copy} --async"))
        .await
        .json();
    assert_eq!(operation["done"], false);
    let wait = format!("operation wait {} --format json", text(&operation, "id"));
    let image = Program::run(server.address, &wait).await.json();
    assert_eq!(image["status"], "ACTIVE");
}

#[tokio::test]
async fn a_wait_ends_when_it_was_long_enough() {
    let server = TestServer::start().await;
    let uri = server.importable_hole("large.img", 64 << 30);
    let request = json!({"folderId": "f", "uri": uri});
    let accepted = server.ask(Method::Create, request).await;
    let id = text(&accepted, "id");
    let waited = Program::run(server.address, &format!("operation wait {id} --timeout 1s")).await;
    assert_eq!(waited.exit_code, Some(10), "{}", waited.errors);
    assert!(
        waited.errors.contains("still running after 1s"),
        "{}",
        waited.errors
    );
    let request = json!({"operationId": id});
    server.ask(Method::OperationCancel, request).await;
    let waited = Program::run(server.address, &format!("operation wait {id}")).await;
    assert_eq!(waited.exit_code, Some(9), "{}", waited.errors);
}

/// A server from before operations could be watched.
struct OldServer {
    questions: Arc<AtomicUsize>,
}

#[tonic::async_trait]
impl OperationService for OldServer {
    async fn get(
        &self,
        request: Request<GetOperationRequest>,
    ) -> Result<Response<Operation>, Status> {
        let done = self.questions.fetch_add(1, Ordering::SeqCst) >= 3;
        let mut reply = Response::new(Operation {
            id: request.into_inner().operation_id,
            done,
            result: done.then(|| {
                operation::Result::Response(prost_types::Any {
                    type_url: "type.googleapis.com/google.protobuf.Empty".to_owned(),
                    value: Vec::new(),
                })
            }),
            ..Operation::default()
        });
        let interval = "1".parse().unwrap();
        reply
            .metadata_mut()
            .insert("x-operation-poll-interval", interval);
        Ok(reply)
    }

    async fn cancel(
        &self,
        _: Request<CancelOperationRequest>,
    ) -> Result<Response<Operation>, Status> {
        Err(Status::unimplemented("not here"))
    }
}

#[tokio::test]
async fn a_server_that_cannot_be_watched_is_asked_as_often_as_it_proposes() {
    let questions = Arc::new(AtomicUsize::new(0));
    let service = OperationServiceServer::new(OldServer {
        questions: questions.clone(),
    });
    let incoming =
        tonic::transport::server::TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = incoming.local_addr().unwrap();
    let server = tonic::transport::Server::builder().add_service(service);
    let serving = tokio::spawn(server.serve_with_incoming(incoming));
    let started = Instant::now();
    let waited = Program::run(address, "operation wait e3v1").await;
    assert_eq!(waited.succeeded(), "Done\n");
    assert_eq!(questions.load(Ordering::SeqCst), 4);
    // The first question is asked at once, two more after a second each.
    assert!(started.elapsed() >= Duration::from_secs(2));
    serving.abort();
}
