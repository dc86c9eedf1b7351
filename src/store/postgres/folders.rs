//! Folders by their short numbers. A folder keeps its number for good. Its row is locked by all who count in it.

use std::collections::{BTreeMap, BTreeSet};

use super::super::Result;
use super::columns::Columns;
use super::connection::Connection;
use super::error::{overtaken, unreadable};
use crate::model::QuotaScope;

/// All folders together, of quotas and audit events.
pub(super) const TOTAL: i64 = 0;

/// Locks folders against those who set a limit: id and key of each that is there.
pub(super) const LOCK: &str =
    "SELECT id, key FROM folders WHERE id = ANY($1) ORDER BY key FOR KEY SHARE";

/// The id of the row that stands for a scope.
pub(super) fn id_of(scope: &QuotaScope) -> String {
    match scope {
        QuotaScope::Total => String::new(),
        QuotaScope::Folder(id) => id.clone(),
    }
}

/// The scope that a row stands for.
pub(super) fn scope_of(id: String) -> QuotaScope {
    if id.is_empty() {
        QuotaScope::Total
    } else {
        QuotaScope::Folder(id)
    }
}

/// Gives folders their keys, beside those in `known`. Those of `counted` were looked up before, and are not there.
///
/// # Errors
/// One that says to decide again, where another process has made one meanwhile: it may have set a limit, which
/// nobody knew of.
pub(super) async fn intern(
    connection: &Connection,
    known: &mut BTreeMap<String, i64>,
    wanted: &BTreeSet<String>,
    counted: &BTreeSet<String>,
) -> Result<()> {
    let missing = wanted.iter().filter(|id| !known.contains_key(*id));
    let missing: Vec<&String> = missing.collect();
    if missing.iter().any(|id| !counted.contains(*id)) {
        learn(known, connection.query(LOCK, &[&missing]).await?)?;
    }
    let new = missing.into_iter().filter(|id| !known.contains_key(*id));
    let new: Vec<&String> = new.collect();
    if new.is_empty() {
        return Ok(());
    }
    let made = connection
        .query(
            "INSERT INTO folders (id) SELECT unnest($1::text[]) ORDER BY 1
             ON CONFLICT (id) DO NOTHING RETURNING id, key",
            &[&new],
        )
        .await?;
    if made.len() < new.len() {
        return Err(overtaken());
    }
    learn(known, made)
}

fn learn(known: &mut BTreeMap<String, i64>, rows: Vec<tokio_postgres::Row>) -> Result<()> {
    for row in rows {
        let mut columns = Columns::of(&row);
        known.insert(columns.take()?, columns.take()?);
    }
    Ok(())
}

/// The key of a folder that was interned.
pub(super) fn key_of(known: &BTreeMap<String, i64>, id: &str) -> Result<i64> {
    known
        .get(id)
        .copied()
        .ok_or_else(|| unreadable(format!("no key of the folder {id}")))
}
