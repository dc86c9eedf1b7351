//! Knows the types of the domain and its pure rules: ids, time, images, blobs, operations and their states,
//! quotas, audit events, lists, and what each command decides. Never mentions a store, a transport, or anything
//! else that does I/O.

mod audit;
mod blobs;
mod changes;
mod command;
mod effects;
mod ids;
mod images;
mod leases;
mod lists;
mod operation_state;
mod operations;
mod quotas;
mod refusal;
mod request;
mod rows;
pub mod rules;
mod time;
mod working_set;

pub use audit::{AuditEvent, AuditKind, AuditQuery, AuditStatus, FieldChange};
pub use blobs::{BlobFacts, DeletedBlob, LiveBlob};
pub use changes::{
    Change, ComputeImageChanges, DesktopImageChanges, NewComputeImage, NewDesktopImage, Origin,
};
pub use command::{Command, Fresh, Room};
pub use effects::{Decision, Effect, Tombstone};
pub use ids::{COMPUTE_IMAGE_PREFIX, DESKTOP_IMAGE_PREFIX, Id, IdGenerator, OPERATION_PREFIX};
pub use images::{
    ComputeImage, ComputeImageStatus, DesktopImage, DesktopImageStatus, HardwareGeneration, Labels,
    Os,
};
pub use leases::{
    Accepted, CancelRequested, Candidate, Claimed, Lease, NextClaim, Occupied, Rank, Renewed,
    Start, is_due,
};
pub use lists::{
    Column, Condition, Direction, ListQuery, Page, Position, SortKey, name_hash, total_order,
};
pub use operation_state::{Event, Phase, Refused, State};
pub use operations::{
    Failure, Kind, Operation, Outcome, Progress, ReachedQuota, Reason, Resource, Transfer,
};
pub use quotas::{ExceededQuota, Metric, Quota, QuotaScope};
pub use refusal::Refusal;
pub use request::{Idempotency, RequestContext};
pub use rows::{
    AuditRow, AuditStep, BlobRow, BlobState, ComputeImageRow, DesktopImageRow, OperationRow, Task,
    UploadKey,
};
#[cfg(test)]
pub use time::ManualClock;
pub use time::{Clock, SystemClock, Timestamp};
pub use working_set::{KeyOf, Lookup, NameIn, WorkingSet};
