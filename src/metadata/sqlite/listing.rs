//! Keyset pages over the images of a folder, the same for both kinds.

use std::time::Duration;

use rusqlite::types::Value;
use rusqlite::{OptionalExtension, Row, Transaction, params, params_from_iter};

use super::super::{
    Column, Direction, Error, ListQuery, Page, Position, Result, Timestamp, name_hash,
};

/// What differs between the kinds of images.
pub(super) struct Table<T> {
    pub name: &'static str,
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
    let mut values = vec![Value::from(query.folder_id.clone())];
    let mut sql = format!("{} WHERE folder_id = ?", table.select);
    for condition in &query.conditions {
        let marks = vec!["?"; condition.values.len()].join(", ");
        let not = if condition.negated { "NOT " } else { "" };
        sql.push_str(&format!(" AND name {not}IN ({marks})"));
        values.extend(condition.values.iter().cloned().map(Value::from));
    }
    let order = total_order(&query.order);
    if let Some(position) = &query.after {
        let after = values_at(transaction, table.name, position, &order)?;
        sql.push_str(" AND ");
        push_after(&mut sql, &mut values, &order, &after);
    }
    let terms: Vec<String> = order
        .iter()
        .map(|(column, direction)| format!("{} {}", sql_name(*column), keyword(*direction)))
        .collect();
    sql.push_str(&format!(" ORDER BY {} LIMIT ?", terms.join(", ")));
    // One more than asked for tells whether another page follows.
    values.push(Value::from(query.page_size as i64 + 1));

    let mut items = transaction
        .prepare_cached(&sql)?
        .query_map(params_from_iter(values), table.from_row)?
        .collect::<rusqlite::Result<Vec<T>>>()?;
    let mut next = None;
    if items.len() > query.page_size {
        items.truncate(query.page_size);
        next = items.last().map(table.position);
    }
    Ok(Page { items, next })
}

/// The order asked for, without repeated columns, made total by the id. The id goes the way of
/// the last column, so that one index serves both.
fn total_order(order: &[(Column, Direction)]) -> Vec<(Column, Direction)> {
    let mut total: Vec<(Column, Direction)> = Vec::new();
    let id_direction = order.last().map_or(Direction::Ascending, |last| last.1);
    for term in order.iter().copied().chain([(Column::Id, id_direction)]) {
        if total.iter().all(|(column, _)| *column != term.0) {
            total.push(term);
        }
    }
    total
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
fn values_at(
    transaction: &Transaction<'_>,
    table: &str,
    position: &Position,
    order: &[(Column, Direction)],
) -> Result<Vec<Value>> {
    order
        .iter()
        .map(|(column, _)| {
            Ok(match column {
                Column::Id => Value::from(position.id.clone()),
                Column::CreatedAt => Value::from(position.created_at.0),
                Column::Status => Value::from(i64::from(position.status)),
                Column::Name => Value::from(name_at(transaction, table, position)?),
            })
        })
        .collect()
}

/// The name that the last item had when the page ended.
fn name_at(transaction: &Transaction<'_>, table: &str, position: &Position) -> Result<String> {
    let current: Option<String> = transaction
        .prepare_cached(&format!("SELECT name FROM {table} WHERE id = ?1"))?
        .query_row([&position.id], |row| row.get(0))
        .optional()?;
    if position.name_hash == name_hash("") {
        return Ok(String::new());
    }
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
pub(super) fn retire_name(
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

/// Refuses a name that another image of the folder has.
pub(super) fn check_name_is_free(
    transaction: &Transaction<'_>,
    table: &str,
    folder_id: &str,
    name: &str,
    except_id: &str,
) -> Result<()> {
    let taken: bool = transaction
        .prepare_cached(&format!(
            "SELECT EXISTS (SELECT 1 FROM {table}
                            WHERE folder_id = ?1 AND name = ?2 AND id <> ?3)"
        ))?
        .query_row([folder_id, name, except_id], |row| row.get(0))?;
    if taken {
        return Err(Error::NameTaken {
            folder_id: folder_id.to_owned(),
            name: name.to_owned(),
        });
    }
    Ok(())
}

impl super::Store {
    /// Forgets names retired longer ago than `age`; page tokens that refer to them expire.
    pub async fn forget_retired_names(&self, age: Duration) -> Result<()> {
        const BATCH: usize = 1000;
        loop {
            let forgotten = self
                .write(move |transaction, store| {
                    Ok(transaction
                        .prepare_cached(
                            "DELETE FROM retired_names WHERE (image_id, name_hash) IN
                             (SELECT image_id, name_hash FROM retired_names
                              WHERE retired_at < ?1 LIMIT ?2)",
                        )?
                        .execute([store.now().before(age).0, BATCH as i64])?)
                })
                .await?;
            if forgotten < BATCH {
                return Ok(());
            }
        }
    }
}

fn sql_name(column: Column) -> &'static str {
    match column {
        Column::Id => "image.id",
        Column::Name => "name",
        Column::CreatedAt => "image.created_at",
        Column::Status => "status",
    }
}

fn keyword(direction: Direction) -> &'static str {
    match direction {
        Direction::Ascending => "ASC",
        Direction::Descending => "DESC",
    }
}
