//! The one task that carries out commands, one transaction at a time: commands that wait share it. Their facts are
//! loaded and locked together, they are decided one after the other in memory, and what they leave is written together.
//! Replies leave after the commit.

use std::sync::{Arc, Mutex};

use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::super::{Call, Error, Result};
use super::Shared;
use super::connection::{Pool, lock};
use super::effects::Effects;
use super::error::overtaken;
use super::facts::Facts;
use super::operations;
use super::transaction::{Transaction, Tries};
use super::{error, listener};
use crate::model::{KeyOf, Lookup};

/// How many commands wait at the most before senders wait too.
const QUEUE: usize = 4096;
/// How many commands share a transaction at the most.
const LARGEST_BATCH: usize = 256;

/// The turn of a statement on sets of rows: commands that came later wait until it is dropped.
pub(super) struct Turn {
    _ended: oneshot::Sender<()>,
}

/// A command or a statement that waits for its turn.
enum Work {
    Call(Box<dyn Call>),
    Turn(oneshot::Sender<Turn>),
}

pub(super) struct Writer {
    queue: Mutex<Option<mpsc::Sender<Work>>>,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Writer {
    /// Writes by the connections of `pool`.
    pub(super) fn start(pool: Pool, shared: Arc<Shared>) -> Self {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let writer = tokio::spawn(serve(pool, shared, receiver));
        Self {
            queue: Mutex::new(Some(sender)),
            task: Mutex::new(Some(tokio::spawn(watch(writer)))),
        }
    }

    /// Queues a call, once it is polled. One that is not polled keeps the queue open, and `close` waiting.
    pub(super) fn submit(&self, call: Box<dyn Call>) -> BoxFuture<'static, ()> {
        let queue = lock(&self.queue).clone();
        Box::pin(async move {
            // Where the store is closed, the caller is told so by the end of its channel.
            if let Some(queue) = queue {
                let _ = queue.send(Work::Call(call)).await;
            }
        })
    }

    /// Waits until the commands that came before are committed.
    pub(super) async fn turn(&self) -> Result<Turn> {
        let queue = lock(&self.queue).clone().ok_or(Error::Closed)?;
        let (sender, turn) = oneshot::channel();
        let sent = queue.send(Work::Turn(sender)).await;
        sent.map_err(|_| Error::Closed)?;
        drop(queue);
        turn.await.map_err(|_| Error::Closed)
    }

    /// Takes no more, and waits until what was taken is written.
    pub(super) async fn close(&self) {
        drop(lock(&self.queue).take());
        let task = lock(&self.task).take();
        if let Some(task) = task {
            // It ends after the writer, and the process where that panicked.
            let _ = task.await;
        }
    }
}

/// Ends the process when the writer panics: without it every change would be refused for ever.
async fn watch(writer: JoinHandle<()>) {
    if writer.await.is_err_and(|error| error.is_panic()) {
        tracing::error!("the writer of the database panicked; the process ends");
        crate::telemetry::log::abort();
    }
}

async fn serve(pool: Pool, shared: Arc<Shared>, mut queue: mpsc::Receiver<Work>) {
    let mut batch = Vec::new();
    while queue.recv_many(&mut batch, LARGEST_BATCH).await > 0 {
        let mut calls = Vec::new();
        for work in batch.drain(..) {
            match work {
                Work::Call(call) => calls.push(call),
                Work::Turn(waiting) => {
                    run(&pool, &shared, std::mem::take(&mut calls)).await;
                    let (_ended, end) = oneshot::channel();
                    // Who waited may have gone.
                    if waiting.send(Turn { _ended }).is_ok() {
                        let _ = end.await;
                    }
                }
            }
        }
        run(&pool, &shared, calls).await;
    }
    pool.close(1).await;
}

/// Carries out commands, and replies to each.
async fn run(pool: &Pool, shared: &Shared, mut calls: Vec<Box<dyn Call>>) {
    let count = calls.len();
    if count == 0 {
        return;
    }
    let mut has_work = false;
    match try_together(pool, shared, &mut calls).await {
        Ok(left) => {
            calls.into_iter().for_each(|call| call.reply(Ok(())));
            has_work = left;
        }
        Err(error) => match for_all(&error) {
            Some(of_each) => calls
                .into_iter()
                .for_each(|call| call.reply(Err(of_each()))),
            // One command spoiled the transaction: each now has one of its own.
            None if count > 1 => {
                for call in calls {
                    let mut alone = [call];
                    let ended = try_together(pool, shared, &mut alone).await;
                    has_work |= *ended.as_ref().unwrap_or(&false);
                    let [call] = alone;
                    call.reply(ended.map(drop).map_err(error::overtaken_too_often));
                }
            }
            None => {
                if let Some(call) = calls.pop() {
                    call.reply(Err(error::overtaken_too_often(error)));
                }
            }
        },
    }
    if has_work {
        listener::tell(pool).await;
    }
    tracing::debug!(commands = count, "batch");
}

