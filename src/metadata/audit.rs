//! What is remembered of each mutation, free of any SQL.

use std::num::NonZeroUsize;

use super::Timestamp;
use crate::operations::Kind;

/// That a mutation began, or how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEvent {
    /// Grows from event to event, from 1.
    pub sequence: i64,
    pub time: Timestamp,
    pub status: AuditStatus,
    pub kind: Kind,
    pub subject: String,
    pub request_id: String,
    pub folder_id: String,
    pub operation_id: String,
    pub image_id: String,
    /// What went wrong; of an error only.
    pub message: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuditStatus {
    Started,
    Done,
    Error,
    Cancelled,
}

/// Which events are asked for, the oldest first.
#[derive(Debug, Clone)]
pub struct AuditQuery {
    /// Those after this sequence number; 0 for all.
    pub after: i64,
    pub folder_id: Option<String>,
    /// About how many at the most: the two events of a mutation that was done at once are never
    /// parted.
    pub limit: NonZeroUsize,
}
