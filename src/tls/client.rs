//! TLS of this program as a client.

use std::path::Path;
use std::sync::Arc;

use rustls_platform_verifier::BuilderVerifierExt;
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
