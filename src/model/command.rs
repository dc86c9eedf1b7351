//! Commands: what a store is asked to change. The rules of a command are pure functions: which rows it has to
//! know, and what it decides on them.

use super::{Decision, Id, Lookup, Refusal, RequestContext, Timestamp, WorkingSet};

/// A change of the store of record. A store loads the lookups of a command, then its rows, has it decided, and
/// commits the effects before it tells the reply.
pub(crate) trait Command: Clone + Send + 'static {
    type Reply: Send + 'static;

    /// How the command is treated where the disk is full.
    fn room(&self) -> Room {
        Room::Frees
    }

    /// The request that waits for the reply, if one does.
    fn request(&self) -> Option<&RequestContext> {
        None
    }

    /// The lookups that need the command alone.
    fn lookups(&self) -> Vec<Lookup>;

    /// The lookups that depend on the rows that were found.
    fn rows(&self, _found: &WorkingSet) -> Vec<Lookup> {
        Vec::new()
    }

    /// Decides on the working set, which knows the lookups and the rows.
    ///
    /// # Errors
    /// A refusal, of which nothing is to be written.
    fn decide(
        &self,
        fresh: &Fresh,
        facts: &WorkingSet,
        now: Timestamp,
    ) -> Result<Decision<Self::Reply>, Refusal>;
}

/// How a command is treated where the disk is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Room {
    /// The command takes new room: refused as long as the disk is short of it.
    Takes,
    /// The command goes on with what was accepted: tried as things are.
    GoesOn,
    /// The command frees room, or ends what was accepted: gets the room that is kept for this.
    Frees,
}

/// Ids and a fencing token for what a command makes. They are made when the command's turn has come, not when it
/// was sent: so ids grow in the order of the commits, and a list by id shows nothing new before what it has
/// shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fresh {
    pub image: Id,
    pub operation: Id,
    pub blob: Id,
    pub token: i64,
}