/// An error that each command of a transaction would have alone, or that none may be tried again after.
fn for_all(error: &Error) -> Option<Box<dyn Fn() -> Error + Send>> {
    match error {
        Error::OutcomeUnknown => Some(Box::new(|| Error::OutcomeUnknown)),
        Error::Full => Some(Box::new(|| Error::Full)),
        Error::ReadOnly(why) => {
            let why = why.clone();
            Some(Box::new(move || Error::ReadOnly(why.clone())))
        }
        Error::Unreachable(why) => {
            let why = why.to_string();
            Some(Box::new(move || Error::Unreachable(why.clone().into())))
        }
        _ => None,
    }
}

/// Carries out commands in one transaction, and decides again where another process came between. Returns whether
/// something is left that anybody may claim.
async fn try_together(pool: &Pool, shared: &Shared, calls: &mut [Box<dyn Call>]) -> Result<bool> {
    let mut tries = match calls.len() {
        1 => Tries::alone(),
        _ => Tries::together(),
    };
    loop {
        match run_together(pool, shared, calls).await {
            Ok(has_work) => return Ok(has_work),
            Err(error) => tries.again(error).await?,
        }
    }
}

async fn run_together(pool: &Pool, shared: &Shared, calls: &mut [Box<dyn Call>]) -> Result<bool> {
    let transaction = Transaction::begin(pool).await?;
    let (mut facts, mut effects) = (Facts::new(), Effects::default());
    match decide_all(&transaction, shared, calls, &mut facts, &mut effects).await {
        // Refusals, and repeated requests.
        Ok(()) if effects.is_empty() => {
            transaction.roll_back().await;
            return Ok(false);
        }
        Ok(()) => {}
        Err(error) => {
            transaction.roll_back().await;
            return Err(error);
        }
    }
    match effects.write(&transaction, &mut facts).await {
        Ok(mark) => transaction.commit(Some(mark), deadline(calls)).await?,
        Err(error) => {
            transaction.roll_back().await;
            return Err(error);
        }
    }
    if effects.has_removals() {
        shared.removals.notify_one();
    }
    Ok(effects.leave_work(shared.clock.now()))
}

/// When the last caller stops waiting; none where one waits for as long as it takes.
fn deadline(calls: &[Box<dyn Call>]) -> Option<Instant> {
    let deadlines: Option<Vec<_>> = calls.iter().map(|call| call.deadline()).collect();
    deadlines?.into_iter().max().map(Instant::from_std)
}

async fn decide_all(
    transaction: &Transaction<'_>,
    shared: &Shared,
    calls: &mut [Box<dyn Call>],
    facts: &mut Facts,
    effects: &mut Effects,
) -> Result<()> {
    let lookups: Vec<_> = calls.iter().flat_map(|call| call.lookups()).collect();
    facts.load(transaction, lookups).await?;
    let rows: Vec<_> = calls
        .iter()
        .flat_map(|call| call.rows(&facts.rows))
        .collect();
    facts.load(transaction, rows).await?;
    // A key that a command of this transaction frees is in the database until the effects are written.
    let absent: Vec<_> = calls
        .iter()
        .map(|call| absent_keys(&**call, facts))
        .collect();
    let mut keys_of_refused = Vec::new();
    for (call, absent) in calls.iter_mut().zip(absent) {
        // Rows that the commands before have left may lead to others.
        let rows = call.rows(&facts.rows);
        facts.load(transaction, rows).await?;
        let fresh = shared.ids.fresh();
        let decided = call.decide(&fresh, &facts.rows, shared.clock.now());
        if decided.is_empty() {
            keys_of_refused.extend(absent);
        }
        for effect in decided {
            effects.add(&effect, facts);
            facts.rows.apply(effect);
        }
    }
    // An equal request, carried out by another process after the key was looked up, may be why a command is refused.
    keys_of_refused.retain(|key| facts.rows.operation_of_key(key).is_none());
    match operations::is_key_used(transaction, keys_of_refused).await? {
        true => Err(overtaken()),
        false => Ok(()),
    }
}

/// The idempotency keys of a command that no operation has.
fn absent_keys(call: &dyn Call, facts: &Facts) -> Vec<KeyOf> {
    let keys = call
        .lookups()
        .into_iter()
        .filter_map(|lookup| match lookup {
            Lookup::IdempotencyKey(key) => Some(key),
            _ => None,
        });
    keys.filter(|key| facts.rows.operation_of_key(key).is_none())
        .collect()
}
