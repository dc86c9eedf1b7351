//! Moves what the log holds into the database file, off the path of the thread that writes.
//!
//! A connection of its own moves what was committed, while commits go on: a little at a time, since
//! the disk serves a commit's `fdatasync` no sooner than the pages that a checkpoint has it write. The
//! log starts over once all of it is moved and nothing is added meanwhile. Under load that takes the
//! writer, which moves the short rest between two batches.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::Connection;

use super::super::Result;

/// Pages that are moved at a time, 4 MiB. Were they more, commits would wait longer for the disk; were
/// they fewer, pages that commits have in common would be moved more often.
const ROUND: i64 = 1024;
/// Pages in the log from which on it is to start over: 32 MiB.
const DUE: i64 = 8192;
/// The same while room on the disk is short: 512 KiB.
const SHORT: i64 = 128;
/// How long the writer waits for readers to leave the log. They are many and short; where they do
/// not leave in time, the next round tries again.
const PATIENCE: Duration = Duration::from_millis(10);

/// The writer's side.
pub(super) struct Checkpoints {
    thread: Option<JoinHandle<()>>,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    /// The pages in the log.
    pages: AtomicI64,
    /// The pages of the log that the last round left in the database file.
    moved: AtomicI64,
    /// Whether next to all of a long log is moved.
    may_start_over: AtomicBool,
}

impl State {
    /// Whether a log of so many pages has enough for a round.
    fn is_due(&self, pages: i64) -> bool {
        let moved = self.moved.load(Ordering::Acquire);
        // A shorter log has started over since.
        let new = if pages < moved { pages } else { pages - moved };
        new >= ROUND
    }
}

impl Checkpoints {
    /// Watches the log of `writer`, and checkpoints it by `own`.
    pub(super) fn start(writer: &mut Connection, own: Connection) -> Result<Self> {
        let (due, orders) = sync_channel(1);
        let state = Arc::<State>::default();
        watch(writer, due, state.clone())?;
        let shared = state.clone();
        let thread = std::thread::Builder::new()
            .name("checkpoints".to_owned())
            .spawn(move || run(&own, &orders, &shared))
            .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
        Ok(Self {
            thread: Some(thread),
            state,
        })
    }

    /// To be called by the writer between two batches. Where room on the disk is short the log is kept short, so
    /// that it does not take all of what the database file needs to grow.
    pub(super) fn between_batches(&self, writer: &Connection, is_short_of_room: bool) {
        let is_long = self.state.pages.load(Ordering::Acquire) >= SHORT;
        if self.state.may_start_over.load(Ordering::Acquire) || (is_short_of_room && is_long) {
            self.start_over(writer);
        }
    }

    /// Moves all of the log, and has it start over, if no reader holds it for long.
    pub(super) fn start_over(&self, writer: &Connection) {
        let moved = writer
            .busy_timeout(PATIENCE)
            .and_then(|()| checkpoint(writer, "RESTART"));
        let restored = writer.busy_timeout(super::BUSY_TIMEOUT);
        if let Err(error) = moved.and(restored) {
            tracing::warn!(%error, "the log of the database was not started over");
        }
        self.state.may_start_over.store(false, Ordering::Release);
    }

    /// Ends the thread. The writer's connection must be closed by now, so that no order comes.
    pub(super) fn stop(mut self) {
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the checkpoints of the database ended in a panic");
        }
    }
}

fn watch(writer: &mut Connection, due: SyncSender<()>, state: Arc<State>) -> Result<()> {
    writer.wal_hook(Some(move |_: &mut _, pages| {
        state.pages.store(i64::from(pages), Ordering::Release);
        if state.is_due(i64::from(pages)) {
            // One order is enough.
            let _ = due.try_send(());
        }
        Ok(())
    }))?;
    Ok(())
}

fn run(connection: &Connection, orders: &Receiver<()>, state: &State) {
    while orders.recv().is_ok() {
        // The writer is about to move the rest, and would wait for a round that runs.
        if state.may_start_over.load(Ordering::Acquire) {
            continue;
        }
        // What is committed is safe in the log, whatever fails here.
        if let Err(error) = round(connection, state) {
            tracing::warn!(%error, "a checkpoint of the database failed");
        }
    }
}

