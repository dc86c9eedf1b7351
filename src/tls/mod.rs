//! TLS. Knows how certificates and keys are read, checked, made and renewed, and what a certificate of a client says.
//! Never mentions a request.
//!
//! All of it uses aws-lc-rs, named at each place: rustls has a provider for the whole process too, which panics where a
//! dependency brings a second one.

mod acceptor;
mod client;
mod keeper;
mod pair;
mod self_signed;
mod subject;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio_rustls::rustls::crypto::{CryptoProvider, aws_lc_rs};

pub(crate) use acceptor::Acceptor;
pub(crate) use client::{client, client_of_others};
pub(crate) use keeper::Keeper;
pub(crate) use pair::Error;
pub(crate) use self_signed::Names;
pub use subject::SubjectKind;

/// The interval at which the files of certificates are read again. File systems tell of changes too, but not where a
/// link is set to another folder, as Kubernetes does: https://github.com/kubernetes/kubernetes/issues/111947
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// A client that has not ended its handshake by then is cut off.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// How a server speaks TLS.
#[derive(Debug, Clone)]
pub struct TlsSettings {
    pub certificate: Certificate,
    /// The clients that may show certificates.
    pub clients: Option<ClientCertificates>,
    /// The interval at which files are read again.
    pub look_interval: Duration,
    /// The time for a handshake.
    pub handshake: Duration,
}

/// The origin of a server's certificate.
#[derive(Debug, Clone)]
pub enum Certificate {
    /// PEM files: the certificate with its chain, and its key.
    Files { certificate: PathBuf, key: PathBuf },
    /// Certificates of a CA that the server makes itself.
    SelfSigned,
}

/// Certificates of clients.
#[derive(Debug, Clone)]
pub struct ClientCertificates {
    /// A PEM file with the CAs that are trusted.
    pub authorities: PathBuf,
    /// The kind of name that is the subject.
    pub subject: SubjectKind,
}

impl TlsSettings {
    pub fn new(certificate: Certificate) -> Self {
        Self {
            certificate,
            clients: None,
            look_interval: LOOK_INTERVAL,
            handshake: HANDSHAKE,
        }
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}
