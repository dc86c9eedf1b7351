//! Rules: the decision of each command on the rows that it finds. Pure, and the same for every store.

mod accept;
mod cancel;
mod changes;
mod claims;
mod compute_images;
mod desktop_images;
mod draft;
mod endings;
mod identity;
mod operations;
mod permissions;
mod quotas;
#[cfg(test)]
pub(crate) mod random;
#[cfg(test)]
mod tests;
mod uploads;

pub(crate) use accept::Accept;
pub(crate) use cancel::RequestCancel;
pub(crate) use claims::{Claim, Release, Renew, Retry};
pub(crate) use endings::{Complete, CompleteImport, RolledBack, StartRollback};
pub(crate) use identity::{ChangeIdentity, IdentityChange};
pub(crate) use quotas::{SetQuota, set_quota};
pub(crate) use uploads::{Supersede, TieKey};
