//! Who works on an operation: claims under a lease, its renewal, and giving it back.
//!
//! A lease goes by the store's clock. A time further ahead than any lease or pause can reach was
//! written before the clock was set back; it counts as past.

use std::collections::HashSet;
use std::time::Duration;

use rusqlite::{OptionalExtension, named_params, params};

use super::super::{Error, Result};
use super::audit::image_prefix;
use super::operations::{self, advance};
use super::{Store, Transaction, accept, contents};
use crate::model::{
    Change, Event, Failure, Id, Kind, Lease, OPERATION_PREFIX, Operation, Outcome, Phase, Progress,
    Reason, Refused, State, Timestamp,
};

/// An operation that may be claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Candidate {
    key: i64,
    folder_key: i64,
}

/// What a process that looks for work has already.
#[derive(Debug, Default)]
pub struct Occupied {
    /// Not to be looked for.
    pub held: HashSet<Candidate>,
    /// Those that count against the limit of their folder.
    pub placed: Vec<Candidate>,
    /// How many of a folder may have a place. Beyond that only those are looked for that have to
    /// be ended, being cancelled or undone.
    pub folder_limit: usize,
}

/// What a worker finds when it looks for work.
#[derive(Debug, Default)]
pub struct NextClaim {
    pub candidate: Option<Candidate>,
    /// When the next operation may be claimed, where none may be now and one will.
    pub next_at: Option<Timestamp>,
}

/// An operation that is to be cancelled.
#[derive(Debug)]
pub struct CancelRequested {
    /// As it now stands.
    pub operation: Operation,
    /// Set where it has not ended: if nobody has it, somebody has to end it.
    pub candidate: Option<Candidate>,
}

/// What the holder of a lease learns at its renewal.
#[derive(Debug, Clone, Copy)]
pub struct Renewed {
    pub cancel_requested: bool,
}

impl Lease {
    /// The operation, as one that is not to be looked for.
    pub fn candidate(&self) -> Candidate {
        Candidate {
            key: self.key,
            folder_key: self.folder_key,
        }
    }
}

impl Store {
    /// The operation whose turn is next: of the folder in which the fewest have a place, the one
    /// that has waited longest. No time of the queue can be further ahead than `horizon`.
    pub async fn next_claim(&self, occupied: Occupied, horizon: Duration) -> Result<NextClaim> {
        let now = self.now();
        self.read(move |transaction| {
            let latest = now.after(horizon);
            let mut best: Option<((usize, i64, i64), Candidate)> = None;
            let mut next_at: Option<i64> = None;
            for folder_key in folders_with_work(transaction)? {
                let placed = occupied.placed.iter();
                let placed = placed.filter(|it| it.folder_key == folder_key).count();
                let held = &occupied.held;
                let only_to_end = placed >= occupied.folder_limit;
                let due = first_due(transaction, folder_key, now, latest, held, only_to_end)?;
                if let Some((key, since)) = due {
                    // What lies beyond the horizon has waited for a clock that was set back.
                    let rank = (placed, since.min(now.0), key);
                    if best.is_none_or(|(least, _)| rank < least) {
                        best = Some((rank, Candidate { key, folder_key }));
                    }
                }
                let later: Option<i64> = transaction
                    .prepare_cached(
                        "SELECT min(claimable_at) FROM operations
                         WHERE folder_key = ?1 AND phase < 3 AND claimable_at > ?2",
                    )?
                    .query_row([folder_key, now.0], |row| row.get(0))?;
                next_at = [next_at, later].into_iter().flatten().min();
            }
            Ok(NextClaim {
                candidate: best.map(|(_, candidate)| candidate),
                next_at: next_at.map(Timestamp),
            })
        })
        .await
    }

