//! A request that changes something, as it is sent and sent again.

use serde_json::{Value, json};
use test_support::{Caller, Method, NoReply, Refusal};

use crate::disks::{Bytes, Disks, uploaded};
use crate::quotas::LIMITED;

pub const KEY: &str = "idempotency-key";
/// Names that begin like this are asked for again and again, so that they may be taken.
pub const CONTENDED: &str = "contended-";

/// The action that a request asks for. Images are named by their ids.
#[derive(Debug, Clone)]
pub enum Action {
    /// A desktop image of a compute image.
    Copy {
        place: Place,
        source: String,
    },
    /// A compute image of another.
    Derive {
        place: Place,
        source: String,
    },
    /// A compute image of a file.
    Import {
        place: Place,
        bytes: Bytes,
    },
    /// A compute image of the body, sent at once or in parts.
    Upload {
        place: Place,
        bytes: Bytes,
        slow: bool,
    },
    Update {
        desktop: bool,
        image: String,
        name: String,
        labels: Value,
    },
    Delete {
        desktop: bool,
        image: String,
    },
}

/// The folder and the name of a new image.
#[derive(Debug, Clone)]
pub struct Place {
    pub folder: &'static str,
    pub name: String,
    pub labels: Value,
}

impl Action {
    /// The place of the image that it makes, if it makes one.
    pub fn place(&self) -> Option<&Place> {
        match self {
            Self::Copy { place, .. }
            | Self::Derive { place, .. }
            | Self::Import { place, .. }
            | Self::Upload { place, .. } => Some(place),
            Self::Update { .. } | Self::Delete { .. } => None,
        }
    }

    /// The compute image that it reads.
    pub fn source(&self) -> Option<&str> {
        match self {
            Self::Copy { source, .. } | Self::Derive { source, .. } => Some(source),
            _ => None,
        }
    }

    /// The image that it changes or deletes.
    pub fn changed(&self) -> Option<&str> {
        match self {
            Self::Update { image, .. } | Self::Delete { image, .. } => Some(image),
            _ => None,
        }
    }

    /// Whether others may have the name that it gives to an image.
    pub fn is_contended(&self) -> bool {
        let name = match self {
            Self::Update { name, .. } => Some(name),
            _ => self.place().map(|place| &place.name),
        };
        name.is_some_and(|name| name.starts_with(CONTENDED))
    }

    /// Whether quotas may refuse it.
    pub fn is_limited(&self) -> bool {
        self.place().is_some_and(|place| place.folder == LIMITED)
    }

    /// Whether a desktop image is made, changed or deleted, rather than a compute image.
    pub fn is_desktop(&self) -> bool {
        match self {
            Self::Copy { .. } => true,
            Self::Update { desktop, .. } | Self::Delete { desktop, .. } => *desktop,
            Self::Derive { .. } | Self::Import { .. } | Self::Upload { .. } => false,
        }
    }

    /// The type of the metadata of its operation, without its package.
    pub fn metadata(&self) -> &'static str {
        match self {
            Self::Copy { .. } => "CopyDesktopImageMetadata",
            Self::Derive { .. } | Self::Import { .. } | Self::Upload { .. } => {
                "CreateImageMetadata"
            }
            Self::Update { desktop: true, .. } => "UpdateDesktopImageMetadata",
            Self::Update { desktop: false, .. } => "UpdateImageMetadata",
            Self::Delete { desktop: true, .. } => "DeleteDesktopImageMetadata",
            Self::Delete { desktop: false, .. } => "DeleteImageMetadata",
        }
    }
}

/// A request as the wire has it: the same however often it is sent.
#[derive(Debug, Clone)]
pub struct Sendable {
    action: Action,
    /// The description of the image that it makes.
    marker: String,
    uri: Option<String>,
    key: Option<String>,
}

impl Sendable {
    pub fn new(action: Action, marker: String, key: Option<String>, disks: &Disks) -> Self {
        let uri = match &action {
            Action::Import { bytes, .. } => Some(disks.uri(*bytes)),
            _ => None,
        };
        Self {
            action,
            marker,
            uri,
            key,
        }
    }

    /// Sends it and waits for the operation that answers it.
    pub async fn send(&self, caller: &Caller) -> Result<Result<Value, Refusal>, NoReply> {
        let headers: Vec<_> = self.key.iter().map(|key| (KEY, key.as_str())).collect();
        let (method, request) = match &self.action {
            Action::Upload { place, bytes, slow } => {
                return self.upload(caller, place, *bytes, *slow).await;
            }
            Action::Copy { place, source } => (Method::Copy, self.image(place, "imageId", source)),
            Action::Derive { place, source } => {
                (Method::Create, self.image(place, "imageId", source))
            }
            Action::Import { place, .. } => {
                let uri = self.uri.as_deref().expect("an import has a uri");
                (Method::Create, self.image(place, "uri", uri))
            }
            Action::Update {
                desktop,
                image,
                name,
                labels,
            } => {
                let request = json!({
                    "imageId": image, "name": name, "labels": labels, "updateMask": "name,labels"
                });
                match desktop {
                    true => (Method::DesktopUpdate, request),
                    false => (Method::ComputeUpdate, request),
                }
            }
            Action::Delete { desktop, image } => {
                let request = json!({"imageId": image});
                match desktop {
                    true => (Method::DesktopDelete, request),
                    false => (Method::ComputeDelete, request),
                }
            }
        };
        caller.attempt(method, request, &headers).await
    }

    fn image(&self, place: &Place, source: &str, value: &str) -> Value {
        json!({
            "folderId": place.folder, "name": place.name, "labels": place.labels,
            "description": self.marker, source: value
        })
    }

    /// Uploads have no form in gRPC.
    async fn upload(
        &self,
        caller: &Caller,
        place: &Place,
        bytes: Bytes,
        slow: bool,
    ) -> Result<Result<Value, Refusal>, NoReply> {
        // Names, markers and labels are made of what needs no escapes.
        let labels: String = place
            .labels
            .as_object()
            .expect("labels")
            .iter()
            .map(|(name, value)| format!("&labels[{name}]={}", value.as_str().expect("text")))
            .collect();
        let path = format!(
            "/compute/v1/images:upload?folderId={}&name={}&description={}{labels}",
            place.folder, place.name, self.marker
        );
        let clients = &caller.clients;
        let mut request = clients.http.post(clients.url(&path));
        if let Some(key) = &self.key {
            request = request.header(KEY, key);
        }
        request = match slow {
            false => request.body(uploaded(bytes)),
            true => request.body(in_parts(uploaded(bytes))),
        };
        let reply = request.send().await?;
        let status = reply.status();
        let body: Value = serde_json::from_slice(&reply.bytes().await?).expect("JSON");
        Ok(match status.is_success() {
            true => Ok(body),
            false => Err(Refusal::from_json(&body)),
        })
    }
}

/// A body that takes its time, so that a kill meets it half sent.
fn in_parts(disk: Vec<u8>) -> reqwest::Body {
    const PART: usize = 64 * 1024;
    let disk = bytes::Bytes::from(disk);
    let parts = futures_util::stream::unfold(disk, |mut rest| async {
        if rest.is_empty() {
            return None;
        }
        tokio::time::sleep(std::time::Duration::from_millis(3)).await;
        let part = rest.split_to(rest.len().min(PART));
        Some((Ok::<_, std::io::Error>(part), rest))
    });
    reqwest::Body::wrap_stream(parts)
}
