//! `--simulate-latency`: operations run for as long as it says, so that programs that wait for
//! operations can be tested.

use std::time::{Duration, Instant};

use desktop_images::contract::yandex::cloud::clouddesktop::v1::api::CopyDesktopImageRequest;
use serde_json::{Value, json};
use test_support::{
    Clients, Disk, Fill, Method, SlowUpload, TestServer, Transport, Watch, failure, image_id,
    response, text,
};
use tonic::Code;

const POLL_INTERVAL: &str = "x-operation-poll-interval";
const NEVER: Duration = Duration::from_secs(3600);

/// A server that keeps operations running, with a compute and a desktop image made before.
async fn slow_server(latency: Duration) -> (TestServer, String, String) {
    let mut server = TestServer::start().await;
    let disk = Disk::mbr(1, Fill::Random(1));
    let compute = server.compute_image("f", "compute", &disk).await;
    let desktop = server.copied("f", "desktop", &compute).await;
    server.config.operations.simulated_latency = latency;
    server.restart().await;
    (server, compute, desktop)
}

async fn cancel(clients: &Clients, operation: &Value) {
    let request = json!({"operationId": operation["id"]});
    clients.ask(Method::OperationCancel, request).await;
    let ended = clients.wait(text(operation, "id")).await;
    assert_eq!(failure(&ended).0, Code::Cancelled);
}

#[tokio::test]
async fn what_makes_an_image_shows_it_being_created_and_can_be_cancelled() {
    let (server, compute, _) = slow_server(NEVER).await;
    for caller in server.callers() {
        for (method, get) in [
            (Method::Copy, Method::DesktopGet),
            (Method::Create, Method::ComputeGet),
        ] {
            let request = json!({"folderId": "f", "name": "new", "imageId": compute});
            let accepted = caller.call(method, request.clone()).await.unwrap();
            assert_eq!(accepted["done"], false);
            let image = json!({"imageId": image_id(&accepted)});
            let shown = caller.call(get, image.clone()).await.unwrap();
            assert_eq!(shown["status"], "CREATING");
            // Its name is taken already.
            let refusal = caller.call(method, request.clone()).await.unwrap_err();
            assert_eq!(refusal.code, Code::AlreadyExists);
            cancel(&server, &accepted).await;
            let gone = caller.call(get, image).await.unwrap_err();
            assert_eq!(gone.code, Code::NotFound);
            let again = caller.call(method, request).await.unwrap();
            cancel(&server, &again).await;
        }
    }
    server.has_blobs(1).await;
}

#[tokio::test]
async fn an_upload_is_answered_late_and_can_be_cancelled() {
    let (server, ..) = slow_server(NEVER).await;
    let disk = Disk::mbr(1, Fill::Random(2));
    let upload = SlowUpload::start(&server, "f", "new", &disk).await;
    let operation = json!({"id": upload.operation_id});
    let image = json!({"imageId": upload.image_id});
    let reply = tokio::spawn(upload.finish());
    let shown = server.ask(Method::ComputeGet, image.clone()).await;
    assert_eq!(shown["status"], "CREATING");
    assert!(!reply.is_finished());
    cancel(&server, &operation).await;
    assert_eq!(failure(&reply.await.unwrap()).0, Code::Cancelled);
    let caller = server.caller(Transport::Grpc);
    let gone = caller.call(Method::ComputeGet, image);
    assert_eq!(gone.await.unwrap_err().code, Code::NotFound);
    server.has_blobs(1).await;
}

#[tokio::test]
async fn what_changes_an_image_leaves_it_as_it_was_when_it_is_cancelled() {
    let (server, compute, desktop) = slow_server(NEVER).await;
    for caller in server.callers() {
        for (id, get, update, delete) in [
            (
                &desktop,
                Method::DesktopGet,
                Method::DesktopUpdate,
                Method::DesktopDelete,
            ),
            (
                &compute,
                Method::ComputeGet,
                Method::ComputeUpdate,
                Method::ComputeDelete,
            ),
        ] {
            let before = caller.call(get, json!({"imageId": id})).await.unwrap();
            let request = json!({"imageId": id, "updateMask": "name", "name": "changed"});
            let accepted = caller.call(update, request).await.unwrap();
            assert_eq!(accepted["done"], false);
            let shown = caller.call(get, json!({"imageId": id})).await.unwrap();
            assert_eq!(shown, before);
            cancel(&server, &accepted).await;

            let accepted = caller.call(delete, json!({"imageId": id})).await.unwrap();
            assert_eq!(accepted["done"], false);
            let shown = caller.call(get, json!({"imageId": id})).await.unwrap();
            assert_eq!(shown["status"], "DELETING");
            let again = caller.call(delete, json!({"imageId": id})).await;
            assert_eq!(again.unwrap_err().code, Code::FailedPrecondition);
            cancel(&server, &accepted).await;
            let shown = caller.call(get, json!({"imageId": id})).await.unwrap();
            assert_eq!(shown, before);
        }
    }
}

