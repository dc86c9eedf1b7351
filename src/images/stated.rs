//! A digest that a caller states.

use crate::model::{Failure, Reason, hex};

/// A SHA-256 that a body must have, and the field that says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StatedSha256 {
    pub field: &'static str,
    pub value: [u8; 32],
}

impl StatedSha256 {
    /// Compares the digest with that of the bytes that came.
    pub(super) fn check(&self, sha256: &[u8; 32]) -> std::result::Result<(), Failure> {
        if self.value == *sha256 {
            return Ok(());
        }
        let message = format!(
            "{}: the SHA-256 of the body is {}, and {} was stated",
            self.field,
            hex(sha256),
            hex(&self.value)
        );
        Err(Failure::new(Reason::OtherDigest, message))
    }
}
