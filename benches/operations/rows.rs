//! Times of SQLite itself for the rows of a Copy: written to the server's tables by its statements, on one
//! thread of this process, with nothing to look up but what constraints demand, and nobody to answer.

use std::error::Error;
use std::path::Path;

use rusqlite::{Connection, ToSql, params, params_from_iter};
use tempfile::TempDir;
use uuid::Uuid;

use super::copies::FOLDERS;
use super::figures::{Figures, micros};
use super::machine;

const SCHEMA: &str = include_str!("../../migrations/0001_initial.sql");
/// Copies of a commit: more than the server has in most, so that more of them share a page.
const COMMIT: i64 = 512;
/// Commits that fill the indexes, and commits that are measured.
const BEFORE: i64 = 300;
const MEASURED: i64 = 200;
/// Pages that a checkpoint moves, as in the server.
const CHECKPOINT: i64 = 1024;
/// Pages kept in memory, in KiB, as in the server's writer.
const CACHE: i64 = 16 << 10;
/// Rows that a statement writes where the server has it write many. A commit has several times as many.
const MANY: usize = 16;

/// A key of the time when this was written: as long as any that the server makes, and growing.
const FIRST_KEY: i64 = 1_764_172_800_000 << 20;
const TIME: i64 = 1_764_172_800_000_000;
const REST: i64 = 70_000;
const SUBJECT: &str = "anonymous";
/// An operation's reply, as the server keeps it.
const RESPONSE: &str = r#"{"id":"e3v0r6tb2g8mm4kq1c9a","folder_id":"folder-42","created_at":1764172800000000,"status":"Active","name":"image-1000000","description":"","labels":{},"storage_size":65536,"min_disk_size":2097152}"#;

const CONTENT: &[&str] = &["desktop_images_content"];
const LISTS: &[&str] = &["desktop_images_folder", "desktop_images_name"];
const KEYS: &[&str] = &["operations_idempotency"];

/// Processor time for a Copy's rows, by the indexes that they have.
pub fn by_indexes(folder: &Path, figures: &mut Figures) -> Result<(), Box<dyn Error>> {
    for (name, without, keys) in [
        ("rows alone", [CONTENT, LISTS, KEYS].concat(), false),
        (
            "rows with the indexes that lists need",
            [CONTENT, KEYS].concat(),
            false,
        ),
        ("rows with all indexes", Vec::new(), false),
        (
            "rows alone with a fresh key, in its index",
            [CONTENT, LISTS].concat(),
            true,
        ),
        ("rows with all indexes and a fresh key", Vec::new(), true),
    ] {
        let folder = TempDir::new_in(folder)?;
        let mut rows = Rows::new(&folder.path().join("rows.sqlite"), &without, keys)?;
        rows.commit(BEFORE)?;
        let cpu = machine::cpu_time("self")?;
        rows.commit(MEASURED)?;
        let cpu = machine::cpu_time("self")? - cpu;
        let each = micros(cpu) / (MEASURED * COMMIT) as f64;
        figures.fact(
            &format!("SQLite by itself, a Copy's {name}"),
            format!("{each:.1} µs of CPU"),
        );
    }
    Ok(())
}

struct Rows {
    connection: Connection,
    operations: Insert<13>,
    events: Insert<10>,
    keys: bool,
    written: i64,
}

/// The values that the rows of one Copy do not share with those of all.
struct Values {
    image_key: i64,
    operation_key: i64,
    folder_key: i64,
    request_id: String,
    idempotency_key: Option<[u8; 16]>,
    request_hash: Option<[u8; 32]>,
}

impl Rows {
    fn new(path: &Path, without: &[&str], keys: bool) -> rusqlite::Result<Self> {
        let connection = Connection::open(path)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "cache_size", -CACHE)?;
        // On this thread: processor time is the same.
        connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT)?;
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
            operations: operations(if keys { 1 } else { MANY }),
            events: events(MANY),
            keys,
            written: 0,
        })
    }

    fn commit(&mut self, commits: i64) -> rusqlite::Result<()> {
        for _ in 0..commits {
            let transaction = self.connection.transaction()?;
            let mut copies = Vec::new();
            {
                let mut image = transaction.prepare_cached(
                    "INSERT INTO desktop_images (key, id_rest, folder_key, status, name,
                         description, labels, min_disk_size, content_key)
                     VALUES (?1, ?2, ?3, 2, ?4, '', '{}', 2097152, 1)",
                )?;
                for _ in 0..COMMIT {
                    let number = self.written;
                    self.written += 1;
                    let image_key = FIRST_KEY + 256 * number;
                    let folder_key = 1 + number % FOLDERS as i64;
                    let name = format!("image-{number}");
                    image.execute(params![image_key, REST, folder_key, name])?;
                    copies.push(Values {
                        image_key,
                        operation_key: image_key + 100,
                        folder_key,
                        request_id: format!("5a0c8f6e-3a57-4c9b-9d55-{number:012}"),
                        idempotency_key: self.keys.then(|| Uuid::new_v4().into_bytes()),
                        request_hash: self.keys.then_some([7; 32]),
                    });
                }
            }
            self.operations.write(&transaction, &copies)?;
            self.events.write(&transaction, &copies)?;
            transaction.commit()?;
        }
        Ok(())
    }
}

/// An INSERT of some rows at a time.
struct Insert<const N: usize> {
    sql: String,
    rows: usize,
    values: fn(&Values) -> [&dyn ToSql; N],
}

impl<const N: usize> Insert<N> {
    fn new(into: &str, rows: usize, values: fn(&Values) -> [&dyn ToSql; N]) -> Self {
        let row = format!("({})", ["?"; N].join(", "));
        let all = vec![row; rows].join(", ");
        Self {
            sql: format!("INSERT OR FAIL INTO {into} VALUES {all}"),
            rows,
            values,
        }
    }

    fn write(&self, connection: &Connection, copies: &[Values]) -> rusqlite::Result<()> {
        let mut statement = connection.prepare_cached(&self.sql)?;
        for copies in copies.chunks_exact(self.rows) {
            statement.execute(params_from_iter(copies.iter().flat_map(self.values)))?;
        }
        Ok(())
    }
}

fn operations(rows: usize) -> Insert<13> {
    Insert::new(
        "operations (key, id_rest, kind, phase, folder_key, image_key, image_id_rest, subject,
             request_id, idempotency_key, request_hash, modified_at, response)",
        rows,
        |copy| {
            [
                &copy.operation_key,
                &REST,
                &1,
                &3,
                &copy.folder_key,
                &copy.image_key,
                &REST,
                &SUBJECT,
                &copy.request_id,
                &copy.idempotency_key,
                &copy.request_hash,
                &TIME,
                &RESPONSE,
            ]
        },
    )
}

fn events(rows: usize) -> Insert<10> {
    Insert::new(
        "audit_events (recorded_at, status, kind, subject, request_id, folder_key, operation_key,
             operation_id_rest, image_key, image_id_rest)",
        rows,
        |copy| {
            [
                &TIME,
                &4,
                &1,
                &SUBJECT,
                &copy.request_id,
                &copy.folder_key,
                &copy.operation_key,
                &REST,
                &copy.image_key,
                &REST,
            ]
        },
    )
}
