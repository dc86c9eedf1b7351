//! TLS of this program as a client.

use std::path::Path;
use std::sync::Arc;

use rustls_platform_verifier::{BuilderVerifierExt, Verifier};
use tokio_rustls::rustls::ClientConfig;

use super::pair::{self, Error};
use super::provider;

/// A configuration that trusts the authorities of a PEM file, or those that the system trusts. HTTP/2 alone.
pub(crate) fn client(authorities: Option<&Path>) -> Result<Arc<ClientConfig>, Error> {
    let builder =
        ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    let builder = match authorities {
        Some(path) => builder.with_root_certificates(pair::roots(path, &pair::read(path)?)?),
        None => builder.with_platform_verifier()?,
    };
    let mut config = builder.with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

/// A configuration for servers of others, which may know no HTTP/2. It trusts the authorities of a PEM file beside those
/// that the system trusts.
pub(crate) fn client_of_others(authorities: Option<&Path>) -> Result<Arc<ClientConfig>, Error> {
    let own = authorities.map(|path| pair::certificates(path, &pair::read(path)?));
    let own = own.transpose()?.unwrap_or_default();
    let verifier = Verifier::new_with_extra_roots(own, provider())?;
    let builder =
        ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    let mut config = builder
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
