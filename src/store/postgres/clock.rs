//! The clock of the database server, by which all processes on it judge leases: those of the machines may differ.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use super::super::Result;
use super::connection::Connection;
use crate::model::{Clock, Timestamp};

/// The microseconds since 1970 by the server's clock.
macro_rules! microseconds {
    () => {
        "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
    };
}
pub(super) use microseconds;

/// A look that took longer, in microseconds, tells too little.
const LONGEST_LOOK: i64 = 1_000_000;

/// The clock of this machine, set right by looks at that of the database server.
pub(super) struct ServerClock {
    machine: Arc<dyn Clock>,
    /// The microseconds by which the server's clock is ahead.
    ahead: AtomicI64,
}

impl ServerClock {
    pub(super) fn new(machine: Arc<dyn Clock>) -> Self {
        Self {
            machine,
            ahead: AtomicI64::new(0),
        }
    }

    /// Looks at the server's clock.
    pub(super) async fn look(&self, connection: &Connection) -> Result<()> {
        let asked = self.asked();
        let row = connection
            .query_opt(concat!("SELECT ", microseconds!()), &[])
            .await?;
        if let Some(row) = row {
            self.told(asked, row.try_get(0)?);
        }
        Ok(())
    }

    /// The time of the machine, before a statement that tells the server's.
    pub(super) fn asked(&self) -> Timestamp {
        self.machine.now()
    }

    /// Takes the server's time from a statement that was sent at that time of the machine, and has been answered.
    pub(super) fn told(&self, asked: Timestamp, server: i64) {
        let (asked, answered) = (asked.0, self.machine.now().0);
        // The statement is prepared the first time, and the machine's clock may be set meanwhile.
        if (0..LONGEST_LOOK).contains(&(answered - asked)) {
            self.ahead
                .store(server - asked.midpoint(answered), Ordering::Relaxed);
        }
    }
}

impl Clock for ServerClock {
    fn now(&self) -> Timestamp {
        let now = self.machine.now().0;
        Timestamp(now.saturating_add(self.ahead.load(Ordering::Relaxed)))
    }
}
