//! The audit log: every mutation began once and ended once, and nothing else happened.

use std::collections::BTreeMap;

use desktop_images::contract::desktopimages::v1::audit_event::Status;
use desktop_images::contract::desktopimages::v1::{
    AuditEvent, ReadAuditEventsRequest, audit_service_client::AuditServiceClient,
};
use serde_json::json;
use test_support::{Clients, Method, image_id, text};
use tonic::Code;

use crate::load::Shared;
use crate::model::{Model, Request, Standing};

/// The audit events of one operation.
#[derive(Debug, PartialEq, Eq)]
struct Entry {
    statuses: Vec<Status>,
    image: String,
    folder: String,
}

/// Compares the log with what was acknowledged. Uploads of which no reply came may have ended with `cut_short`, and were
/// sent again.
pub async fn agrees(clients: &Clients, events: &[AuditEvent], model: &Shared, cut_short: &[Code]) {
    let mut entries = entries(events);
    remove_known(&mut entries, &model.lock());
    for (id, entry) in entries {
        assert_eq!(
            entry.statuses,
            [Status::Started, Status::Error],
            "{id}: {entry:?}"
        );
        let operation = clients
            .ask(Method::OperationGet, json!({"operationId": id}))
            .await;
        assert!(text(&operation["metadata"], "@type").ends_with("CreateImageMetadata"));
        let code = operation["error"]["code"].as_i64().expect("a code") as i32;
        assert!(
            cut_short.contains(&Code::from(code)),
            "in the audit log alone: {operation}"
        );
    }
}

/// Takes out what the requests explain.
fn remove_known(entries: &mut BTreeMap<String, Entry>, model: &Model) {
    for request in &model.requests {
        let (operation, entry) = match &request.standing {
            Standing::Accepted(operation) => {
                let id = text(operation, "id").to_owned();
                let entry = entries.remove(&id);
                let entry = entry.unwrap_or_else(|| panic!("not in the audit log: {operation}"));
                let ended = match operation["error"]["code"].as_i64() {
                    None => Status::Done,
                    Some(code) if Code::from(code as i32) == Code::Cancelled => Status::Cancelled,
                    Some(_) => Status::Error,
                };
                assert_eq!(entry.statuses, [Status::Started, ended], "{operation}");
                assert_eq!(entry.image, image_id(operation), "{operation}");
                (id, entry)
            }
            // Nobody knows its operation, but for the image that it made.
            Standing::Found(image) => {
                let id = made_by(entries, &model.requests, image);
                let entry = entries.remove(&id).expect("it was found there");
                assert_eq!(entry.statuses, [Status::Started, Status::Done], "{id}");
                (id, entry)
            }
            Standing::Unknown | Standing::Refused => continue,
        };
        let folder = match &request.action.place() {
            Some(place) => place.folder,
            None => model.images[&entry.image].folder,
        };
        assert_eq!(entry.folder, folder, "{operation}");
    }
}

/// The operation that made an image, of those that no request is known to have.
fn made_by(entries: &BTreeMap<String, Entry>, requests: &[Request], image: &str) -> String {
    let known: Vec<&str> = requests
        .iter()
        .filter_map(|request| Some(request.operation()?.0))
        .collect();
    let mut found = entries
        .iter()
        .filter(|(id, entry)| entry.image == image && !known.contains(&id.as_str()));
    match (found.next(), found.next()) {
        (Some((id, _)), None) => id.clone(),
        other => panic!("the audit log has not one operation that made {image}: {other:?}"),
    }
}

/// All of the log.
pub async fn read(clients: &Clients) -> Vec<AuditEvent> {
    let mut client = AuditServiceClient::new(clients.channel.clone());
    let reading = client.read(ReadAuditEventsRequest::default()).await;
    let mut reading = reading.expect("the audit log").into_inner();
    let mut events: Vec<AuditEvent> = Vec::new();
    while let Some(event) = reading.message().await.expect("an event") {
        let before = events.last().map(|last| last.sequence);
        assert!(before < Some(event.sequence), "out of order: {event:?}");
        events.push(event);
    }
    events
}

/// The entries by operation.
fn entries(events: &[AuditEvent]) -> BTreeMap<String, Entry> {
    let mut entries = BTreeMap::<String, Entry>::new();
    for event in events {
        // No operation sets a quota.
        if event.event_type.ends_with(".quota.SetQuota") {
            assert_eq!((&*event.operation_id, &*event.image_id), ("", ""));
            continue;
        }
        // It is about an operation that has events of its own.
        if event.event_type.ends_with(".operation.CancelOperation") {
            continue;
        }
        let status = event.status();
        let AuditEvent {
            operation_id,
            image_id,
            folder_id,
            ..
        } = event.clone();
        let entry = entries.entry(operation_id).or_insert_with(|| Entry {
            statuses: Vec::new(),
            image: image_id.clone(),
            folder: folder_id.clone(),
        });
        assert_eq!((&entry.image, &entry.folder), (&image_id, &folder_id));
        entry.statuses.push(status);
    }
    entries
}
