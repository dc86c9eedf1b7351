//! Keyset pages over the images of a folder, the same for both kinds.

use rusqlite::types::Value;
use rusqlite::{OptionalExtension, Row, params, params_from_iter};

use super::super::{Error, Result};
use super::{Transaction, folders};
use crate::model::{
    Column, Direction, Id, ListQuery, Page, Position, Timestamp, name_hash, total_order,
};

/// The differences between the kinds of images.
pub(super) struct Table<T> {
    pub name: &'static str,
    /// Of the ids.
    pub prefix: &'static str,
    /// In ascending order.
    pub statuses: &'static [i64],
    /// The status of all but a few, which the index by status leaves out.
    pub common_status: i64,
    /// Selects from the table under the alias `image`.
    pub select: &'static str,
    pub from_row: fn(&Row<'_>) -> rusqlite::Result<T>,
    pub position: fn(&T) -> Position,
}

/// One page, and where the next one starts.
pub(super) fn page<T>(
    transaction: &Transaction<'_>,
    table: &Table<T>,
    query: &ListQuery,
) -> Result<Page<T>> {
    let Some(folder_key) = folders::find(transaction, &query.folder_id)? else {
        return Ok(Page {
            items: Vec::new(),
            next: None,
        });
    };
    let order = total_order(&query.order);
    // One more than asked for tells whether another page follows.
    let wanted = query.page_size + 1;
    let mut items = Vec::new();
    for segment in segments(table, &order, query.after.as_ref()) {
        let missing = wanted - items.len();
        if missing == 0 {
            break;
        }
        let found = select(transaction, table, folder_key, query, &segment, missing)?;
        items.extend(found);
    }
    let mut next = None;
    if items.len() > query.page_size {
        items.truncate(query.page_size);
        next = items.last().map(table.position);
    }
    Ok(Page { items, next })
}

/// Items that follow each other in one index.
struct Segment<'q> {
    status: Option<i64>,
    order: &'q [(Column, Direction)],
    after: Option<&'q Position>,
}

/// A list that is ordered by status first is one list for each status, one after the other.
fn segments<'q, T>(
    table: &Table<T>,
    order: &'q [(Column, Direction)],
    after: Option<&'q Position>,
) -> Vec<Segment<'q>> {
    let Some(((Column::Status, direction), rest)) = order.split_first() else {
        return vec![Segment {
            status: None,
            order,
            after,
        }];
    };
    let mut statuses = table.statuses.to_vec();
    if *direction == Direction::Descending {
        statuses.reverse();
    }
    let reached = after.map(|position| i64::from(position.status));
    let begin = reached.and_then(|reached| statuses.iter().position(|status| *status == reached));
    statuses
        .into_iter()
        .skip(begin.unwrap_or(0))
        .map(|status| Segment {
            status: Some(status),
            order: rest,
            after: after.filter(|_| Some(status) == reached),
        })
        .collect()
}

fn select<T>(
    transaction: &Transaction<'_>,
    table: &Table<T>,
    folder_key: i64,
    query: &ListQuery,
    segment: &Segment<'_>,
    limit: usize,
) -> Result<Vec<T>> {
    let mut values = vec![Value::from(folder_key)];
    let mut sql = format!("{} WHERE folder_key = ?", table.select);
    if let Some(status) = segment.status {
        sql.push_str(&format!(" AND status = {status}"));
        if status != table.common_status {
            // In the words of the index, which is not used without.
            sql.push_str(&format!(" AND status <> {}", table.common_status));
        }
    }
    for condition in &query.conditions {
        let marks = vec!["?"; condition.values.len()].join(", ");
        let not = if condition.negated { "NOT " } else { "" };
        sql.push_str(&format!(" AND name {not}IN ({marks})"));
        values.extend(condition.values.iter().cloned().map(Value::from));
    }
    if let Some(position) = segment.after {
        let after = values_at(transaction, table, position, segment.order)?;
        sql.push_str(" AND ");
        push_after(&mut sql, &mut values, segment.order, &after);
    }
    let terms: Vec<String> = segment
        .order
        .iter()
        .map(|(column, direction)| format!("{} {}", sql_name(*column), keyword(*direction)))
        .collect();
    sql.push_str(&format!(" ORDER BY {} LIMIT ?", terms.join(", ")));
    values.push(Value::from(limit as i64));
    let items = transaction
        .prepare_cached(&sql)?
        .query_map(params_from_iter(values), table.from_row)?
        .collect::<rusqlite::Result<Vec<T>>>()?;
    Ok(items)
}

