//! The configuration that new connections are accepted with.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::{ServerConfig, ServerConnection};

use super::subject::{self, SubjectKind};

/// Accepts connections with the configuration that is in force when they come.
#[derive(Debug)]
pub(crate) struct Acceptor {
    config: RwLock<Arc<ServerConfig>>,
    subject: Option<SubjectKind>,
    /// The time for a handshake.
    pub(crate) timeout: Duration,
}

impl Acceptor {
    pub(super) fn new(
        config: ServerConfig,
        subject: Option<SubjectKind>,
        timeout: Duration,
    ) -> Arc<Self> {
        Arc::new(Self {
            config: RwLock::new(Arc::new(config)),
            subject,
            timeout,
        })
    }

    pub(super) fn replace(&self, config: ServerConfig) {
        let mut current = self.config.write().unwrap_or_else(PoisonError::into_inner);
        *current = Arc::new(config);
    }

    pub(crate) fn current(&self) -> TlsAcceptor {
        let current = self.config.read().unwrap_or_else(PoisonError::into_inner);
        TlsAcceptor::from(Arc::clone(&current))
    }

    /// The subject of the certificate that the client of a connection has shown.
    pub(crate) fn subject(&self, connection: &ServerConnection) -> Option<Arc<str>> {
        let kind = self.subject?;
        // rustls has verified it.
        let certificate = connection.peer_certificates()?.first()?;
        match subject::of(certificate, kind) {
            Ok(subject) => Some(subject),
            Err(reason) => {
                tracing::debug!(%reason, "the certificate of a client names no subject");
                None
            }
        }
    }
}
