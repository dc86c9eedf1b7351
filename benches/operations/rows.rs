//! What SQLite itself takes for the rows of a Copy: the server's tables and some of its indexes, written by
//! one thread of this process, with nothing to look up and nobody to answer. No server on this schema can
//! take less for durability.

use std::error::Error;
use std::path::Path;

use rusqlite::{Connection, params};
use uuid::Uuid;

use super::copies::FOLDERS;
use super::figures::{Figures, micros};
use super::machine;

const SCHEMA: &str = include_str!("../../migrations/0001_initial.sql");
/// Copies of a commit: about as many as the server has in one.
const COMMIT: u32 = 512;
/// Commits between two checkpoints of the log: about as many pages as the server moves at a time.
const CHECKPOINT: u32 = 4;
/// Commits that fill the indexes, and commits that are measured.
const BEFORE: u32 = 300;
const MEASURED: u32 = 200;

/// The operation's reply, as the server keeps it.
const RESPONSE: &str = r#"{"id":"e3v0r6tb2g8mm4kq1c9a","folder_id":"folder-42","created_at":1764172800000000,"status":"Active","name":"image-1000000","description":"","labels":{},"storage_size":65536,"min_disk_size":2097152}"#;

const CONTENT: [&str; 1] = ["desktop_images_content"];
const LISTS: [&str; 2] = ["desktop_images_folder", "desktop_images_name"];
const KEYS: [&str; 1] = ["operations_idempotency"];

/// Processor time for a Copy's rows, by the indexes that they have.
pub fn floor(folder: &Path, figures: &mut Figures) -> Result<(), Box<dyn Error>> {
    let without = |indexes: &[&[&'static str]]| indexes.concat();
    for (name, without, keys) in [
        ("rows alone", without(&[&CONTENT, &LISTS, &KEYS]), false),
        (
            "rows with the indexes that lists need",
            without(&[&CONTENT, &KEYS]),
            false,
        ),
        ("rows with all indexes", Vec::new(), false),
        (
            "rows alone, with the index of fresh keys",
            without(&[&CONTENT, &LISTS]),
            true,
        ),
        ("rows with all indexes and fresh keys", Vec::new(), true),
    ] {
        let path = folder.join(name.replace(' ', "-"));
        let mut rows = Rows::new(&path, &without, keys)?;
        rows.write(BEFORE)?;
        let cpu = machine::cpu_time("self")?;
        rows.write(MEASURED)?;
        let cpu = machine::cpu_time("self")? - cpu;
        let each = micros(cpu) / f64::from(MEASURED * COMMIT);
        figures.fact(
            &format!("SQLite by itself, a Copy's {name}"),
            format!("{each:.1} µs of CPU"),
        );
    }
    Ok(())
}

struct Rows {
    connection: Connection,
    checkpoints: Connection,
    keys: bool,
    written: u32,
}

impl Rows {
    fn new(path: &Path, without: &[&str], keys: bool) -> rusqlite::Result<Self> {
        let connect = || {
            let connection = Connection::open(path)?;
            connection.pragma_update(None, "journal_mode", "WAL")?;
            connection.pragma_update(None, "synchronous", "FULL")?;
            connection.pragma_update(None, "wal_autocheckpoint", 0)?;
            connection.pragma_update(None, "cache_size", -(16 << 10))?;
            Ok::<_, rusqlite::Error>(connection)
        };
        let connection = connect()?;
        connection.execute_batch(SCHEMA)?;
        for index in without {
            connection.execute_batch(&format!("DROP INDEX {index}"))?;
        }
        connection.execute(
            "INSERT INTO contents (key, id, state, operation_key) VALUES (1, 'content', 0, 1)",
            [],
        )?;
        Ok(Self {
            connection,
            checkpoints: connect()?,
            keys,
            written: 0,
        })
    }

    fn write(&mut self, commits: u32) -> rusqlite::Result<()> {
        for commit in 1..=commits {
            let transaction = self.connection.transaction()?;
            {
                let mut image = transaction.prepare_cached(
                    "INSERT INTO desktop_images (key, id_rest, folder_key, status, name,
                         description, labels, min_disk_size, content_key)
                     VALUES (?1, 70000, ?2, 2, ?3, '', '{}', 2097152, 1)",
                )?;
                let mut operation = transaction.prepare_cached(
                    "INSERT INTO operations (key, id_rest, kind, phase, folder_key, image_key,
                         image_id_rest, subject, request_id, idempotency_key, request_hash,
                         modified_at, response)
                     VALUES (?1, 70000, 1, 3, ?2, ?3, 70000, 'anonymous', ?4, ?5, ?6,
                         1764172800000000, ?7)",
                )?;
                let mut event = transaction.prepare_cached(
                    "INSERT INTO audit_events (recorded_at, status, kind, subject, request_id,
                         folder_key, operation_key, operation_id_rest, image_key, image_id_rest)
                     VALUES (1764172800000000, 4, 1, 'anonymous', ?1, ?2, ?3, 70000, ?4, 70000)",
                )?;
                for _ in 0..COMMIT {
                    self.written += 1;
                    let number = i64::from(self.written);
                    let folder = number % FOLDERS as i64;
                    let (image_key, operation_key) = (number << 9, (number << 9) + 200);
                    let request_id = format!("5a0c8f6e-3a57-4c9b-9d55-{number:012}");
                    let key = self.keys.then(|| Uuid::new_v4().into_bytes());
                    let hash = self.keys.then_some([7_u8; 32]);
                    image.execute(params![image_key, folder, format!("image-{number}")])?;
                    operation.execute(params![
                        operation_key,
                        folder,
                        image_key,
                        request_id,
                        key,
                        hash,
                        RESPONSE
                    ])?;
                    event.execute(params![request_id, folder, operation_key, image_key])?;
                }
            }
            transaction.commit()?;
            if commit % CHECKPOINT == 0 {
                self.checkpoints
                    .query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))?;
            }
        }
        Ok(())
    }
}
