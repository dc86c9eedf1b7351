//! The domain: its types, and its rules as pure functions. Knows ids, time, images, blobs, operations and their
//! states, quotas, audit events, lists, and the decision of each command. Never mentions a store, a transport, or
//! anything else that does I/O.

mod access;
mod audit;
mod blobs;
mod changes;
mod command;
mod effects;
mod hex;
mod identity;
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
pub(crate) mod rules;
mod time;
mod working_set;

pub(crate) use access::{Grant, Permissions, Rights, Role};
pub(crate) use audit::{
    AuditEvent, AuditKind, AuditQuery, AuditStatus, FieldChange, IdentityAction,
};
pub(crate) use blobs::{BlobFacts, BlobSize, DeletedBlob, LiveBlob};
pub(crate) use changes::{
    Change, ComputeImageChanges, DesktopImageChanges, Kind, NewComputeImage, NewDesktopImage,
    Origin,
};
pub(crate) use command::{Command, Fresh, Room};
pub(crate) use effects::{Decision, Effect, Tombstone};
pub(crate) use hex::hex;
pub(crate) use identity::{
    IdentityKey, IdentityKind, IdentityRow, SERVICE_ACCOUNT_SUBJECT, ServiceAccount,
    ServiceAccountKey, TOKEN_SUBJECT, Token, UrlKey, owner,
};
pub(crate) use ids::{
    COMPUTE_IMAGE_PREFIX, DESKTOP_IMAGE_PREFIX, Id, IdGenerator, OPERATION_PREFIX,
};
pub(crate) use images::{
    ComputeImage, ComputeImageStatus, DesktopImage, DesktopImageStatus, HardwareGeneration, Labels,
    Os,
};
pub(crate) use leases::{
    Accepted, CancelRequested, Candidate, Claimed, Lease, NextClaim, Occupied, Rank, Renewed,
    Start, is_due,
};
pub(crate) use lists::{
    Column, Condition, Direction, ListQuery, Page, Position, SortKey, name_hash, total_order,
};
pub(crate) use operation_state::{Event, Phase, Refused, State};
pub(crate) use operations::{
    Failure, Operation, Outcome, Progress, ReachedQuota, Reason, Resource, Transfer,
};
pub(crate) use quotas::{ExceededQuota, Metric, Quota, QuotaScope};
pub(crate) use refusal::Refusal;
pub(crate) use request::{Idempotency, RequestContext, Standing};
pub(crate) use rows::{
    AuditRow, AuditStep, BlobRow, BlobState, ComputeImageRow, DesktopImageRow, OperationRow, Task,
    UploadKey,
};
#[cfg(test)]
pub(crate) use time::ManualClock;
pub(crate) use time::{Clock, SystemClock, Timestamp};
pub(crate) use working_set::{KeyOf, Lookup, NameIn, WorkingSet};