#[tokio::test]
async fn operations_run_for_that_long_and_then_end() {
    let latency = Duration::from_secs(1);
    let (server, compute, desktop) = slow_server(latency).await;
    let [grpc, rest] = server.callers();
    let new = |name: &str| json!({"folderId": "f", "name": name, "imageId": compute});
    let change = |id: &str| json!({"imageId": id, "updateMask": "description", "description": "d"});
    let mut running = Vec::new();
    for (caller, method, request) in [
        (&grpc, Method::Copy, new("one")),
        (&rest, Method::Copy, new("two")),
        (&rest, Method::Create, new("three")),
        (&grpc, Method::DesktopUpdate, change(&desktop)),
        (&rest, Method::ComputeUpdate, change(&compute)),
    ] {
        let asked = Instant::now();
        let accepted = caller.call(method, request).await.unwrap();
        assert_eq!(accepted["done"], false, "{method:?}");
        running.push((method, asked, accepted));
    }
    let ends = running.into_iter().map(|(method, asked, accepted)| {
        let server = &server;
        async move {
            let watch = Watch::start(server, text(&accepted, "id")).await;
            let states = watch.rest().await;
            assert!(asked.elapsed() >= latency, "{method:?} was too fast");
            let last = states.last().expect("an end");
            assert!(matches!(text(response(last), "status"), "ACTIVE" | "READY"));
        }
    });
    futures_util::future::join_all(ends).await;
    let asked = Instant::now();
    let disk = Disk::mbr(1, Fill::Random(2));
    response(&server.uploaded("f", "uploaded", &disk).await);
    assert!(asked.elapsed() >= latency, "an upload was too fast");
    for (method, get, id) in [
        (Method::DesktopDelete, Method::DesktopGet, &desktop),
        (Method::ComputeDelete, Method::ComputeGet, &compute),
    ] {
        let asked = Instant::now();
        let accepted = server.ask(method, json!({"imageId": id})).await;
        assert_eq!(accepted["done"], false, "{method:?}");
        response(&server.wait(text(&accepted, "id")).await);
        assert!(asked.elapsed() >= latency, "{method:?} was too fast");
        let gone = grpc.call(get, json!({"imageId": id})).await;
        assert_eq!(gone.unwrap_err().code, Code::NotFound);
    }
}

#[tokio::test]
async fn what_runs_says_when_to_ask_again() {
    let (server, compute, _) = slow_server(NEVER).await;
    let request = CopyDesktopImageRequest {
        folder_id: "f".to_owned(),
        name: "1".to_owned(),
        image_id: compute.clone(),
        ..CopyDesktopImageRequest::default()
    };
    let reply = server.desktop().copy(request).await.unwrap();
    assert_eq!(reply.metadata().get(POLL_INTERVAL).unwrap(), "1");
    let id = &reply.get_ref().id;
    let get = || async {
        let url = server.url(&format!("/operations/{id}"));
        server.http.get(url).send().await.unwrap()
    };
    assert_eq!(get().await.headers()[POLL_INTERVAL], "1");
    let body = json!({"folderId": "f", "name": "2", "imageId": compute}).to_string();
    let url = server.url("/cloud-desktop/v1/images:copy");
    let reply = server.http.post(url).body(body).send().await.unwrap();
    assert_eq!(reply.headers()[POLL_INTERVAL], "1");
    // What has ended says nothing.
    cancel(&server, &json!({"id": id})).await;
    assert_eq!(get().await.headers().get(POLL_INTERVAL), None);
}
