//! The context of a request, which every use case takes first.

use std::time::Instant;

/// Who asks, under which id, until when, and how a repeat of the request is known. Made once, where requests arrive.
#[derive(Debug, Clone)]
pub(crate) struct RequestContext {
    pub subject: String,
    pub request_id: String,
    /// When the caller stops waiting, if that is known.
    pub deadline: Option<Instant>,
    /// Of a request that changes something.
    pub idempotency: Option<Idempotency>,
}

/// The key that a client sends with each try of one request, and what the request was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Idempotency {
    /// A UUID.
    pub key: [u8; 16],
    /// SHA-256 of the method and the canonical request.
    pub request_hash: [u8; 32],
}
