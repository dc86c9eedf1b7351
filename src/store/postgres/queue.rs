//! The search for work: which operation may be claimed next. The rows that have not ended are the queue.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use super::super::Result;
use super::clock::{ServerClock, microseconds};
use super::columns::{Columns, columns_of};
use super::connection::Connection;
use crate::model::{Candidate, NextClaim, Occupied, Phase, Rank, Timestamp};

/// The time at which the search judges what is due.
pub(super) enum Time<'c> {
    Given(Timestamp),
    /// That of the database server, which is told to its clock here.
    Of(&'c ServerClock),
}

/// A horizon that can be added to the time, in microseconds.
const LONGEST_HORIZON: i64 = i64::MAX / 2;
/// Folders that one statement looks at. The search goes round all that have work.
const FOLDERS: i64 = 256;

/// The time, which is the server's where it is not given; and of the first folders after one in which something waits or
/// runs: the operation that may be claimed and has waited longest, how many leases are in force, of all processes, and
/// when the next operation may be claimed. Folders are found without a look at the rest of the queue; an operation that
/// another process is just changing is not waited for. The condition on the phase is in the words of the index; together
/// with those on `claimable_at` it is what `model::is_due` admits. One row without a folder tells the time where there
/// is none.
const FIRST_OF_FOLDERS: &str = concat!(
    "WITH RECURSIVE moment (now) AS MATERIALIZED (SELECT coalesce($1, ",
    microseconds!(),
    ")),
    busy (folder_key, number) AS (
        (SELECT folder_key, 1 FROM operations WHERE phase < 3 AND folder_key > $8
         ORDER BY folder_key LIMIT 1)
        UNION ALL
        SELECT (SELECT folder_key FROM operations
                WHERE phase < 3 AND folder_key > busy.folder_key ORDER BY folder_key LIMIT 1),
            number + 1
        FROM busy WHERE busy.folder_key IS NOT NULL AND number < $9::bigint)
    SELECT (SELECT now FROM moment), folder.key, folder.id, due.key, due.id_rest, due.claimable_at,
        (SELECT count(*) FROM operations
         WHERE folder_key = folder.key AND phase < 3 AND phase <> 0
           AND claimable_at > (SELECT now FROM moment)
           AND claimable_at <= (SELECT now FROM moment) + $2),
        (SELECT claimable_at FROM operations
         WHERE folder_key = folder.key AND phase < 3 AND claimable_at > (SELECT now FROM moment)
         ORDER BY claimable_at LIMIT 1)
    FROM moment LEFT JOIN (busy JOIN folders AS folder ON folder.key = busy.folder_key) ON true
    LEFT JOIN LATERAL (
        SELECT key, id_rest, claimable_at FROM operations
        WHERE folder_key = folder.key AND phase < 3
          AND (claimable_at <= (SELECT now FROM moment)
               OR claimable_at > (SELECT now FROM moment) + $2)
          AND (NOT ($7 OR folder.id = ANY($3)) OR cancel_requested OR phase = $4)
          AND NOT EXISTS (SELECT 1 FROM unnest($5::bigint[], $6::bigint[]) AS held (key, rest)
                          WHERE held.key = operations.key AND held.rest = operations.id_rest)
        ORDER BY claimable_at, key, id_rest LIMIT 1 FOR KEY SHARE OF operations SKIP LOCKED
    ) AS due ON true"
);

/// The operation whose turn is next, at a time or by the server's clock. The search begins after the folder `searched`,
/// and notes there where the next one is to begin.
pub(super) async fn next_claim(
    connection: &Connection,
    occupied: &Occupied,
    clock: &Time<'_>,
    horizon: Duration,
    searched: &AtomicI64,
) -> Result<NextClaim> {
    let full = occupied.in_slots.iter().map(|it| &it.folder_id);
    let mut full: Vec<&String> = full.collect();
    full.retain(|folder_id| occupied.in_folder(folder_id) >= occupied.folder_limit);
    let (keys, rests) = columns_of(occupied.held.iter().map(|it| &it.id));
    let begun = searched.load(Ordering::Relaxed);
    let (mut after, mut is_round) = (begun, begun == 0);
    let mut best: Option<(Rank, Candidate)> = None;
    let mut next_at: Option<Timestamp> = None;
    let horizon = Timestamp(0).after(horizon).0;
    loop {
        let (given, asked) = match clock {
            Time::Given(now) => (Some(now.0), None),
            Time::Of(clock) => (None, Some((clock, clock.asked()))),
        };
        let rows = connection
            .query(
                FIRST_OF_FOLDERS,
                &[
                    &given,
                    &horizon.min(LONGEST_HORIZON),
                    &full,
                    &(Phase::RollingBack as i64),
                    &keys,
                    &rests,
                    &(occupied.folder_limit == 0),
                    &after,
                    &FOLDERS,
                ],
            )
            .await?;
        let is_last = (rows.len() as i64) < FOLDERS;
        let mut time = None;
        for row in &rows {
            let mut columns = Columns::of(row);
            let now = Timestamp(columns.take()?);
            time = Some(now.0);
            let Some(folder_key) = columns.take()? else {
                break;
            };
            after = folder_key;
            let folder_id: String = columns.take()?;
            let (due, since) = (columns.take_optional_id()?, columns.take_time()?);
            let leases: i64 = columns.take()?;
            if let (Some(id), Some(since)) = (due, since) {
                let rank = Rank::new(leases.unsigned_abs() as usize, since, now, id);
                if best.as_ref().is_none_or(|(least, _)| rank < *least) {
                    best = Some((rank, Candidate { id, folder_id }));
                }
            }
            next_at = [next_at, columns.take_time()?].into_iter().flatten().min();
        }
        if let (Some((clock, asked)), Some(time)) = (asked, time) {
            clock.told(asked, time);
        }
        if is_last {
            after = 0;
        }
        let has_gone_round = is_round && (is_last || after >= begun && begun > 0);
        if best.is_some() || has_gone_round {
            break;
        }
        is_round |= is_last;
    }
    searched.store(after, Ordering::Relaxed);
    Ok(NextClaim {
        candidate: best.map(|(_, candidate)| candidate),
        next_at,
    })
}
