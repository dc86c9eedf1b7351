//! Moves what the log holds into the database file, off the path of the thread that writes.
//!
//! A checkpoint on a connection of its own moves all that was committed when it began, while
//! commits go on. It cannot let the log start over, since commits have been added meanwhile; that
//! takes the writer, which moves the short rest between two batches.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::Connection;

use super::super::Result;

/// Pages in the log from which on a checkpoint is due: 32 MiB.
const DUE: i32 = 8192;
/// Pages that the writer moves itself at the most, or the thread goes over the log once more, up
/// to so many times.
const REST: i64 = 1000;
const ROUNDS: usize = 4;
/// How long the writer waits for readers to leave the log. They are many and short; where they do
/// not leave in time, the next round tries again.
const PATIENCE: Duration = Duration::from_millis(10);

/// The writer's side.
pub struct Checkpoints {
    thread: Option<JoinHandle<()>>,
    rest_is_short: Arc<AtomicBool>,
}

impl Checkpoints {
    /// Watches the log of `writer`, and checkpoints it by `own`.
    pub fn start(writer: &mut Connection, own: Connection) -> Result<Self> {
        let (due, orders) = sync_channel(1);
        let rest_is_short = Arc::new(AtomicBool::new(false));
        watch(writer, due)?;
        let done = rest_is_short.clone();
        let thread = std::thread::Builder::new()
            .name("checkpoints".to_owned())
            .spawn(move || run(&own, &orders, &done))
            .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
        Ok(Self {
            thread: Some(thread),
            rest_is_short,
        })
    }

    /// To be called by the writer between two batches.
    pub fn between_batches(&self, writer: &Connection) {
        if !self.rest_is_short.swap(false, Ordering::AcqRel) {
            return;
        }
        let moved = writer
            .busy_timeout(PATIENCE)
            .and_then(|()| checkpoint(writer, "RESTART"));
        let restored = writer.busy_timeout(super::BUSY_TIMEOUT);
        if let Err(error) = moved.and(restored) {
            tracing::warn!(%error, "the log of the database was not started over");
        }
    }

    /// Ends the thread. The writer's connection must be closed by now, so that no order comes.
    pub fn stop(mut self) {
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the checkpoints of the database ended in a panic");
        }
    }
}

fn watch(writer: &mut Connection, due: SyncSender<()>) -> Result<()> {
    writer.wal_hook(Some(move |_: &mut _, pages| {
        if pages >= DUE {
            // One order is enough.
            let _ = due.try_send(());
        }
        Ok(())
    }))?;
    Ok(())
}

fn run(connection: &Connection, orders: &Receiver<()>, rest_is_short: &AtomicBool) {
    while orders.recv().is_ok() {
        // What is committed is safe in the log, whatever fails here.
        match catch_up(connection) {
            Ok(()) => rest_is_short.store(true, Ordering::Release),
            Err(error) => tracing::warn!(%error, "a checkpoint of the database failed"),
        }
    }
}

/// Moves what has been committed until little is added meanwhile.
fn catch_up(connection: &Connection) -> rusqlite::Result<()> {
    let mut moved = 0;
    for _ in 0..ROUNDS {
        let before = moved;
        moved = checkpoint(connection, "PASSIVE")?;
        // What came during the round before is about what has come during this one.
        if before > 0 && moved - before < REST {
            break;
        }
    }
    Ok(())
}

/// The pages of the log that are in the database file by now.
fn checkpoint(connection: &Connection, mode: &str) -> rusqlite::Result<i64> {
    connection
        .prepare_cached(&format!("PRAGMA wal_checkpoint({mode})"))?
        .query_row([], |row| row.get(2))
}
