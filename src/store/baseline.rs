//! What the figures of the store are compared with. Only in builds for benches/operations.

use std::sync::LazyLock;

/// A server that does less than it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Baseline {
    /// A Copy is checked and answered, but not stored.
    StoresNothing,
    /// A Copy is not stored either, but waits for a group of others before it is answered.
    WaitsForNothing,
    /// Each change has a commit of its own.
    CommitEach,
}

impl Baseline {
    /// The one that the environment names in `DESKTOP_IMAGES_BASELINE`, if any.
    pub fn chosen() -> Option<Self> {
        static CHOSEN: LazyLock<Option<Baseline>> =
            LazyLock::new(
                || match std::env::var("DESKTOP_IMAGES_BASELINE").ok()?.as_str() {
                    "stores-nothing" => Some(Baseline::StoresNothing),
                    "waits-for-nothing" => Some(Baseline::WaitsForNothing),
                    "commit-each" => Some(Baseline::CommitEach),
                    _ => None,
                },
            );
        *CHOSEN
    }
}
