//! Copies of a database that is in use.

use std::path::Path;

use rusqlite::Connection;
use rusqlite::backup::{Backup, StepResult};

use super::super::Result;
use super::{READER_CACHE, SqliteStore, connect};

/// Pages that are copied at a time, 4 MiB.
const PAGES: i32 = 1024;

impl SqliteStore {
    /// Copies the database, as it is at one moment, into a new file. `progress` is given the parts that are copied and
    /// their sum, in pages, and ends the copy by returning false; so does this then. Blocks.
    ///
    /// # Errors
    /// Those of the database, and of the file.
    pub(crate) fn snapshot(
        &self,
        to: &Path,
        mut progress: impl FnMut(u64, u64) -> bool,
    ) -> Result<bool> {
        let source = connect(self.readers.path(), READER_CACHE)?;
        // SQLite would begin the copy anew after each commit of others, were it not in the middle of a read:
        // https://sqlite.org/c3ref/backup_finish.html
        let reading = source.unchecked_transaction()?;
        reading.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
        let mut copy = Connection::open(to)?;
        copy.pragma_update(None, "synchronous", "OFF")?;
        {
            let backup = Backup::new(&source, &mut copy)?;
            loop {
                let step = backup.step(PAGES)?;
                let at = backup.progress();
                let total = u64::try_from(at.pagecount).unwrap_or_default();
                let left = u64::try_from(at.remaining).unwrap_or_default();
                if !progress(total.saturating_sub(left), total) {
                    return Ok(false);
                }
                match step {
                    StepResult::Done => break,
                    StepResult::More => {}
                    // Nobody else knows the file yet.
                    _ => std::thread::yield_now(),
                }
            }
        }
        drop(reading);
        drop(copy);
        finish(to)?;
        Ok(true)
    }
}

/// Makes a copy a file of its own, without a log beside it, and takes away what is true of the original alone.
fn finish(copy: &Path) -> Result<()> {
    let copy = Connection::open(copy)?;
    copy.pragma_update(None, "journal_mode", "DELETE")?;
    copy.pragma_update(None, "synchronous", "FULL")?;
    copy.execute_batch("BEGIN; DELETE FROM blob_holds; DELETE FROM content_folder; COMMIT")?;
    Ok(())
}
