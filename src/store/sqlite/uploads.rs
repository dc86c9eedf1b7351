//! Uploads under idempotency keys. A key is tied to one only once its whole body is there: until then
//! a retry takes its place.

use rusqlite::{OptionalExtension, params};

use super::super::{Error, Result};
use super::audit::image_prefix;
use super::{Store, accept, claims, contents, operations};
use crate::model::{
    Accept, Change, Event, Failure, Id, Lease, OPERATION_PREFIX, Outcome, Phase, Reason, State,
    Transfer,
};

/// Values of the column `upload`.
const NONE: i64 = 0;
const ARRIVES: i64 = 1;
const TAKEN: i64 = 2;

/// The value for a new operation.
pub(super) fn at_first(accept: &Accept, change: &Change) -> i64 {
    match change.transfer() {
        Some(Transfer::Upload) if accept.idempotency.is_some() => ARRIVES,
        _ => NONE,
    }
}

/// The greatest value with which an upload gives its key back when it fails like this.
pub(super) fn frees_key(failure: &Failure) -> i64 {
    match failure.reason {
        // The image itself was at fault, or its caller gave it up: it would end so again.
        Reason::Invalid | Reason::Cancelled => NONE,
        // What came was not what was sent, or is gone.
        Reason::Aborted | Reason::Superseded | Reason::OtherDigest | Reason::Unavailable => TAKEN,
        Reason::NotFound
        | Reason::AlreadyExists
        | Reason::FailedPrecondition
        | Reason::Exhausted
        | Reason::QuotaExceeded
        | Reason::Internal => ARRIVES,
    }
}

impl Store {
    /// Ties the key of an upload to it: its body was taken whole, and its digest agreed.
    pub async fn tie_key(&self, lease: &Lease) -> Result<()> {
        let lease = lease.clone();
        self.write(move |transaction, _| {
            claims::held(transaction, &lease)?;
            transaction
                .prepare_cached("UPDATE operations SET upload = ?2 WHERE key = ?1 AND upload = ?3")?
                .execute([lease.key, TAKEN, ARRIVES])?;
            Ok(())
        })
        .await
    }

    /// Ends the upload to which the key of this request is not tied yet, so that the request can take
    /// its place; its id. None where there is none, where the key is tied, or will be when it ends.
    pub async fn supersede(&self, accept: &Accept) -> Result<Option<String>> {
        let Some(idempotency) = accept.idempotency.clone() else {
            return Ok(None);
        };
        let subject = accept.subject.clone();
        self.write(move |transaction, store| {
            let found = transaction
                .prepare_cached(
                    "SELECT key, id_rest, kind, phase, cancel_requested, image_key, image_id_rest,
                            request_hash, error_reason, error_message, error_subject,
                            error_quota
                     FROM operations
                     WHERE idempotency_key = ?1 AND subject = ?2 AND upload = ?3 AND phase < 3",
                )?
                .query_row(params![idempotency.key, subject, ARRIVES], |row| {
                    let id = Id {
                        key: row.get("key")?,
                        rest: row.get("id_rest")?,
                    };
                    let image = Id {
                        key: row.get("image_key")?,
                        rest: row.get("image_id_rest")?,
                    };
                    let state = State {
                        phase: operations::phase(row.get("phase")?)?,
                        cancel_requested: row.get("cancel_requested")?,
                    };
                    let kind = operations::kind(row.get("kind")?)?;
                    let hash: Vec<u8> = row.get("request_hash")?;
                    Ok((id, kind, state, image, hash, operations::failure(row)?))
                })
                .optional()?;
            let Some((id, kind, state, image, hash, failure)) = found else {
                return Ok(None);
            };
            if hash != idempotency.request_hash {
                return Err(Error::IdempotencyKeyReused);
            }
            let failure = match (state.phase, failure) {
                // It ends as what it failed of.
                (Phase::Undoing, Some(failure)) => failure,
                _ if state.cancel_requested => return Ok(None),
                _ => Failure::superseded(),
            };
            if frees_key(&failure) == NONE {
                return Ok(None);
            }
            let text = id.text(OPERATION_PREFIX);
            end(state).map_err(|refused| operations::refusal(refused, &text))?;
            contents::discard_pending(transaction, store, id.key)?;
            accept::revert(transaction, store, kind, &image.text(image_prefix(kind)))?;
            operations::end(transaction, store, id.key, Outcome::Failed(failure), &[])?;
            Ok(Some(text))
        })
        .await
    }
}

/// The way of an operation to its end, for one that is not to succeed.
fn end(state: State) -> std::result::Result<State, crate::model::Refused> {
    let undoing = match state.phase {
        Phase::Undoing => state,
        _ => state.after(Event::Claimed)?.after(Event::Abandoned)?,
    };
    undoing.after(Event::Undone)
}
