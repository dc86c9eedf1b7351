//! An upload whose body comes when the test says so.

use bytes::Bytes;
use futures_util::stream;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::{Clients, Method, eventually, text};

pub struct SlowUpload {
    body: Option<mpsc::Sender<Bytes>>,
    reply: JoinHandle<reqwest::Result<reqwest::Response>>,
    pub image_id: String,
    pub operation_id: String,
}

impl SlowUpload {
    /// Sends the head and the first bytes, and waits until the image is listed.
    pub async fn start(clients: &Clients, folder_id: &str, name: &str, first: &[u8]) -> Self {
        let (body, chunks) = mpsc::channel::<Bytes>(1);
        let stream = stream::unfold(chunks, |mut chunks| async {
            let chunk = chunks.recv().await?;
            Some((Ok::<_, std::io::Error>(chunk), chunks))
        });
        let request = clients
            .upload(folder_id, name)
            .body(reqwest::Body::wrap_stream(stream));
        let reply = tokio::spawn(request.send());
        body.send(Bytes::copy_from_slice(first))
            .await
            .expect("a running upload");
        let filter = format!("name = '{name}'");
        let image_id = eventually("the image of an upload is listed", || async {
            let request = json!({"folderId": folder_id, "filter": filter});
            let page = clients.ask(Method::ComputeList, request).await;
            Some(text(page["images"].get(0)?, "id").to_owned())
        })
        .await;
        let page = clients
            .ask(Method::ListOperations, json!({"imageId": image_id}))
            .await;
        Self {
            body: Some(body),
            reply,
            image_id,
            operation_id: text(&page["operations"][0], "id").to_owned(),
        }
    }

    pub async fn send(&self, data: &[u8]) {
        let body = self.body.as_ref().expect("an unfinished upload");
        body.send(Bytes::copy_from_slice(data))
            .await
            .expect("a running upload");
    }

    /// Ends the body; the operation that answers it.
    pub async fn finish(mut self) -> Value {
        self.body = None;
        self.reply().await
    }

    /// The answer, which may come before the end of the body.
    pub async fn reply(self) -> Value {
        let reply = self.reply.await.expect("no panic").expect("a reply");
        let body = reply.bytes().await.expect("a body");
        serde_json::from_slice(&body).expect("JSON")
    }

    /// Closes the connection in the middle of the body.
    pub fn hang_up(self) {
        self.reply.abort();
        let (body, reply) = (self.body, self.reply);
        tokio::spawn(async move {
            // Not before: a body that ends is a whole one.
            let _ = reply.await;
            drop(body);
        });
    }
}