    /// Takes an operation whose turn has come for a new attempt, with a content of its own where
    /// it brings one; what the attempt before wrote is put among the tombstones. None when another
    /// worker was faster.
    pub async fn claim(
        &self,
        candidate: Candidate,
        lease: Duration,
        horizon: Duration,
    ) -> Result<Option<Lease>> {
        self.write_in_any_case(move |transaction, store| {
            let now = store.now();
            let due: bool = transaction
                .prepare_cached(
                    "SELECT EXISTS (SELECT 1 FROM operations WHERE key = ?1 AND phase < 3
                                    AND (claimable_at <= ?2 OR claimable_at > ?3))",
                )?
                .query_row([candidate.key, now.0, now.after(horizon).0], |row| {
                    row.get(0)
                })?;
            if !due {
                return Ok(None);
            }
            claim(transaction, store, candidate.key, lease)
        })
        .await
    }

    /// Holds on to an operation for another `length`, and tells how far it is.
    pub async fn renew(
        &self,
        lease: &Lease,
        length: Duration,
        progress: Progress,
    ) -> Result<Renewed> {
        let lease = lease.clone();
        self.write(move |transaction, store| {
            let (state, now) = (held(transaction, &lease)?, store.now());
            let signed = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
            // Only progress is a change of the operation.
            transaction
                .prepare_cached(
                    "UPDATE operations SET claimable_at = :until,
                        modified_at = iif(progress_done IS :done AND progress_total IS :total,
                                          modified_at, max(modified_at, :now)),
                        progress_done = :done, progress_total = :total
                     WHERE key = :key",
                )?
                .execute(named_params! {
                    ":key": lease.key,
                    ":until": now.after(length).0,
                    ":now": now.0,
                    ":done": signed(progress.done),
                    ":total": progress.total.map(signed),
                })?;
            Ok(Renewed {
                cancel_requested: state.cancel_requested,
            })
        })
        .await
    }

    /// Gives an operation back, as one that was never claimed: the worker has to stop.
    pub async fn release(&self, lease: &Lease) -> Result<()> {
        let lease = lease.clone();
        self.write_in_any_case(move |transaction, store| {
            let state = advance(transaction, &lease, Event::Postponed)?;
            contents::discard_pending(transaction, store, lease.key)?;
            transaction
                .prepare_cached(
                    "UPDATE operations SET phase = ?2, lease_token = NULL, claimable_at = ?3,
                            attempt = max(attempt - ?4, 0), progress_done = 0,
                            progress_total = NULL
                     WHERE key = ?1",
                )?
                .execute(params![
                    lease.key,
                    state.phase as i64,
                    store.now().0,
                    // An undoing does not count as an attempt.
                    i64::from(lease.phase == Phase::Running)
                ])?;
            Ok(())
        })
        .await
    }

    /// Puts another attempt off by `pause`, unless that is after the time that retries have had:
    /// `patience` from the first failure. What the attempt wrote is put among the tombstones.
    /// Tells whether there will be another attempt.
    pub async fn retry(
        &self,
        lease: &Lease,
        failure: Failure,
        pause: Duration,
        patience: Duration,
    ) -> Result<bool> {
        let lease = lease.clone();
        self.write(move |transaction, store| {
            let state = advance(transaction, &lease, Event::Postponed)?;
            let (now, at) = (store.now(), store.now().after(pause));
            let until: Option<i64> = transaction
                .prepare_cached("SELECT retry_until FROM operations WHERE key = ?1")?
                .query_row([lease.key], |row| row.get(0))?;
            let until = until.unwrap_or(now.after(patience).0);
            if at.0 > until || state.cancel_requested {
                return Ok(false);
            }
            contents::discard_pending(transaction, store, lease.key)?;
            transaction
                .prepare_cached(
                    "UPDATE operations SET phase = :phase, lease_token = NULL, claimable_at = :at,
                            retry_until = :until, modified_at = max(modified_at, :now),
                            progress_done = 0, progress_total = NULL, error_reason = :reason,
                            error_message = :message, error_subject = :subject,
                            error_quota = :quota
                     WHERE key = :key",
                )?
                .execute(named_params! {
                    ":key": lease.key,
                    ":phase": state.phase as i64,
                    ":at": at.0,
                    ":until": until,
                    ":now": now.0,
                    ":reason": failure.reason.as_str(),
                    ":message": failure.message,
                    ":subject": failure.subject,
                    ":quota": operations::quota_column(&failure)?,
                })?;
            Ok(true)
        })
        .await
    }

    /// Notes that an operation is to be cancelled, and returns it as it is. One that waits may
    /// be claimed at once, for that; one that has ended stays as it is.
    pub async fn request_cancel(&self, id: &str) -> Result<CancelRequested> {
        let id = id.to_owned();
        self.write_in_any_case(move |transaction, store| {
            let parsed = operations::parse_id(&id)?;
            let operation = operations::get(transaction, parsed)?;
            let Some((state, _)) = operations::state(transaction, parsed.key)? else {
                return Err(Error::OperationNotFound { id: id.clone() });
            };
            let mut candidate = None;
            match state.after(Event::CancelRequested) {
                Err(Refused::Done) => {}
                Err(refused) => return Err(operations::refusal(refused, &id)),
                Ok(_) => {
                    let folder_key = transaction
                        .prepare_cached(
                            "UPDATE operations SET cancel_requested = 1,
                                    claimable_at = iif(phase = ?2, ?3, claimable_at)
                             WHERE key = ?1 RETURNING folder_key",
                        )?
                        .query_row(
                            params![parsed.key, Phase::Queued as i64, store.now().0],
                            |row| row.get(0),
                        )?;
                    candidate = Some(Candidate {
                        key: parsed.key,
                        folder_key,
                    });
                }
            }
            Ok(CancelRequested {
                operation,
                candidate,
            })
        })
        .await
    }
}

