//! How operations end: what they did or left becomes visible in the transaction that ends them.

use rusqlite::params;

use super::super::{ContentFacts, Result};
use super::operations::{self, advance};
use super::{Store, accept, compute_images, contents};
use crate::model::{Event, Failure, Lease, Operation, Outcome, Phase, State};

impl Store {
    /// Ends a claimed change of rows in success.
    pub async fn complete(&self, lease: &Lease) -> Result<Operation> {
        let lease = lease.clone();
        self.write_in_any_case(move |transaction, store| {
            advance(transaction, &lease, Event::Completed)?;
            let applied = accept::complete(transaction, store, &lease.change, &lease.image_id)?;
            let outcome = Outcome::Succeeded(applied.response);
            operations::end(transaction, store, lease.key, outcome, &applied.changes)
        })
        .await
    }

    /// Ends an import in success: the content is live, the image READY and the operation done in
    /// one transaction, which checks the lease.
    /// `checksums` are kept for those who read the content, as they are.
    pub async fn complete_import(
        &self,
        lease: &Lease,
        facts: ContentFacts,
        checksums: Vec<u8>,
    ) -> Result<Operation> {
        let lease = lease.clone();
        self.write(move |transaction, store| {
            advance(transaction, &lease, Event::Completed)?;
            let applied = compute_images::publish(transaction, store, &lease, &facts, &checksums)?;
            let outcome = Outcome::Succeeded(applied.response);
            operations::end(transaction, store, lease.key, outcome, &[])
        })
        .await
    }

    /// Notes what a claimed operation failed of, so that whoever has it next goes on with the
    /// undoing. Callers do not see it before `undone`.
    pub async fn abandon(&self, lease: &Lease, failure: Failure) -> Result<Lease> {
        let lease = lease.clone();
        self.write_in_any_case(move |transaction, store| {
            let state = advance(transaction, &lease, Event::Abandoned)?;
            let failure = told(state, &failure);
            transaction
                .prepare_cached(
                    "UPDATE operations SET phase = ?2, modified_at = max(modified_at, ?3),
                            error_reason = ?4, error_message = ?5, error_subject = ?6,
                            error_quota = ?7
                     WHERE key = ?1",
                )?
                .execute(params![
                    lease.key,
                    state.phase as i64,
                    store.now().0,
                    failure.reason.as_str(),
                    failure.message,
                    failure.subject,
                    operations::quota_column(&failure)?
                ])?;
            Ok(Lease {
                phase: state.phase,
                failure: Some(failure),
                ..lease.clone()
            })
        })
        .await
    }

    /// Ends an operation in failure: the rows that it made are gone in the same transaction. The
    /// bytes are gone already, as far as could be.
    pub async fn undone(&self, lease: &Lease, failure: Failure) -> Result<Operation> {
        let lease = lease.clone();
        self.write_in_any_case(move |transaction, store| {
            // Where even `abandon` found no room, this is both.
            let failure = if lease.phase == Phase::Undoing {
                advance(transaction, &lease, Event::Undone)?;
                failure.clone()
            } else {
                told(advance(transaction, &lease, Event::Abandoned)?, &failure)
            };
            contents::discard_pending(transaction, store, lease.key)?;
            accept::revert(transaction, store, lease.change.kind(), &lease.image_id)?;
            let outcome = Outcome::Failed(failure);
            operations::end(transaction, store, lease.key, outcome, &[])
        })
        .await
    }
}

/// What a caller who has cancelled is told is that.
fn told(state: State, failure: &Failure) -> Failure {
    if state.cancel_requested {
        Failure::cancelled()
    } else {
        failure.clone()
    }
}
