//! AuditService: each change leaves an event when it starts and one when it ends.

use std::time::Duration;

use desktop_images::contract::desktopimages::v1::ReadAuditEventsRequest;
use serde_json::{Value, json};
use tonic::Code;

use crate::support::{
    Disk, Fill, Method, SlowUpload, TestServer, audit_events, failure, image_id, number, response,
    text, to_json, within,
};

/// Type, status, operation, image and request of each event.
fn outline(events: &[Value]) -> Vec<[String; 5]> {
    events
        .iter()
        .map(|event| {
            ["eventType", "status", "operationId", "imageId", "requestId"]
                .map(|name| text(event, name).to_owned())
        })
        .collect()
}

#[tokio::test]
async fn each_change_leaves_two_events() {
    let server = TestServer::start().await;
    let disk = Disk::mbr(1, Fill::Sparse(1));
    let source = server.compute_image("elsewhere", "source", &disk).await;
    let mut expected = Vec::new();
    for caller in server.callers() {
        let new = json!({"folderId": "f", "name": "n", "imageId": source});
        let mut image = Value::Null;
        for (method, event_type) in [
            (Method::Create, "compute.CreateImage"),
            (Method::ComputeUpdate, "compute.UpdateImage"),
            (Method::ComputeDelete, "compute.DeleteImage"),
            (Method::Copy, "clouddesktop.CopyDesktopImage"),
            (Method::DesktopUpdate, "clouddesktop.UpdateDesktopImage"),
            (Method::DesktopDelete, "clouddesktop.DeleteDesktopImage"),
        ] {
            let request = match method {
                Method::Create | Method::Copy => new.clone(),
                Method::ComputeDelete | Method::DesktopDelete => json!({"imageId": image}),
                _ => json!({"imageId": image, "updateMask": "name", "name": "m"}),
            };
            let request_id = uuid::Uuid::new_v4().to_string();
            let headers = [("x-request-id", request_id.as_str())];
            let operation = caller.call_with(method, request, &headers).await.unwrap();
            response(&operation);
            image = json!(image_id(&operation));
            for status in ["STARTED", "DONE"] {
                expected.push([
                    format!("desktopimages.audit.{event_type}"),
                    status.to_owned(),
                    text(&operation, "id").to_owned(),
                    image_id(&operation),
                    request_id.clone(),
                ]);
            }
        }
    }
    let events = audit_events(&server, "f", 0).await;
    assert_eq!(outline(&events), expected);
    for event in &events {
        assert_eq!(event["folderId"], "f");
        assert_eq!(event["subject"], "anonymous");
        assert_eq!(event["errorMessage"], "");
        assert!(text(event, "time").starts_with("20"), "{event}");
    }
    let all = audit_events(&server, "", 0).await;
    // The upload of the source came first.
    assert_eq!(all[2..], events);
    assert_eq!(all[0]["folderId"], "elsewhere");

    // Whoever has read up to an event reads on after it: nothing is left out, nothing comes twice.
    let sequences: Vec<i64> = all.iter().map(|event| number(event, "sequence")).collect();
    assert!(sequences.is_sorted_by(|a, b| a < b), "{sequences:?}");
    for (read, sequence) in sequences.iter().enumerate() {
        assert_eq!(audit_events(&server, "", *sequence).await, all[read + 1..]);
    }
    assert!(audit_events(&server, "", i64::MAX).await.is_empty());
    assert!(audit_events(&server, "nobody's", 0).await.is_empty());
}

