//! Faults of compressed data, whatever the method of their compression.

/// Why the data of a cluster are not what they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The data end before their stream does.
    Incomplete { produced: usize },
    /// The stream ends before the cluster is full.
    Short { produced: usize },
    /// The stream goes on when the cluster is full.
    Long,
    /// No such stream, or damaged.
    Invalid { produced: usize },
    /// More blocks than any compressor makes.
    TooManyBlocks { most: u64 },
}
