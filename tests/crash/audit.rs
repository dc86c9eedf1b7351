//! The audit log: every mutation began once and ended once, and nothing else happened.

use std::collections::BTreeMap;

use desktop_images::metadata::{COMPUTE_IMAGE_PREFIX, DESKTOP_IMAGE_PREFIX, Id, OPERATION_PREFIX};
use rusqlite::{Connection, Row};
use tonic::Code;

use crate::load::Shared;
use crate::model::{Request, Standing};
use crate::support::{image_id, text};

/// What the log says of one operation.
#[derive(Debug, PartialEq, Eq)]
struct Entry {
    statuses: Vec<&'static str>,
    image: String,
    folder: String,
}

/// Compares the log with what was acknowledged.
pub fn agrees(database: &Connection, model: &Shared) {
    let mut entries = entries(database);
    let model = model.lock();
    for request in &model.requests {
        let (operation, entry) = match &request.standing {
            Standing::Accepted(operation) => {
                let id = text(operation, "id").to_owned();
                let entry = entries.remove(&id);
                let entry = entry.unwrap_or_else(|| panic!("not in the audit log: {operation}"));
                let ended = match operation["error"]["code"].as_i64() {
                    None => "DONE",
                    Some(code) if Code::from(code as i32) == Code::Cancelled => "CANCELLED",
                    Some(_) => "ERROR",
                };
                assert_eq!(entry.statuses, ["STARTED", ended], "{operation}");
                assert_eq!(entry.image, image_id(operation), "{operation}");
                (id, entry)
            }
            // Nobody knows its operation, but for the image that it made.
            Standing::Found(image) => {
                let id = made_by(&entries, &model.requests, image);
                let entry = entries.remove(&id).expect("it was found there");
                assert_eq!(entry.statuses, ["STARTED", "DONE"], "{id}");
                (id, entry)
            }
            Standing::Unknown | Standing::Refused => continue,
        };
        let folder = match &request.action.place() {
            Some(place) => place.folder,
            None => model.images[&entry.image].folder,
        };
        assert_eq!(entry.folder, folder, "{operation}");
    }
    assert!(entries.is_empty(), "in the audit log alone: {entries:?}");
}

/// The operation that made an image, of those that no request is known to have.
fn made_by(entries: &BTreeMap<String, Entry>, requests: &[Request], image: &str) -> String {
    let known: Vec<&str> = requests
        .iter()
        .filter_map(|request| Some(request.operation()?.0))
        .collect();
    let mut found = entries
        .iter()
        .filter(|(id, entry)| entry.image == image && !known.contains(&id.as_str()));
    match (found.next(), found.next()) {
        (Some((id, _)), None) => id.clone(),
        other => panic!("the audit log has not one operation that made {image}: {other:?}"),
    }
}

/// The entries by operation.
fn entries(database: &Connection) -> BTreeMap<String, Entry> {
    let mut entries = BTreeMap::<String, Entry>::new();
    let mut statement = database
        .prepare_cached(
            "SELECT event.*, folder.id AS folder FROM audit_events AS event
             JOIN folders AS folder ON folder.key = folder_key ORDER BY sequence",
        )
        .expect("an audit log");
    let mut rows = statement.query([]).expect("rows");
    while let Some(row) = rows.next().expect("a row") {
        let (operation, entry) = entry(row).expect("columns");
        match entries.get_mut(&operation) {
            None => {
                entries.insert(operation, entry);
            }
            Some(earlier) => {
                assert_eq!(
                    (&earlier.image, &earlier.folder),
                    (&entry.image, &entry.folder),
                    "{operation}"
                );
                earlier.statuses.extend(entry.statuses);
            }
        }
    }
    entries
}

fn entry(row: &Row<'_>) -> rusqlite::Result<(String, Entry)> {
    let id = |key, rest| {
        Ok::<_, rusqlite::Error>(Id {
            key: row.get(key)?,
            rest: row.get(rest)?,
        })
    };
    let prefix = match row.get::<_, i64>("kind")? {
        ..4 => DESKTOP_IMAGE_PREFIX,
        _ => COMPUTE_IMAGE_PREFIX,
    };
    let operation = id("operation_key", "operation_id_rest")?;
    let statuses = match row.get::<_, i64>("status")? {
        0 => vec!["STARTED"],
        1 => vec!["DONE"],
        2 => vec!["ERROR"],
        3 => vec!["CANCELLED"],
        4 => vec!["STARTED", "DONE"],
        other => panic!("audit status {other}"),
    };
    let entry = Entry {
        statuses,
        image: id("image_key", "image_id_rest")?.text(prefix),
        folder: row.get("folder")?,
    };
    Ok((operation.text(OPERATION_PREFIX), entry))
}
