//! The clock of the database server, by which all processes on it judge leases: those of the machines may differ.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use super::super::Result;
use super::connection::Connection;
use crate::model::{Clock, Timestamp};

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
        let sql = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint";
        let asked = self.machine.now().0;
        let row = connection.query_opt(sql, &[]).await?;
        let answered = self.machine.now().0;
        // The statement is prepared the first time, and the machine's clock may be set meanwhile.
        if let Some(row) = row
            && (0..LONGEST_LOOK).contains(&(answered - asked))
        {
            let server: i64 = row.try_get(0)?;
            self.ahead
                .store(server - asked.midpoint(answered), Ordering::Relaxed);
        }
        Ok(())
    }
}

impl Clock for ServerClock {
    fn now(&self) -> Timestamp {
        let now = self.machine.now().0;
        Timestamp(now.saturating_add(self.ahead.load(Ordering::Relaxed)))
    }
}
