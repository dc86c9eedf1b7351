//! A command on its way through a store.

use std::future::ready;
use std::time::Instant;

use futures_util::future::Either;
use tokio::sync::oneshot;

use super::{Error, Result, Store};
use crate::model::{Command, Effect, Fresh, Lookup, Refusal, Room, Timestamp, WorkingSet};

/// A command whose caller waits. A store may decide it more than once, and tells the last outcome.
pub(crate) trait Call: Send {
    /// See [`Command::lookups`].
    fn lookups(&self) -> Vec<Lookup>;

    /// See [`Command::rows`].
    fn rows(&self, found: &WorkingSet) -> Vec<Lookup>;

    /// Decides, and keeps the reply or the refusal. The effects of a refusal are none.
    fn decide(&mut self, fresh: &Fresh, facts: &WorkingSet, now: Timestamp) -> Vec<Effect>;

    /// When the caller stops waiting, if that is known.
    fn deadline(&self) -> Option<Instant>;

    /// Tells the caller the outcome, once the effects are committed, or why they are not.
    fn reply(self: Box<Self>, committed: Result<()>);
}

struct Pending<C: Command> {
    command: C,
    outcome: Option<std::result::Result<C::Reply, Refusal>>,
    caller: oneshot::Sender<Result<C::Reply>>,
}

impl<C: Command> Call for Pending<C> {
    fn lookups(&self) -> Vec<Lookup> {
        self.command.lookups()
    }

    fn rows(&self, found: &WorkingSet) -> Vec<Lookup> {
        self.command.rows(found)
    }

    fn decide(&mut self, fresh: &Fresh, facts: &WorkingSet, now: Timestamp) -> Vec<Effect> {
        let (outcome, effects) = match self.command.decide(fresh, facts, now) {
            Ok(decision) => (Ok(decision.reply), decision.effects),
            Err(refusal) => (Err(refusal), Vec::new()),
        };
        self.outcome = Some(outcome);
        effects
    }

    fn deadline(&self) -> Option<Instant> {
        self.command.request().and_then(|request| request.deadline)
    }

    fn reply(self: Box<Self>, committed: Result<()>) {
        let Self {
            outcome,
            caller,
            command,
        } = *self;
        let request = command.request();
        let has_key = request.is_some_and(|request| request.idempotency.is_some());
        let committed = committed.map_err(|error| match error {
            // A repeat is safe: under its key it finds what the first has left.
            Error::OutcomeUnknown if has_key => Error::Unreachable(Box::new(error)),
            error => error,
        });
        let outcome = committed.and_then(|()| match outcome {
            Some(outcome) => outcome.map_err(Error::Refused),
            None => Err(Error::Closed),
        });
        // The caller may have gone; what is committed stays.
        let _ = caller.send(outcome);
    }
}

impl dyn Store {
    /// Carries out a command, once it is polled, and waits for its commit.
    ///
    /// # Errors
    /// [`Error::Refused`] with the refusal of the rules, of which nothing was written; the errors of a database
    /// that cannot write, where it is not known whether anything was written only if the process ends.
    pub(crate) fn execute<C: Command>(
        &self,
        command: C,
    ) -> impl Future<Output = Result<C::Reply>> + Send + use<'_, C> {
        match command.room() {
            Room::Takes if self.is_short_of_room() => Either::Left(ready(Err(Error::Full))),
            Room::Takes | Room::GoesOn => Either::Right(Either::Left(self.attempt(command))),
            Room::Frees => Either::Right(Either::Right(Box::pin(async move {
                match self.attempt(command.clone()).await {
                    Err(Error::Full) => {
                        self.make_room().await;
                        self.attempt(command).await
                    }
                    ended => ended,
                }
            }))),
        }
    }

    /// The future that waits keeps nothing of the command.
    fn attempt<C: Command>(
        &self,
        command: C,
    ) -> impl Future<Output = Result<C::Reply>> + Send + use<'_, C> {
        let (caller, outcome) = oneshot::channel();
        let queued = self.submit(Box::new(Pending {
            command,
            outcome: None,
            caller,
        }));
        async move {
            queued.await;
            outcome.await.map_err(|_| Error::Closed)?
        }
    }
}