/// Moves what has been committed; of a long log what was committed meanwhile, too, so that the writer
/// need not move it.
///
/// SQLite syncs what it moved only if no commit came meanwhile. Such a commit orders the next round,
/// which thus follows at once, is short, and syncs for both.
fn round(connection: &Connection, state: &State) -> rusqlite::Result<()> {
    let mut reached = checkpoint(connection, "PASSIVE")?;
    let is_long = reached.moved >= DUE;
    if is_long {
        reached = checkpoint(connection, "PASSIVE")?;
    }
    state.moved.store(reached.moved, Ordering::Release);
    // Where a reader holds the log, the rest is not short, and the writer is not to try in vain.
    let rest_is_short = reached.pages - reached.moved < ROUND;
    let may_start_over = is_long && rest_is_short;
    state
        .may_start_over
        .store(may_start_over, Ordering::Release);
    Ok(())
}

/// How far a checkpoint came.
struct Reached {
    /// The pages in the log.
    pages: i64,
    /// Those of them that are in the database file by now.
    moved: i64,
}

fn checkpoint(connection: &Connection, mode: &str) -> rusqlite::Result<Reached> {
    connection
        .prepare_cached(&format!("PRAGMA wal_checkpoint({mode})"))?
        .query_row([], |row| {
            Ok(Reached {
                pages: row.get(1)?,
                moved: row.get(2)?,
            })
        })
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};
    use std::time::Instant;

    use tempfile::TempDir;

    use super::*;

    /// How often the log has started over: the number in its header, which SQLite's file format calls
    /// the checkpoint sequence number.
    fn starts(path: &Path) -> u32 {
        let log = std::fs::read(path.with_extension("sqlite-wal")).expect("a log");
        log.get(12..16).map_or(0, |number| {
            u32::from_be_bytes(number.try_into().expect("four bytes"))
        })
    }

    /// Commits a row of so many bytes.
    fn commit(writer: &Connection, bytes: i64) {
        writer
            .execute("INSERT INTO blobs (bytes) VALUES (zeroblob(?1))", [bytes])
            .expect("a commit");
    }

    fn connect(path: &Path) -> Connection {
        let file = std::fs::File::options()
            .create(true)
            .append(true)
            .open(path);
        file.expect("a file for the database");
        super::super::connect(path, 1024).expect("a database")
    }

    fn count(connection: &Connection) -> i64 {
        connection
            .query_row("SELECT count(*) FROM blobs", [], |row| row.get(0))
            .expect("rows")
    }

    struct Database {
        path: PathBuf,
        writer: Connection,
        _folder: TempDir,
    }

    fn database() -> Database {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("metadata.sqlite");
        let writer = connect(&path);
        writer
            .execute_batch("CREATE TABLE blobs (key INTEGER PRIMARY KEY, bytes BLOB)")
            .expect("a table");
        Database {
            path,
            writer,
            _folder: folder,
        }
    }

    #[test]
    fn rounds_move_what_is_committed_meanwhile() {
        let Database {
            path,
            mut writer,
            _folder,
        } = database();
        let checkpoints = Checkpoints::start(&mut writer, connect(&path)).expect("a thread");
        let first = starts(&path);
        let (mut commits, begun) = (0, Instant::now());
        while starts(&path) < first + 3 {
            assert!(begun.elapsed() < Duration::from_secs(60), "never");
            commit(&writer, 1_000_000);
            commits += 1;
            checkpoints.between_batches(&writer, false);
        }
        assert_eq!(count(&connect(&path)), commits);
        drop(writer);
        checkpoints.stop();
    }

    #[test]
    fn the_writer_lets_a_long_log_start_over() {
        let Database {
            path,
            writer,
            _folder,
        } = database();
        let (reader, own) = (connect(&path), connect(&path));
        let checkpoints = Checkpoints {
            thread: None,
            state: Arc::default(),
        };
        // Pages of 4 KiB, and some more than are due.
        for _ in 0..9 {
            commit(&writer, 4_000_000);
        }
        let first = starts(&path);
        // As long as somebody reads from it, the log cannot start over by itself.
        reader.execute_batch("BEGIN").expect("a transaction");
        assert_eq!(count(&reader), 9);
        // More than the writer should move.
        commit(&writer, 5_000_000);
        round(&own, &checkpoints.state).expect("a round");
        assert!(!checkpoints.state.may_start_over.load(Ordering::Acquire));
        checkpoints.between_batches(&writer, false);
        commit(&writer, 1);
        assert_eq!(starts(&path), first, "with a reader");
        reader.execute_batch("COMMIT").expect("an end");

        reader.execute_batch("BEGIN").expect("a transaction");
        assert_eq!(count(&reader), 11);
        round(&own, &checkpoints.state).expect("a round");
        // What comes behind the round is the rest.
        commit(&writer, 1);
        reader.execute_batch("COMMIT").expect("an end");
        checkpoints.between_batches(&writer, false);
        commit(&writer, 1);
        assert_eq!(starts(&path), first + 1);
        assert_eq!(count(&connect(&path)), 13);
    }
}
