//! A certificate with its key, and the configuration of a server that is made of them.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use tokio_rustls::rustls::{self, RootCertStore, ServerConfig};

use super::provider;

/// HTTP versions by ALPN, the better one first.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Why there is no certificate to serve with.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{path}: {source}")]
    File { path: PathBuf, source: io::Error },
    #[error("{path}: {source}")]
    Pem { path: PathBuf, source: pem::Error },
    #[error("{0} has no certificate")]
    NoCertificate(PathBuf),
    #[error("{certificate} and {key} do not fit together: {source}")]
    Pair {
        certificate: PathBuf,
        key: PathBuf,
        source: rustls::Error,
    },
    #[error("{path}: {source}")]
    Authorities {
        path: PathBuf,
        source: rustls::Error,
    },
    #[error("{path}: {source}")]
    Verifier {
        path: PathBuf,
        source: VerifierBuilderError,
    },
    #[error(transparent)]
    Protocols(#[from] rustls::Error),
    #[error("a certificate cannot be made: {0}")]
    Make(#[from] rcgen::Error),
}

/// The files of a server's TLS.
#[derive(Debug, Clone)]
pub(super) struct Files {
    pub certificate: PathBuf,
    pub key: PathBuf,
    pub authorities: Option<PathBuf>,
}

/// The bytes of the files, as they were read at one time.
pub(super) struct Read {
    certificate: Vec<u8>,
    key: Vec<u8>,
    authorities: Option<Vec<u8>>,
}

impl fmt::Debug for Read {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A key goes to no log.
        formatter.debug_struct("Read").finish_non_exhaustive()
    }
}

impl Files {
    pub(super) fn read(&self) -> Result<Read, Error> {
        Ok(Read {
            certificate: read(&self.certificate)?,
            key: read(&self.key)?,
            authorities: self.authorities.as_deref().map(read).transpose()?,
        })
    }

    /// The configuration of a server with what was read.
    pub(super) fn configure(&self, read: &Read) -> Result<ServerConfig, Error> {
        let chain = certificates(&self.certificate, &read.certificate)?;
        let key = PrivateKeyDer::from_pem_slice(&read.key).map_err(|source| Error::Pem {
            path: self.key.clone(),
            source,
        })?;
        let builder = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?;
        let builder = match (&self.authorities, &read.authorities) {
            (Some(path), Some(pem)) => {
                let roots = Arc::new(roots(path, pem)?);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider())
                    .allow_unauthenticated()
                    .build()
                    .map_err(|source| Error::Verifier {
                        path: path.clone(),
                        source,
                    })?;
                builder.with_client_cert_verifier(verifier)
            }
            _ => builder.with_no_client_auth(),
        };
        let mut config = builder
            .with_single_cert(chain, key)
            .map_err(|source| Error::Pair {
                certificate: self.certificate.clone(),
                key: self.key.clone(),
                source,
            })?;
        config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
        Ok(config)
    }
}

impl Read {
    /// A digest by which a change is seen.
    pub(super) fn digest(&self) -> [u8; 32] {
        let mut digest = Sha256::new();
        let authorities = self.authorities.as_deref().unwrap_or_default();
        for bytes in [&self.certificate, &self.key, authorities] {
            digest.update(bytes.len().to_be_bytes());
            digest.update(bytes);
        }
        digest.finalize().into()
    }
}

pub(super) fn read(path: &Path) -> Result<Vec<u8>, Error> {
    fs::read(path).map_err(|source| Error::File {
        path: path.to_owned(),
        source,
    })
}

/// The certificates of a PEM file, one at the least.
pub(super) fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Error> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let certificates = certificates.map_err(|source| Error::Pem {
        path: path.to_owned(),
        source,
    })?;
    if certificates.is_empty() {
        return Err(Error::NoCertificate(path.to_owned()));
    }
    Ok(certificates)
}

/// The authorities of a PEM file.
pub(super) fn roots(path: &Path, pem: &[u8]) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path, pem)? {
        roots
            .add(certificate)
            .map_err(|source| Error::Authorities {
                path: path.to_owned(),
                source,
            })?;
    }
    Ok(roots)
}
