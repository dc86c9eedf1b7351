//! Presigned URLs of objects: whoever has one reads the object from the storage without credentials of its own, until
//! the URL expires. The host of the URL is signed too, so that URLs are made for the address that clients reach.

use std::sync::Arc;
use std::time::Duration;

use object_store::path::Path;
use object_store::signer::{Method, SignedUrlOptions, Signer};

/// The address of a storage to which readers are redirected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedirectSettings {
    /// The URL of the service as clients reach it.
    pub endpoint: String,
    /// The time for which a reader may begin to read.
    pub lifetime: Duration,
}

/// The maker of presigned URLs.
#[derive(Debug)]
pub(super) struct Presigner {
    /// The bucket at the address that clients reach. No request is sent there.
    pub bucket: Arc<dyn Signer>,
    pub lifetime: Duration,
    /// Whether a URL can have headers of the answer in it. The library signs none for Azure (object_store 0.14.2,
    /// `Signer for MicrosoftAzure` in <https://docs.rs/object_store/0.14.2/src/object_store/azure/mod.rs.html>).
    pub tells_headers: bool,
}

impl Presigner {
    /// A URL whose answer has this `Content-Disposition`, where that is possible.
    ///
    /// # Errors
    /// Those of the credentials.
    pub(super) async fn url(&self, path: &Path, disposition: &str) -> object_store::Result<String> {
        let options = match self.tells_headers {
            false => SignedUrlOptions::new(),
            true => SignedUrlOptions::new().with_query([
                ("response-content-disposition", disposition),
                ("response-content-type", "application/octet-stream"),
            ]),
        };
        let url = self
            .bucket
            .signed_url_opts(Method::GET, path, self.lifetime, &options);
        Ok(url.await?.into())
    }
}
