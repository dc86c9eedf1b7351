//! The one thread that writes, with group commit: commands that wait together share one commit,
//! and so one fsync. Replies leave after the commit.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rusqlite::{Connection, TransactionBehavior};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

use crate::ballast::Ballast;

use super::super::{Error, Result};
use super::Transaction;
use super::checkpoint::Checkpoints;
use super::done;

/// How long a commit takes further commands: those that come later wait for it and for their own, and
/// what syncs it and moves its pages takes two or three times as long again.
const LONGEST_BATCH: Duration = Duration::from_millis(8);
/// How many commands wait at the most before senders wait too.
const QUEUE: usize = 4096;

/// From how many commands in a batch on the next one is waited for, and how many are enough. While
/// these are written, the callers of the last batch are answered and ask again: a longer wait
/// would only have one wait for the other.
const MANY: usize = 32;
const ENOUGH: usize = 256;
const LONGEST_GATHERING: Duration = Duration::from_millis(10);
/// Between two looks at who has come.
const GLANCE: Duration = Duration::from_micros(200);

pub struct Writer {
    queue: Mutex<Option<mpsc::Sender<Box<dyn Command>>>>,
    start_log_over: Arc<AtomicBool>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// A change that waits for its turn.
trait Command: Send {
    /// Does the change. An error undoes the whole transaction; a refusal is no error.
    fn run(&mut self, transaction: &Transaction<'_>) -> Result<()>;
    /// Tells the caller how it ended.
    fn reply(self: Box<Self>, ended: Result<()>);
}

struct Call<T, F> {
    work: F,
    outcome: Option<Result<T>>,
    caller: oneshot::Sender<Result<T>>,
}

impl<T, F> Command for Call<T, F>
where
    T: Send,
    F: FnMut(&Transaction<'_>) -> Result<T> + Send,
{
    fn run(&mut self, transaction: &Transaction<'_>) -> Result<()> {
        match (self.work)(transaction) {
            Err(error) if error.is_failure() => Err(error),
            outcome => {
                self.outcome = Some(outcome);
                Ok(())
            }
        }
    }

    fn reply(self: Box<Self>, ended: Result<()>) {
        let outcome = match ended {
            Ok(()) => self.outcome.unwrap_or(Err(Error::Closed)),
            Err(error) => Err(error),
        };
        // The caller may have gone; what is committed stays.
        let _ = self.caller.send(outcome);
    }
}

impl Writer {
    /// Writes by `connection`, and moves its log into the database file by `checkpoints`. While `ballast` is
    /// given away, the log is kept short.
    pub fn start(
        mut connection: Connection,
        checkpoints: Connection,
        ballast: Arc<OnceLock<Ballast>>,
    ) -> Result<Self> {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let checkpoints = Checkpoints::start(&mut connection, checkpoints)?;
        let runtime = Handle::try_current().ok();
        let start_log_over = Arc::<AtomicBool>::default();
        let asked = start_log_over.clone();
        let thread = std::thread::Builder::new()
            .name("writer".to_owned())
            .spawn(move || {
                serve(
                    connection,
                    receiver,
                    checkpoints,
                    (&asked, &ballast),
                    runtime,
                )
            })
            .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
        Ok(Self {
            queue: Mutex::new(Some(sender)),
            start_log_over,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Queues the work, once it is polled, and waits for the commit that holds it. Whoever waits keeps
    /// nothing of the work. One that is not polled keeps the queue open, and `close` waiting.
    pub fn submit<T: Send + 'static, F>(
        &self,
        work: F,
    ) -> impl Future<Output = Result<T>> + Send + use<T, F>
    where
        F: FnMut(&Transaction<'_>) -> Result<T> + Send + 'static,
    {
        let queue = lock(&self.queue).clone();
        let (caller, outcome) = oneshot::channel();
        let call: Box<dyn Command> = Box::new(Call {
            work,
            outcome: None,
            caller,
        });
        async move {
            let queued = queue.ok_or(Error::Closed)?.send(call).await;
            queued.map_err(|_| Error::Closed)?;
            outcome.await.map_err(|_| Error::Closed)?
        }
    }

    /// Has the log start over before what is submitted next: it then takes no new room on the disk.
    pub fn start_log_over(&self) {
        self.start_log_over.store(true, Ordering::Release);
    }

    /// Takes no more, and waits until what was taken is written.
    pub async fn close(&self) {
        drop(lock(&self.queue).take());
        let thread = lock(&self.thread).take();
        if let Some(thread) = thread {
            let joined = tokio::task::spawn_blocking(move || thread.join()).await;
            if !matches!(joined, Ok(Ok(()))) {
                tracing::error!("the writer of the database ended in a panic");
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Ends the process when the writer panics: without it every change would be refused for ever.
struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!("the writer of the database panicked; the process ends");
            crate::telemetry::log::abort();
        }
    }
}

fn longest_batch() -> Duration {
    #[cfg(feature = "bench-baselines")]
    if super::super::Baseline::chosen() == Some(super::super::Baseline::CommitEach) {
        return Duration::ZERO;
    }
    LONGEST_BATCH
}

fn serve(
    connection: Connection,
    mut queue: mpsc::Receiver<Box<dyn Command>>,
    checkpoints: Checkpoints,
    (start_log_over, ballast): (&AtomicBool, &OnceLock<Ballast>),
    runtime: Option<Handle>,
) {
    let _abort_on_panic = AbortOnPanic;
    let (mut last, mut took) = (0, Duration::ZERO);
    while let Some(first) = queue.blocking_recv() {
        let arrived = Instant::now();
        if start_log_over.swap(false, Ordering::AcqRel) {
            checkpoints.start_over(&connection);
        }
        gather(&queue, last, took);
        let begun = Instant::now();
        let mut batch = vec![first];
        let together = run_together(&connection, &mut batch, || {
            let may_grow = begun.elapsed() < longest_batch();
            may_grow.then(|| queue.try_recv().ok()).flatten()
        });
        last = batch.len();
        match together {
            Ok(()) => {
                let reply = move || batch.into_iter().for_each(|command| command.reply(Ok(())));
                match &runtime {
                    // Waking many from outside of the runtime costs a lock and maybe a system call
                    // for each; from inside it costs next to nothing.
                    Some(runtime) if last > 1 => drop(runtime.spawn(async move { reply() })),
                    _ => reply(),
                }
            }
            Err(error) if last == 1 => {
                if let Some(command) = batch.pop() {
                    command.reply(Err(error));
                }
            }
            // One command spoiled the transaction: each now has one of its own.
            Err(_) => {
                for command in batch {
                    let mut alone = vec![command];
                    let ended = run_together(&connection, &mut alone, || None);
                    if let Some(command) = alone.pop() {
                        command.reply(ended);
                    }
                }
            }
        }
        took = begun.elapsed();
        let is_short_of_room = ballast.get().is_some_and(Ballast::is_given);
        checkpoints.between_batches(&connection, is_short_of_room);
        tracing::debug!(
            commands = last,
            gathered_micros = (begun - arrived).as_micros() as u64,
            committed_micros = took.as_micros() as u64,
            checkpoint_micros = (begun.elapsed() - took).as_micros() as u64,
            "batch"
        );
    }
    // With it goes the sender of the checkpoints' orders.
    drop(connection);
    checkpoints.stop();
}

/// Waits for those whom the last batch has answered, and for some more, if they were many: they
/// are about to ask again, and a commit costs by the pages that it touches more than by its
/// commands. Takes no longer than the last commit did.
fn gather(queue: &mpsc::Receiver<Box<dyn Command>>, last: usize, took: Duration) {
    if last < MANY {
        return;
    }
    let expected = (last + last / 4).min(ENOUGH);
    let begun = Instant::now();
    while queue.len() + 1 < expected && begun.elapsed() < took.min(LONGEST_GATHERING) {
        std::thread::sleep(GLANCE);
    }
}

/// Runs the commands of `batch`, and adds what `next` gives, in one transaction.
fn run_together(
    connection: &Connection,
    batch: &mut Vec<Box<dyn Command>>,
    mut next: impl FnMut() -> Option<Box<dyn Command>>,
) -> Result<()> {
    let transaction = Transaction::begin(connection, TransactionBehavior::Immediate)?;
    for command in &mut *batch {
        command.run(&transaction)?;
    }
    while let Some(mut command) = next() {
        let ran = command.run(&transaction);
        batch.push(command);
        ran?;
    }
    done::write(&transaction)?;
    match transaction.commit().map_err(Error::from) {
        Ok(()) => Ok(()),
        // The pages did not fit, so the frame that would commit them was not written: the
        // transaction is rolled back when it is dropped, and the refusal is true.
        Err(Error::Full) => Err(Error::Full),
        Err(error) => {
            // Whether it is durable is unknown, so no reply would be true. The next start reads
            // what is.
            tracing::error!(%error, "a commit failed; the process ends");
            crate::telemetry::log::abort()
        }
    }
}
