//! Threads that read. A look-up takes less time than it takes to wake a thread for it, so few
//! threads do what waits, one after another. A read that has waited for long brings one more, so that quick
//! reads do not wait for slow ones.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, TransactionBehavior};
use tokio::sync::oneshot;

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
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Job>,
    threads: usize,
    idle: Vec<Connection>,
}

type Job = Box<dyn FnOnce(Result<&Connection>) + Send>;

impl Readers {
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path: path.into(),
            few: std::thread::available_parallelism().map_or(1, usize::from),
            state: Arc::default(),
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

    /// Closes the connections that are idle.
    pub(super) fn close(&self) {
        self.state().idle.clear();
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
            state.threads -= 1;
            if state.idle.len() < IDLE {
                state.idle.extend(connection.take());
            }
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