/// `a >= x AND (a > x OR (b >= y AND (b > y OR …)))`: the leading comparisons stand alone, so
/// that an index finds the start of the page.
fn push_after(
    sql: &mut String,
    values: &mut Vec<Value>,
    order: &[(Column, Direction)],
    after: &[Value],
) {
    let (Some(((column, direction), rest)), Some((value, later))) =
        (order.split_first(), after.split_first())
    else {
        return;
    };
    let name = sql_name(*column);
    let beyond = match direction {
        Direction::Ascending => ">",
        Direction::Descending => "<",
    };
    values.push(value.clone());
    if rest.is_empty() {
        sql.push_str(&format!("{name} {beyond} ?"));
        return;
    }
    values.push(value.clone());
    sql.push_str(&format!("{name} {beyond}= ? AND ({name} {beyond} ? OR ("));
    push_after(sql, values, rest, later);
    sql.push_str("))");
}

/// The values of the ordering columns where the page before ended.
fn values_at<T>(
    transaction: &Transaction<'_>,
    table: &Table<T>,
    position: &Position,
    order: &[(Column, Direction)],
) -> Result<Vec<Value>> {
    let id = Id::parse(table.prefix, &position.id).ok_or(Error::PageTokenExpired)?;
    order
        .iter()
        .map(|(column, _)| {
            Ok(match column {
                Column::Id => Value::from(id.key),
                Column::CreatedAt => Value::from(position.created_at.0 / 1000),
                Column::Status => Value::from(i64::from(position.status)),
                Column::Name => Value::from(name_at(transaction, table.name, id, position)?),
            })
        })
        .collect()
}

/// The name that the last item had when the page ended.
fn name_at(
    transaction: &Transaction<'_>,
    table: &str,
    id: Id,
    position: &Position,
) -> Result<String> {
    if position.name_hash == name_hash("") {
        return Ok(String::new());
    }
    let current: Option<String> = transaction
        .prepare_cached(&format!("SELECT name FROM {table} WHERE key = ?1"))?
        .query_row([id.key], |row| row.get(0))
        .optional()?;
    if let Some(name) = current.filter(|name| name_hash(name) == position.name_hash) {
        return Ok(name);
    }
    transaction
        .prepare_cached("SELECT name FROM retired_names WHERE image_id = ?1 AND name_hash = ?2")?
        .query_row(params![position.id, position.name_hash], |row| row.get(0))
        .optional()?
        .ok_or(Error::PageTokenExpired)
}

/// Keeps a name that an image gives up, for the page tokens that refer to it.
pub(super) fn note_former_name(
    transaction: &Transaction<'_>,
    image_id: &str,
    name: &str,
    now: Timestamp,
) -> Result<()> {
    if name.is_empty() {
        return Ok(());
    }
    transaction
        .prepare_cached(
            "INSERT OR REPLACE INTO retired_names (image_id, name_hash, name, retired_at)
             VALUES (?1, ?2, ?3, ?4)",
        )?
        .execute(params![image_id, name_hash(name), name, now.0])?;
    Ok(())
}

/// Prunes names given up before a time: at most `limit` of them; how many they were.
pub(super) fn prune_former_names(
    transaction: &Transaction<'_>,
    before: Timestamp,
    limit: usize,
) -> Result<usize> {
    Ok(transaction
        .prepare_cached(
            "DELETE FROM retired_names WHERE (image_id, name_hash) IN
             (SELECT image_id, name_hash FROM retired_names WHERE retired_at < ?1 LIMIT ?2)",
        )?
        .execute([before.0, limit as i64])?)
}

fn sql_name(column: Column) -> &'static str {
    match column {
        Column::Id => "image.key",
        Column::Name => "name",
        // Milliseconds.
        Column::CreatedAt => "(image.key >> 20)",
        Column::Status => "status",
    }
}

fn keyword(direction: Direction) -> &'static str {
    match direction {
        Direction::Ascending => "ASC",
        Direction::Descending => "DESC",
    }
}
