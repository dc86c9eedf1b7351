//! The one thread that writes, with group commit: commands that wait together share one commit,
//! and so one fsync. Replies leave after the commit. Commands are decided on a working set, in which each sees what
//! those before it left; a statement on sets of rows sees the rows themselves, and ends the working set.

use std::mem::take;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use rusqlite::{Connection, TransactionBehavior};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

use super::super::{Call, Error, Result};
use super::checkpoint::Checkpoints;
use super::effects::Effects;
use super::{Shared, Transaction, facts};
use crate::model::{Timestamp, WorkingSet};

/// How long a commit takes further commands: those that come later wait for it and for their own, and
/// what syncs it and moves its pages takes as long again, or twice as long.
const LONGEST_BATCH: Duration = Duration::from_millis(14);
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

pub(super) struct Writer {
    queue: Mutex<Option<mpsc::Sender<Work>>>,
    start_log_over: Arc<AtomicBool>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// A change that waits for its turn.
enum Work {
    /// A command, to be decided.
    Call(Box<dyn Call>),
    Statement(Box<dyn Statement>),
}

impl Work {
    fn reply(self, committed: Result<()>) {
        match self {
            Self::Call(call) => call.reply(committed),
            Self::Statement(statement) => statement.reply(committed),
        }
    }
}

/// A statement on sets of rows.
trait Statement: Send {
    /// Runs the statement. An error undoes the whole transaction.
    fn run(&mut self, transaction: &Transaction<'_>, now: Timestamp) -> Result<()>;
    /// Tells the caller how it ended.
    fn reply(self: Box<Self>, committed: Result<()>);
}

struct Waiting<T, F> {
    work: F,
    outcome: Option<T>,
    caller: oneshot::Sender<Result<T>>,
}

impl<T, F> Statement for Waiting<T, F>
where
    T: Send,
    F: FnMut(&Transaction<'_>, Timestamp) -> Result<T> + Send,
{
    fn run(&mut self, transaction: &Transaction<'_>, now: Timestamp) -> Result<()> {
        self.outcome = Some((self.work)(transaction, now)?);
        Ok(())
    }

    fn reply(self: Box<Self>, committed: Result<()>) {
        let Self {
            outcome, caller, ..
        } = *self;
        let outcome = committed.and_then(|()| outcome.ok_or(Error::Closed));
        // The caller may have gone; what is committed stays.
        let _ = caller.send(outcome);
    }
}

impl Writer {
    /// Writes by `connection`, and moves its log into the database file by `checkpoints`. While room is short,
    /// the log is kept short.
    pub(super) fn start(
        mut connection: Connection,
        checkpoints: Connection,
        shared: Arc<Shared>,
    ) -> Result<Self> {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let checkpoints = Checkpoints::start(&mut connection, checkpoints)?;
        let runtime = Handle::try_current().ok();
        let start_log_over = Arc::<AtomicBool>::default();
        let asked = start_log_over.clone();
        let thread = std::thread::Builder::new()
            .name("writer".to_owned())
            .spawn(move || serve(connection, receiver, checkpoints, &asked, &shared, runtime))
            .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
        Ok(Self {
            queue: Mutex::new(Some(sender)),
            start_log_over,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Queues a call, once it is polled. One that is not polled keeps the queue open, and `close` waiting.
    pub(super) fn submit(&self, call: Box<dyn Call>) -> BoxFuture<'static, ()> {
        let queue = lock(&self.queue).clone();
        Box::pin(async move { queue_work(queue, Work::Call(call)).await })
    }

    /// Queues a statement, once it is polled, and waits for the commit that holds it.
    pub(super) fn run<T: Send + 'static, F>(
        &self,
        work: F,
    ) -> impl Future<Output = Result<T>> + Send + use<T, F>
    where
        F: FnMut(&Transaction<'_>, Timestamp) -> Result<T> + Send + 'static,
    {
        let queue = lock(&self.queue).clone();
        let (caller, outcome) = oneshot::channel();
        let waiting = Waiting {
            work,
            outcome: None,
            caller,
        };
        let work = Work::Statement(Box::new(waiting));
        async move {
            queue_work(queue, work).await;
            outcome.await.map_err(|_| Error::Closed)?
        }
    }

    /// Has the log start over before what is submitted next: it then takes no new room on the disk.
    pub(super) fn start_log_over(&self) {
        self.start_log_over.store(true, Ordering::Release);
    }

    /// Takes no more, and waits until what was taken is written.
    pub(super) async fn close(&self) {
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

/// Queues work; where the store is closed, its caller is told so by the end of its channel.
async fn queue_work(queue: Option<mpsc::Sender<Work>>, work: Work) {
    if let Some(queue) = queue {
        let _ = queue.send(work).await;
    }
}

fn serve(
    connection: Connection,
    mut queue: mpsc::Receiver<Work>,
    checkpoints: Checkpoints,
    start_log_over: &AtomicBool,
    shared: &Shared,
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
        let together = run_together(&connection, shared, &mut batch, || {
            let may_grow = begun.elapsed() < LONGEST_BATCH;
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
                    let ended = run_together(&connection, shared, &mut alone, || None);
                    if let Some(command) = alone.pop() {
                        command.reply(ended);
                    }
                }
            }
        }
        took = begun.elapsed();
        checkpoints.between_batches(&connection, shared.is_short_of_room());
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
fn gather(queue: &mpsc::Receiver<Work>, last: usize, took: Duration) {
    if last < MANY {
        return;
    }
    let expected = (last + last / 4).min(ENOUGH);
    let begun = Instant::now();
    while queue.len() + 1 < expected && begun.elapsed() < took.min(LONGEST_GATHERING) {
        std::thread::sleep(GLANCE);
    }
}

/// Does the work of `batch`, and adds what `next` gives, in one transaction.
fn run_together(
    connection: &Connection,
    shared: &Shared,
    batch: &mut Vec<Work>,
    mut next: impl FnMut() -> Option<Work>,
) -> Result<()> {
    let transaction = Transaction::begin(connection, TransactionBehavior::Immediate)?;
    let mut changes = Changes::default();
    for work in &mut *batch {
        changes.run(&transaction, shared, work)?;
    }
    while let Some(mut work) = next() {
        let ran = changes.run(&transaction, shared, &mut work);
        batch.push(work);
        ran?;
    }
    changes.effects.finish(&transaction)?;
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

/// The facts and the effects of a transaction so far.
#[derive(Default)]
struct Changes {
    facts: WorkingSet,
    effects: Effects,
}

impl Changes {
    fn run(
        &mut self,
        transaction: &Transaction<'_>,
        shared: &Shared,
        work: &mut Work,
    ) -> Result<()> {
        match work {
            Work::Call(call) => self.decide(transaction, shared, &mut **call)?,
            Work::Statement(statement) => {
                self.effects.finish(transaction)?;
                self.facts = WorkingSet::default();
                statement.run(transaction, shared.clock.now())?;
            }
        }
        Ok(())
    }

    fn decide(
        &mut self,
        transaction: &Transaction<'_>,
        shared: &Shared,
        call: &mut dyn Call,
    ) -> Result<()> {
        let (facts, effects) = (&mut self.facts, &mut self.effects);
        facts::load(transaction, facts, effects, call.lookups())?;
        let rows = call.rows(facts);
        facts::load(transaction, facts, effects, rows)?;
        let fresh = shared.ids.fresh();
        for effect in call.decide(&fresh, &self.facts, shared.clock.now()) {
            self.effects.add(transaction, &effect)?;
            self.facts.apply(effect);
        }
        // The commit comes before whatever is asked for then.
        if take(&mut self.effects.removals) {
            shared.removals.notify_one();
        }
        Ok(())
    }
}
