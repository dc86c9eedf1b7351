//! Streams of replies, read with bounded patience.

use std::future::Future;

use desktop_images::contract::desktopimages::v1::{ReadAuditEventsRequest, WatchOperationRequest};
use desktop_images::contract::yandex::cloud::operation::Operation;
use serde_json::Value;
use tonic::{Code, Streaming};

use crate::{Clients, PATIENCE, to_json};

/// The output of a future; panics where patience ends before.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(output) => output,
        Err(_) => panic!("waited in vain: {what}"),
    }
}

/// An operation that is followed.
pub struct Watch(Streaming<Operation>);

impl Watch {
    pub async fn start(clients: &Clients, operation_id: &str) -> Self {
        let request = WatchOperationRequest {
            operation_id: operation_id.to_owned(),
        };
        let watched = clients.operation_watch().watch(request).await;
        Self(watched.expect("a stream").into_inner())
    }

    /// The next state, none at the end, or the code that the stream broke off with.
    pub async fn next(&mut self) -> Result<Option<Value>, Code> {
        let next = within("the operation changes", self.0.message()).await;
        match next {
            Ok(state) => Ok(state.map(|state| to_json(&state))),
            Err(status) => Err(status.code()),
        }
    }

    /// The next state whose description is as wanted.
    pub async fn until(&mut self, wanted: impl Fn(&str) -> bool) -> Value {
        let until = async {
            loop {
                let state = self.next().await.expect("a whole stream");
                let state = state.expect("an operation that runs");
                if wanted(crate::text(&state, "description")) {
                    return state;
                }
            }
        };
        within("the operation is as wanted", until).await
    }

    /// All states that are still to come.
    pub async fn rest(mut self) -> Vec<Value> {
        let mut states = Vec::new();
        while let Some(state) = self.next().await.expect("a whole stream") {
            states.push(state);
        }
        states
    }
}

/// The audit events that there are.
pub async fn audit_events(clients: &Clients, folder_id: &str, after: i64) -> Vec<Value> {
    let request = ReadAuditEventsRequest {
        folder_id: folder_id.to_owned(),
        after_sequence: after,
        follow: false,
    };
    let reply = clients.audit().read(request).await.expect("a stream");
    let mut stream = reply.into_inner();
    let mut events = Vec::new();
    while let Some(event) = within("the events end", stream.message())
        .await
        .expect("an event")
    {
        events.push(to_json(&event));
    }
    events
}
