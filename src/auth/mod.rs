//! Authentication of callers. Knows how the credentials of a request name a subject. Never mentions what the request
//! asks for.

use std::fmt;

use http::HeaderMap;

/// The subject of a request without a token. Every request is one, as long as no way to check tokens
/// is configured, which is why such a server listens on loopback.
pub(crate) const ANONYMOUS: &str = "anonymous";

/// Tells who sent a request.
pub trait Authenticator: fmt::Debug + Send + Sync {
    /// The subject of a request with these headers.
    ///
    /// # Errors
    /// [`Unauthenticated`] where the request has no credentials that are good here.
    fn authenticate(&self, headers: &HeaderMap) -> Result<String, Unauthenticated>;
}

/// Why a caller is not known, in words for the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unauthenticated(pub String);

/// Knows all callers as [`ANONYMOUS`].
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Anonymous;

impl Authenticator for Anonymous {
    fn authenticate(&self, _: &HeaderMap) -> Result<String, Unauthenticated> {
        Ok(ANONYMOUS.to_owned())
    }
}
