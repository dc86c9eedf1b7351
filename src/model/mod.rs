//! Knows the types of the domain and its pure rules: ids, time, images, operations and their states, quotas, audit
//! events, lists. Never mentions a store, a transport, or anything else that does I/O.

mod audit;
mod changes;
mod ids;
mod images;
mod lists;
mod operation_state;
mod operations;
mod quotas;
mod time;

pub use audit::{AuditEvent, AuditKind, AuditQuery, AuditStatus, FieldChange};
pub use changes::{
    Accept, Accepted, Change, ComputeImageChanges, DesktopImageChanges, Idempotency, Lease,
    NewComputeImage, NewDesktopImage, Origin, Start,
};
pub use ids::{COMPUTE_IMAGE_PREFIX, DESKTOP_IMAGE_PREFIX, Id, IdGenerator, OPERATION_PREFIX};
pub use images::{
    ComputeImage, ComputeImageStatus, DesktopImage, DesktopImageStatus, HardwareGeneration, Labels,
    Os,
};
pub use lists::{Column, Condition, Direction, ListQuery, Page, Position, name_hash};
pub use operation_state::{Event, Phase, Refused, State};
pub use operations::{Failure, Kind, Operation, Outcome, Progress, ReachedQuota, Reason, Transfer};
pub use quotas::{ExceededQuota, Metric, Quota, QuotaScope};
#[cfg(test)]
pub use time::ManualClock;
pub use time::{Clock, SystemClock, Timestamp};
