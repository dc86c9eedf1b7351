//! Threads that read. A look-up takes less time than it takes to wake a thread for it, so few
//! threads do what waits, one after another. A read that has waited for long brings one more, so that quick
//! reads do not wait for slow ones.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, TransactionBehavior};
use tokio::sync::{Notify, oneshot};

use super::super::{Error, Result};
use super::{READER_CACHE, Transaction, connect};

/// How many idle connections are kept.
const IDLE: usize = 8;
/// How long a read waits before it brings a thread.
const PATIENCE: Duration = Duration::from_millis(5);

/// Cheap to clone; all clones share their threads.
#[derive(Clone)]
pub(super) struct Readers {
    path: Arc<Path>,
    /// How many threads there are as long as nothing has waited for long.
    few: usize,
    state: Arc<Mutex<State>>,
    /// Notified of each thread that has ended.
    ended: Arc<Notify>,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Job>,
    threads: usize,
    idle: Vec<Connection>,
    is_closed: bool,
}

type Job = Box<dyn FnOnce(Result<&Connection>) + Send>;

impl Readers {
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path: path.into(),
            few: std::thread::available_parallelism().map_or(1, usize::from),
            state: Arc::default(),
            ended: Arc::default(),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Runs `work` on a snapshot of the database, unless nobody waits for it any more.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (caller, mut outcome) = oneshot::channel();
        let job = move |connection: Result<&Connection>| {
            if !caller.is_closed() {
                let read = connection.and_then(|connection| {
                    work(&Transaction::begin(
                        connection,
                        TransactionBehavior::Deferred,
                    )?)
                });
                // The caller may have gone meanwhile.
                let _ = caller.send(read);
            }
        };
        {
            let mut state = self.state();
            if state.is_closed {
                return Err(Error::Closed);
            }
            state.waiting.push_back(Box::new(job));
            if state.threads < self.few {
                self.bring_thread(&mut state);
            }
        }
        let read = match tokio::time::timeout(PATIENCE, &mut outcome).await {
            Ok(read) => read,
            Err(_) => {
                {
                    let mut state = self.state();
                    if !state.waiting.is_empty() {
                        self.bring_thread(&mut state);
                    }
                }
                outcome.await
            }
        };
        read.map_err(|_| Error::Closed)?
    }

    /// Takes no more reads, and waits until all connections are closed. A thread has its connection for a moment longer
    /// than the caller waits for the answer; whoever replaces the file then would find a log beside it that is not its
    /// own.
    pub(super) async fn close(&self) {
        loop {
            let ended = self.ended.notified();
            {
                let mut state = self.state();
                state.is_closed = true;
                state.idle.clear();
                if state.threads == 0 {
                    return;
                }
            }
            ended.await;
        }
    }

    fn bring_thread(&self, state: &mut State) {
        state.threads += 1;
        let readers = self.clone();
        tokio::task::spawn_blocking(move || readers.run());
    }

    fn run(&self) {
        let mut connection = None;
        while let Some(job) = self.next(&mut connection) {
            let opened = match &mut connection {
                Some(connection) => Ok(&*connection),
                none => connect(&self.path, READER_CACHE).map(|opened| &*none.insert(opened)),
            };
            // The caller of a job that panics is told; the others wait for this thread.
            if catch_unwind(AssertUnwindSafe(|| job(opened))).is_err() {
                connection = None;
            }
        }
    }

    /// The next job; `None` ends the thread and takes its connection.
    fn next(&self, connection: &mut Option<Connection>) -> Option<Job> {
        let mut state = self.state();
        let job = state.waiting.pop_front();
        if job.is_none() {
            match !state.is_closed && state.idle.len() < IDLE {
                true => state.idle.extend(connection.take()),
                false => *connection = None,
            }
            state.threads -= 1;
            self.ended.notify_waiters();
        } else if connection.is_none() {
            *connection = state.idle.pop();
        }
        job
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds this lock, and all would still be whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use tempfile::TempDir;

    use super::*;

    const BOUND: Duration = Duration::from_secs(30);

    /// Readers of a database that a writer has open, as in the store: readers that came first would all want
    /// to make it one with a log.
    fn readers() -> (Readers, Connection, TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("database");
        std::fs::write(&path, "").unwrap();
        let writer = connect(&path, 1024).unwrap();
        (Readers::new(path), writer, folder)
    }

    #[tokio::test]
    async fn quick_reads_do_not_wait_for_slow_ones() {
        let (readers, _writer, _folder) = readers();
        let (gates, slow): (Vec<_>, Vec<_>) = (0..2 * readers.few)
            .map(|_| {
                let (gate, shut) = mpsc::channel::<()>();
                let readers = readers.clone();
                // Ends when the gate is dropped.
                let read = async move { readers.read(move |_| Ok(shut.recv().is_err())).await };
                (gate, tokio::spawn(read))
            })
            .unzip();
        // All slow ones are there before the quick one.
        tokio::task::yield_now().await;
        let quick = tokio::time::timeout(BOUND, readers.read(|_| Ok(true))).await;
        assert!(quick.unwrap().unwrap());
        drop(gates);
        for read in slow {
            assert!(read.await.unwrap().unwrap());
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn no_connection_is_open_once_they_are_closed() {
        for _ in 0..200 {
            let (readers, writer, folder) = readers();
            writer.execute_batch("CREATE TABLE t (c)").unwrap();
            drop(writer);
            let reads = (0..2 * readers.few).map(|_| {
                readers.read(|transaction| Ok(transaction.execute_batch("SELECT * FROM t")?))
            });
            for read in futures_util::future::join_all(reads).await {
                read.unwrap();
            }
            readers.close().await;
            // The last connection takes the log with it.
            assert!(!folder.path().join("database-wal").exists());
            assert!(matches!(
                readers.read(|_| Ok(true)).await,
                Err(Error::Closed)
            ));
        }
    }

    #[tokio::test]
    async fn a_read_that_panics_spoils_no_other() {
        let (readers, _writer, _folder) = readers();
        for _ in 0..2 * readers.few {
            let panicked = readers.read(|_| -> Result<()> { panic!("as it should") });
            assert!(matches!(panicked.await, Err(Error::Closed)));
        }
        let next = tokio::time::timeout(BOUND, readers.read(|_| Ok(true))).await;
        assert!(next.unwrap().unwrap());
    }
}
