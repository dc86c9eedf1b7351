//! Verified tokens, for as long as the store need not be asked again.

use std::sync::Arc;

use super::{Caller, FRESHNESS};
use crate::model::Timestamp;

/// The most tokens that are remembered.
const MOST: usize = 10_000;

/// The callers of verified tokens, by the SHA-256 of the token.
pub(super) struct Cache(quick_cache::sync::Cache<[u8; 32], Entry>);

#[derive(Clone)]
struct Entry {
    caller: Arc<Caller>,
    verified_at: Timestamp,
    expires_at: Option<Timestamp>,
}

impl Default for Cache {
    fn default() -> Self {
        Self(quick_cache::sync::Cache::new(MOST))
    }
}

impl Cache {
    /// The caller of a token that was verified a short time ago.
    pub(super) fn get(&self, sha256: &[u8; 32], now: Timestamp) -> Option<Arc<Caller>> {
        let entry = self.0.get(sha256)?;
        let is_fresh = entry.verified_at <= now && now < entry.verified_at.after(FRESHNESS);
        let has_expired = entry.expires_at.is_some_and(|at| at <= now);
        (is_fresh && !has_expired).then_some(entry.caller)
    }

    pub(super) fn put(
        &self,
        sha256: [u8; 32],
        caller: Arc<Caller>,
        verified_at: Timestamp,
        expires_at: Option<Timestamp>,
    ) {
        let entry = Entry {
            caller,
            verified_at,
            expires_at,
        };
        self.0.insert(sha256, entry);
    }

    /// Forgets a token.
    pub(super) fn forget(&self, sha256: &[u8; 32]) {
        self.0.remove(sha256);
    }

    /// Forgets all tokens.
    pub(super) fn clear(&self) {
        self.0.clear();
    }
}
