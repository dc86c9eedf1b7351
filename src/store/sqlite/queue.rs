//! The search for work: which operation may be claimed next. The rows that have not ended are the queue.

use std::collections::HashSet;
use std::time::Duration;

use rusqlite::params;

use super::super::Result;
use super::Transaction;
use super::operation_rows::NOT_ENDED;
use crate::model::{Candidate, Id, NextClaim, Occupied, Phase, Rank, Timestamp};

/// The operation whose turn is next.
pub(super) fn next_claim(
    transaction: &Transaction<'_>,
    occupied: &Occupied,
    now: Timestamp,
    horizon: Duration,
) -> Result<NextClaim> {
    let mut best: Option<(Rank, Candidate)> = None;
    let mut next_at: Option<i64> = None;
    for (folder_key, folder_id) in folders_with_work(transaction)? {
        let in_folder = occupied.in_folder(&folder_id);
        let folder = Folder {
            key: folder_key,
            id: folder_id,
            only_to_end: in_folder >= occupied.folder_limit,
        };
        if let Some((candidate, since)) =
            first_due(transaction, &folder, now, horizon, &occupied.held)?
        {
            let leases = leases(transaction, folder.key, now, horizon)?;
            let rank = Rank::new(leases, since, now, candidate.id);
            if best.as_ref().is_none_or(|(least, _)| rank < *least) {
                best = Some((rank, candidate));
            }
        }
        let later: Option<i64> = transaction
            .prepare_cached(&format!(
                "SELECT min(claimable_at) FROM operations
                 WHERE folder_key = ?1 AND {NOT_ENDED} AND claimable_at > ?2"
            ))?
            .query_row([folder_key, now.0], |row| row.get(0))?;
        next_at = [next_at, later].into_iter().flatten().min();
    }
    Ok(NextClaim {
        candidate: best.map(|(_, candidate)| candidate),
        next_at: next_at.map(Timestamp),
    })
}

/// Each folder in which something waits or runs, found without a look at the rest of the queue.
fn folders_with_work(transaction: &Transaction<'_>) -> Result<Vec<(i64, String)>> {
    let mut next = transaction.prepare_cached(&format!(
        "SELECT min(folder_key) FROM operations WHERE {NOT_ENDED} AND folder_key > ?1"
    ))?;
    let mut name = transaction.prepare_cached("SELECT id FROM folders WHERE key = ?1")?;
    let (mut folders, mut last) = (Vec::new(), 0);
    while let Some(key) = next.query_row([last], |row| row.get::<_, Option<i64>>(0))? {
        folders.push((key, name.query_row([key], |row| row.get(0))?));
        last = key;
    }
    Ok(folders)
}

/// The number of leases in force in a folder.
fn leases(
    transaction: &Transaction<'_>,
    folder_key: i64,
    now: Timestamp,
    horizon: Duration,
) -> Result<usize> {
    let count: i64 = transaction
        .prepare_cached(&format!(
            "SELECT count(*) FROM operations WHERE folder_key = ?1 AND {NOT_ENDED} AND phase <> 0
             AND claimable_at > ?2 AND claimable_at <= ?3"
        ))?
        .query_row(params![folder_key, now.0, now.after(horizon).0], |row| {
            row.get(0)
        })?;
    Ok(usize::try_from(count).unwrap_or(0))
}

/// A folder in which work is looked for.
struct Folder {
    key: i64,
    id: String,
    /// Only operations that are cancelled or rolled back are looked for.
    only_to_end: bool,
}

/// The operation of a folder that may be claimed and has waited longest, and since when.
fn first_due(
    transaction: &Transaction<'_>,
    folder: &Folder,
    now: Timestamp,
    horizon: Duration,
    held: &HashSet<Candidate>,
) -> Result<Option<(Candidate, Timestamp)>> {
    // In two parts, each in the order of the index; together they are what `model::is_due` admits.
    let mut statement = transaction.prepare_cached(&format!(
        "SELECT key, id_rest, claimable_at FROM operations
         WHERE folder_key = ?1 AND {NOT_ENDED} AND claimable_at <= ?2
         AND (NOT ?5 OR cancel_requested OR phase = ?6)
         UNION ALL
         SELECT key, id_rest, claimable_at FROM operations
         WHERE folder_key = ?1 AND {NOT_ENDED} AND claimable_at > ?3
         AND (NOT ?5 OR cancel_requested OR phase = ?6)
         ORDER BY claimable_at, key LIMIT ?4"
    ))?;
    let mut rows = statement.query(params![
        folder.key,
        now.0,
        now.after(horizon).0,
        held.len() as i64 + 1,
        folder.only_to_end,
        Phase::RollingBack as i64
    ])?;
    while let Some(row) = rows.next()? {
        let candidate = Candidate {
            id: Id {
                key: row.get(0)?,
                rest: row.get(1)?,
            },
            folder_id: folder.id.clone(),
        };
        if !held.contains(&candidate) {
            return Ok(Some((candidate, Timestamp(row.get(2)?))));
        }
    }
    Ok(None)
}
