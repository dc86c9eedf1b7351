//! Knows who calls. Never mentions how a caller is asked, nor what is asked for.

/// The subject of a request without a token. Every request is, as long as no way to check tokens
/// is configured, which is why such a server listens on loopback.
pub const ANONYMOUS: &str = "anonymous";
