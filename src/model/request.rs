//! The context of a request, which every use case takes first.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use futures_util::future::BoxFuture;

use super::Rights;

/// The caller and its rights, the id of the request, its deadline, and how a repeat of the request is known. Made once, where requests arrive.
#[derive(Debug, Clone)]
pub(crate) struct RequestContext {
    pub subject: String,
    pub rights: Rights,
    /// The address of the client, or of nobody where it came over a Unix socket.
    pub peer: Option<IpAddr>,
    pub request_id: String,
    /// When the caller stops waiting, if that is known.
    pub deadline: Option<Instant>,
    /// Of a request that changes something.
    pub idempotency: Option<Idempotency>,
    pub standing: Standing,
}

impl RequestContext {
    /// A request of this server itself, which may do everything.
    pub(crate) fn internal(subject: &str) -> Self {
        Self {
            subject: subject.to_owned(),
            rights: Rights::All,
            peer: None,
            request_id: String::new(),
            deadline: None,
            idempotency: None,
            standing: Standing::default(),
        }
    }

    /// The address of the client as audit events keep it; empty where it is not known.
    pub(crate) fn peer_text(&self) -> String {
        self.peer.map(|peer| peer.to_string()).unwrap_or_default()
    }
}

/// The key that a client sends with each try of one request, and what the request was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Idempotency {
    /// A UUID.
    pub key: [u8; 16],
    /// SHA-256 of the method and the canonical request.
    pub request_hash: [u8; 32],
}

/// A new look at who the caller is and what that caller may do, for requests that take long: a token may have been
/// revoked since.
#[derive(Clone, Default)]
pub(crate) struct Standing(Option<Arc<Look>>);

type Look = dyn Fn() -> BoxFuture<'static, Option<Rights>> + Send + Sync;

impl Standing {
    /// The standing that `look` tells: the present rights, or None where the credentials are good no more.
    pub(crate) fn new(
        look: impl Fn() -> BoxFuture<'static, Option<Rights>> + Send + Sync + 'static,
    ) -> Self {
        Self(Some(Arc::new(look)))
    }

    /// The rights of the caller as they are now; None where the credentials are good no more. `before` where nothing
    /// can have changed.
    pub(crate) async fn rights(&self, before: &Rights) -> Option<Rights> {
        match &self.0 {
            Some(look) => look().await,
            None => Some(before.clone()),
        }
    }
}

impl fmt::Debug for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Standing")
    }
}
