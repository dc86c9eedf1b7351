//! AuditService: each change leaves an event when it starts and one when it ends.

use std::time::Duration;

use desktop_images::contract::desktopimages::v1::ReadAuditEventsRequest;
use serde_json::{Value, json};
use test_support::{
    Disk, Fill, Method, SlowUpload, TestServer, audit_events, failure, image_id, number, response,
    text, to_json, within,
};
use tonic::Code;

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

    // A reader that has read up to an event reads on after it: nothing is left out, nothing comes twice.
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
        .map(|event| {
            let kind = text(event, "eventType").rsplit('.').next().unwrap();
            let [operation, status, message] =
                ["operationId", "status", "errorMessage"].map(|name| text(event, name));
            [kind, operation, status, message]
        })
        .collect();
    let (failed, cancelled) = (text(&failed, "id"), upload.operation_id.as_str());
    assert_eq!(
        outline,
        [
            ["CreateImage", failed, "STARTED", ""],
            ["CreateImage", failed, "ERROR", why],
            ["CreateImage", cancelled, "STARTED", ""],
            ["CancelOperation", cancelled, "STARTED", ""],
            ["CancelOperation", cancelled, "DONE", ""],
            ["CreateImage", cancelled, "CANCELLED", ""],
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

#[tokio::test]
async fn updates_say_which_fields_get_another_value() {
    let mut server = TestServer::start().await;
    let disk = Disk::mbr(1, Fill::Sparse(1));
    let source = server.compute_image("f", "source", &disk).await;
    let copy = server.copied("f", "a", &source).await;
    let last = |events: &[Value]| number(events.last().expect("events"), "sequence");
    let mut after = last(&audit_events(&server, "", 0).await);
    for latency in [Duration::ZERO, Duration::from_millis(50)] {
        server.config.operations.simulated_latency = latency;
        server.restart().await;
        for (method, image, request, expected) in [
            (
                Method::DesktopUpdate,
                &copy,
                json!({"updateMask": "name,labels", "name": "b", "labels": {"k": "v", "a": ""}}),
                json!([
                    {"field": "name", "oldValue": "a", "newValue": "b"},
                    {"field": "labels", "oldValue": "{}", "newValue": "{\"a\":\"\",\"k\":\"v\"}"},
                ]),
            ),
            // What has the value already does not change.
            (
                Method::DesktopUpdate,
                &copy,
                json!({"updateMask": "name,description", "name": "b", "description": "d"}),
                json!([{"field": "description", "oldValue": "", "newValue": "d"}]),
            ),
            // Without a mask all that is not given is reset.
            (
                Method::DesktopUpdate,
                &copy,
                json!({"name": "a"}),
                json!([
                    {"field": "name", "oldValue": "b", "newValue": "a"},
                    {"field": "description", "oldValue": "d", "newValue": ""},
                    {"field": "labels", "oldValue": "{\"a\":\"\",\"k\":\"v\"}", "newValue": "{}"},
                ]),
            ),
            (
                Method::DesktopUpdate,
                &copy,
                json!({"updateMask": "name", "name": "a"}),
                json!([]),
            ),
            (
                Method::ComputeUpdate,
                &source,
                json!({"updateMask": "minDiskSize", "minDiskSize": "8388608"}),
                json!([{"field": "min_disk_size", "oldValue": "1048576", "newValue": "8388608"}]),
            ),
            // Zero takes the size of the disk inside.
            (
                Method::ComputeUpdate,
                &source,
                json!({"updateMask": "minDiskSize"}),
                json!([{"field": "min_disk_size", "oldValue": "8388608", "newValue": "1048576"}]),
            ),
        ] {
            let mut request = request;
            request["imageId"] = json!(image);
            let operation = server.ask(method, request.clone()).await;
            response(&server.wait(text(&operation, "id")).await);
            let events = audit_events(&server, "", after).await;
            after = last(&events);
            assert_eq!(events.len(), 2, "{events:?}");
            for event in events {
                assert_eq!(event["changes"], expected, "{latency:?} {request}");
            }
        }
    }
}

#[tokio::test]
async fn quotas_that_are_set_are_told_with_who_and_what() {
    let server = TestServer::start().await;
    let name = "compute.images.size";
    let mut expected = Vec::new();
    let mut old = "none".to_owned();
    for caller in server.callers() {
        for limit in [Some(5), Some(7), Some(7), None] {
            let mut request = json!({"folderId": "f", "name": name});
            let new = limit.map_or_else(|| "none".to_owned(), |limit: i64| limit.to_string());
            if let Some(limit) = limit {
                request["limit"] = json!(limit.to_string());
            }
            let request_id = uuid::Uuid::new_v4().to_string();
            let headers = [("x-request-id", request_id.as_str())];
            caller
                .call_with(Method::QuotaSet, request, &headers)
                .await
                .unwrap();
            let changes = match old == new {
                true => json!([]),
                false => json!([{"field": name, "oldValue": old, "newValue": new}]),
            };
            for status in ["STARTED", "DONE"] {
                expected.push((request_id.clone(), status, changes.clone()));
            }
            old = new;
        }
    }
    let events = audit_events(&server, "f", 0).await;
    assert_eq!(events.len(), expected.len());
    for (event, (request_id, status, changes)) in events.iter().zip(expected) {
        assert_eq!(event["eventType"], "desktopimages.audit.quota.SetQuota");
        assert_eq!(event["requestId"], request_id.as_str());
        assert_eq!(event["status"], status);
        assert_eq!(event["changes"], changes);
        assert_eq!(event["subject"], "anonymous");
        assert_eq!([&event["operationId"], &event["imageId"]], ["", ""]);
    }
    // That of all folders together is an event, too.
    let request = json!({"name": name, "limit": "9"});
    server.ask(Method::QuotaSet, request).await;
    let all = audit_events(&server, "", 0).await;
    assert_eq!(all.len(), events.len() + 2);
    assert_eq!(all.last().expect("events")["folderId"], "");
    assert!(
        server
            .caller(test_support::Transport::Grpc)
            .call(Method::QuotaSet, json!({"name": "none", "limit": "1"}))
            .await
            .is_err()
    );
    assert_eq!(audit_events(&server, "", 0).await.len(), all.len());
}