/// Each folder in which something waits or runs, found without a look at the rest of the queue.
fn folders_with_work(transaction: &Transaction<'_>) -> Result<Vec<i64>> {
    let mut folders = Vec::new();
    let mut statement = transaction.prepare_cached(
        "SELECT min(folder_key) FROM operations WHERE phase < 3 AND folder_key > ?1",
    )?;
    let mut last = 0;
    while let Some(folder_key) = statement.query_row([last], |row| row.get::<_, Option<i64>>(0))? {
        folders.push(folder_key);
        last = folder_key;
    }
    Ok(folders)
}

/// The operation of a folder that may be claimed and has waited longest, and since when; where
/// `only_to_end`, of those that are cancelled or being undone.
fn first_due(
    transaction: &Transaction<'_>,
    folder_key: i64,
    now: Timestamp,
    latest: Timestamp,
    held: &HashSet<Candidate>,
    only_to_end: bool,
) -> Result<Option<(i64, i64)>> {
    let mut statement = transaction.prepare_cached(
        "SELECT key, claimable_at FROM operations
         WHERE folder_key = ?1 AND phase < 3 AND claimable_at <= ?2
         AND (NOT ?5 OR cancel_requested OR phase = 2)
         UNION ALL
         SELECT key, claimable_at FROM operations
         WHERE folder_key = ?1 AND phase < 3 AND claimable_at > ?3
         AND (NOT ?5 OR cancel_requested OR phase = 2)
         ORDER BY claimable_at, key LIMIT ?4",
    )?;
    let limit = held.len() as i64 + 1;
    let mut rows = statement.query(params![folder_key, now.0, latest.0, limit, only_to_end])?;
    while let Some(row) = rows.next()? {
        let key = row.get(0)?;
        if !held.contains(&Candidate { key, folder_key }) {
            return Ok(Some((key, row.get(1)?)));
        }
    }
    Ok(None)
}

