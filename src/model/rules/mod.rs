//! The rules: what each command decides on the rows that it finds. Pure, and the same for every store.

mod accept;
mod cancel;
mod changes;
mod claims;
mod compute_images;
mod desktop_images;
mod draft;
mod endings;
mod operations;
mod quotas;
#[cfg(test)]
pub mod random;
#[cfg(test)]
mod tests;
mod uploads;

pub use accept::Accept;
pub use cancel::RequestCancel;
pub use claims::{Claim, Release, Renew, Retry};
pub use endings::{Complete, CompleteImport, RolledBack, StartRollback};
pub use quotas::{SetQuota, set_quota};
pub use uploads::{Supersede, TieKey};