#[tokio::test]
async fn what_fails_or_is_cancelled_ends_so() {
    let server = TestServer::start().await;
    let failed = server.uploaded("f", "bad", b"no disk").await;
    let (_, why) = failure(&failed);
    let disk = Disk::mbr(1, Fill::Random(1));
    let upload = SlowUpload::start(&server, "f", "slow", &disk[..300_000]).await;
    let request = json!({"operationId": upload.operation_id});
    server.ask(Method::OperationCancel, request).await;
    server.wait(&upload.operation_id).await;
    let events = audit_events(&server, "f", 0).await;
    let outline: Vec<_> = events
        .iter()
        .map(|event| ["operationId", "status", "errorMessage"].map(|name| text(event, name)))
        .collect();
    let failed = text(&failed, "id");
    assert_eq!(
        outline,
        [
            [failed, "STARTED", ""],
            [failed, "ERROR", why],
            [&upload.operation_id, "STARTED", ""],
            [&upload.operation_id, "CANCELLED", ""],
        ]
    );
}

#[tokio::test]
async fn what_is_refused_or_repeated_leaves_nothing() {
    let server = TestServer::start().await;
    let disk = Disk::mbr(1, Fill::Sparse(1));
    let source = server.compute_image("f", "source", &disk).await;
    let request = json!({"folderId": "f", "name": "n", "imageId": source});
    let key = uuid::Uuid::new_v4().to_string();
    let headers = [("idempotency-key", key.as_str())];
    let caller = &server.callers()[0];
    let first = caller.call_with(Method::Copy, request.clone(), &headers);
    let first = first.await.unwrap();
    let before = audit_events(&server, "", 0).await;
    assert_eq!(before.len(), 4);
    for caller in server.callers() {
        let again = caller
            .call_with(Method::Copy, request.clone(), &headers)
            .await;
        assert_eq!(again.as_ref(), Ok(&first));
        for (method, request) in [
            (Method::Copy, request.clone()),
            (
                Method::Copy,
                json!({"folderId": "f", "name": "m", "imageId": "x"}),
            ),
            (
                Method::Create,
                json!({"folderId": "f", "uri": "file:///none"}),
            ),
            (Method::DesktopDelete, json!({"imageId": "x"})),
            (Method::DesktopUpdate, json!({"imageId": image_id(&first)})),
        ] {
            let refused = caller.call(method, request).await;
            assert!(refused.is_err(), "{method:?}");
        }
        let request = json!({"operationId": first["id"]});
        caller.call(Method::OperationCancel, request).await.unwrap();
    }
    assert_eq!(audit_events(&server, "", 0).await, before);
}

#[tokio::test]
async fn more_events_than_are_held_at_a_time_are_read() {
    const COPIES: usize = 120;
    let server = TestServer::start().await;
    let disk = Disk::mbr(1, Fill::Sparse(1));
    let source = server.compute_image("f", "source", &disk).await;
    let copies = (0..COPIES).map(|number| {
        let name = format!("copy-{number}");
        let (server, source) = (server.clients.clone(), source.clone());
        async move { server.copied("f", &name, &source).await }
    });
    futures_util::future::join_all(copies).await;
    let events = audit_events(&server, "f", 0).await;
    assert_eq!(events.len(), 2 + 2 * COPIES);
}

#[tokio::test]
async fn whoever_follows_sees_events_as_they_happen_until_the_server_stops() {
    let mut server = TestServer::start_with(|config| {
        config.drain_timeout = Duration::from_secs(3600);
    })
    .await;
    let disk = Disk::mbr(1, Fill::Sparse(1));
    let source = server.compute_image("f", "source", &disk).await;
    let request = ReadAuditEventsRequest {
        folder_id: "g".to_owned(),
        follow: true,
        ..ReadAuditEventsRequest::default()
    };
    let mut stream = server.audit().read(request).await.unwrap().into_inner();
    for name in ["1", "2"] {
        server.copied("f", name, &source).await;
        let copy = server.copied("g", name, &source).await;
        for status in ["STARTED", "DONE"] {
            let event = within("an event comes", stream.message()).await;
            let event = to_json(&event.unwrap().expect("an event"));
            assert_eq!(event["imageId"], copy.as_str());
            assert_eq!(event["status"], status);
        }
    }
    let end = tokio::spawn(async move { stream.message().await.unwrap_err().code() });
    within("the server stops", server.stop()).await;
    assert_eq!(end.await.unwrap(), Code::Unavailable);
}