/// Takes an operation that has not ended, away from whoever had it. None when it had to be ended:
/// a version of this program that knows more has accepted it.
pub(super) fn claim(
    transaction: &Transaction<'_>,
    store: &Store,
    key: i64,
    length: Duration,
) -> Result<Option<Lease>> {
    struct Found {
        id: Id,
        state: State,
        folder_key: i64,
        folder_id: String,
        kind: Kind,
        image_id: String,
        key_is_free: bool,
        request_id: String,
        attempt: i64,
        task: String,
        failure: Option<Failure>,
    }
    let found = transaction
        .prepare_cached(
            "SELECT operation.key, id_rest, kind, phase, cancel_requested, folder_key,
                    folder.id AS folder_id, image_key, image_id_rest, request_id,
                    upload = 1 AS key_is_free, attempt, coalesce(task, '') AS task, error_reason,
                    error_message, error_subject, error_quota
             FROM operations AS operation JOIN folders AS folder ON folder.key = folder_key
             WHERE operation.key = ?1",
        )?
        .query_row([key], |row| {
            let image = Id {
                key: row.get("image_key")?,
                rest: row.get("image_id_rest")?,
            };
            let kind = operations::kind(row.get("kind")?)?;
            Ok(Found {
                kind,
                id: Id {
                    key,
                    rest: row.get("id_rest")?,
                },
                state: State {
                    phase: operations::phase(row.get("phase")?)?,
                    cancel_requested: row.get("cancel_requested")?,
                },
                folder_key: row.get("folder_key")?,
                folder_id: row.get("folder_id")?,
                image_id: image.text(image_prefix(kind)),
                key_is_free: row.get("key_is_free")?,
                request_id: row.get("request_id")?,
                attempt: row.get("attempt")?,
                task: row.get("task")?,
                failure: operations::failure(row)?,
            })
        })
        .optional()?;
    let lost = || Error::LeaseLost {
        id: Id { key, rest: 0 }.text(OPERATION_PREFIX),
    };
    let found = found.ok_or_else(lost)?;
    let operation_id = found.id.text(OPERATION_PREFIX);
    let state = found
        .state
        .after(Event::Claimed)
        .map_err(|refused| operations::refusal(refused, &operation_id))?;
    let discarded = contents::discard_pending(transaction, store, key)?;
    let change: Change = match serde_json::from_str(&found.task) {
        Ok(change) => change,
        Err(error) => {
            tracing::error!(
                operation_id,
                image_id = found.image_id,
                folder_id = found.folder_id,
                request_id = found.request_id,
                %error,
                "what the operation has to do is not known"
            );
            accept::revert(transaction, store, found.kind, &found.image_id)?;
            let message = "What it has to do is not known to this version of the server";
            let failure = Failure::new(Reason::Internal, message);
            operations::end(transaction, store, key, Outcome::Failed(failure), &[])?;
            return Ok(None);
        }
    };
    let attempt = match state.phase {
        Phase::Running => found.attempt + 1,
        _ => found.attempt,
    };
    let token = rand::random_range(1..=i64::MAX);
    let now = store.now();
    transaction
        .prepare_cached(
            "UPDATE operations SET phase = ?2, attempt = ?3, lease_token = ?4, claimable_at = ?5,
                    modified_at = max(modified_at, ?6), progress_done = 0, progress_total = NULL
             WHERE key = ?1",
        )?
        .execute(params![
            key,
            state.phase as i64,
            attempt,
            token,
            now.after(length).0,
            now.0
        ])?;
    let content_id = if state.phase == Phase::Running && change.brings_content() {
        contents::insert_pending(transaction, store, key)?
    } else {
        String::new()
    };
    Ok(Some(Lease {
        operation_id,
        image_id: found.image_id,
        folder_id: found.folder_id,
        request_id: found.request_id,
        phase: state.phase,
        change,
        content_id,
        discarded,
        key_is_free: found.key_is_free,
        attempt,
        cancel_requested: found.state.cancel_requested,
        failure: found.failure,
        key,
        folder_key: found.folder_key,
        token,
    }))
}

/// The state of an operation whose lease is still held.
pub(super) fn held(transaction: &Transaction<'_>, lease: &Lease) -> Result<State> {
    match operations::state(transaction, lease.key)? {
        Some((state, token)) if token == lease.token => Ok(state),
        _ => Err(Error::LeaseLost {
            id: lease.operation_id.clone(),
        }),
    }
}
