//! Keyset pages over the images of a folder, the same for both kinds.

use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::super::{Error, Result};
use super::connection::{Connection, Value, value};
use super::transaction::Transaction;
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
    /// Selects from the table under the alias `image`; the first parameter is the id of the folder.
    pub select: &'static str,
    pub from_row: fn(&Row) -> Result<T>,
    pub position: fn(&T) -> Position,
}

/// One page, and where the next one starts. One of several segments is to be read in one transaction.
pub(super) async fn page<T>(
    connection: &Connection,
    table: &Table<T>,
    query: &ListQuery,
) -> Result<Page<T>> {
    let order = total_order(&query.order);
    // One more than asked for tells whether another page follows.
    let wanted = query.page_size + 1;
    let mut items = Vec::new();
    for segment in segments(table, &order, query.after.as_ref()) {
        let missing = wanted - items.len();
        if missing == 0 {
            break;
        }
        let found = select(connection, table, query, &segment, missing).await?;
        items.extend(found);
    }
    let mut next = None;
    if items.len() > query.page_size {
        items.truncate(query.page_size);
        next = items.last().map(table.position);
    }
    Ok(Page { items, next })
}

/// Whether a page has several segments.
pub(super) fn has_segments(query: &ListQuery) -> bool {
    matches!(query.order.first(), Some((Column::Status, _)))
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

/// A statement that grows, with its values.
struct Growing {
    sql: String,
    values: Vec<Value>,
}

impl Growing {
    /// Adds a value; the mark that stands for it.
    fn mark(&mut self, value: Value) -> String {
        self.values.push(value);
        format!("${}", self.values.len())
    }
}

/// The images of a folder, as one of a list of one. PostgreSQL then keeps the folder as the first column of the order,
/// which only an index that begins with the folder serves. Of an equal folder it leaves that column out, and where
/// folders are few it takes the index of all ids: a page of a small folder goes through the images of a large one
/// (PostgreSQL 15 and 18, once it plans for all parameters alike).
const OF_FOLDER: &str = "image.folder_key = ANY (ARRAY[(SELECT key FROM folders WHERE id = $1)])";

async fn select<T>(
    connection: &Connection,
    table: &Table<T>,
    query: &ListQuery,
    segment: &Segment<'_>,
    limit: usize,
) -> Result<Vec<T>> {
    let mut growing = Growing {
        sql: format!("{} WHERE {OF_FOLDER}", table.select),
        values: vec![value(query.folder_id.clone())],
    };
    if let Some(status) = segment.status {
        growing.sql.push_str(&format!(" AND status = {status}"));
        if status != table.common_status {
            // In the words of the index, which is not used without.
            let common = table.common_status;
            growing.sql.push_str(&format!(" AND status <> {common}"));
        }
    }
    for condition in &query.conditions {
        let mark = growing.mark(value(condition.values.clone()));
        let not = if condition.negated { "NOT " } else { "" };
        growing
            .sql
            .push_str(&format!(" AND {not}name = ANY({mark})"));
    }
    let order: Vec<(Term, Direction)> = segment
        .order
        .iter()
        .flat_map(|(column, direction)| terms(*column).iter().map(|term| (*term, *direction)))
        .collect();
    if let Some(position) = segment.after {
        let after = values_at(connection, table, position, &order).await?;
        growing.sql.push_str(" AND ");
        push_after(&mut growing, &order, after);
    }
    let terms: Vec<String> = order
        .iter()
        .map(|(term, direction)| format!("{} {}", sql_name(*term), keyword(*direction)))
        .collect();
    let mark = growing.mark(value(limit as i64));
    let terms = terms.join(", ");
    let first = order.first().map_or(Direction::Ascending, |first| first.1);
    growing.sql.push_str(&format!(
        " ORDER BY image.folder_key {}, {terms} LIMIT {mark}",
        keyword(first)
    ));
    let values = growing.values.iter();
    let values: Vec<&(dyn ToSql + Sync)> = values.map(|it| &**it as &(dyn ToSql + Sync)).collect();
    let rows = connection.query(&growing.sql, &values).await?;
    rows.iter().map(table.from_row).collect()
}

/// `a >= x AND (a > x OR (b >= y AND (b > y OR …)))`: the leading comparisons stand alone, so
/// that an index finds the start of the page.
fn push_after(growing: &mut Growing, order: &[(Term, Direction)], after: Vec<Value>) {
    let mut open = 0;
    let last = order.len().saturating_sub(1);
    for (place, ((term, direction), value)) in order.iter().zip(after).enumerate() {
        let (name, mark) = (sql_name(*term), growing.mark(value));
        let beyond = match direction {
            Direction::Ascending => ">",
            Direction::Descending => "<",
        };
        growing.sql.push_str(&if place == last {
            format!("{name} {beyond} {mark}")
        } else {
            open += 2;
            format!("{name} {beyond}= {mark} AND ({name} {beyond} {mark} OR (")
        });
    }
    growing.sql.push_str(&")".repeat(open));
}

/// A column of the table that lists are ordered by: an id is two.
#[derive(Debug, Clone, Copy)]
enum Term {
    Key,
    Rest,
    Name,
    Millisecond,
    Status,
}

fn terms(column: Column) -> &'static [Term] {
    match column {
        Column::Id => &[Term::Key, Term::Rest],
        Column::Name => &[Term::Name],
        Column::CreatedAt => &[Term::Millisecond],
        Column::Status => &[Term::Status],
    }
}

/// The values of the ordering columns where the page before ended.
async fn values_at<T>(
    connection: &Connection,
    table: &Table<T>,
    position: &Position,
    order: &[(Term, Direction)],
) -> Result<Vec<Value>> {
    let id = Id::parse(table.prefix, &position.id).ok_or(Error::PageTokenExpired)?;
    let mut values = Vec::with_capacity(order.len());
    for (term, _) in order {
        values.push(match term {
            Term::Key => value(id.key),
            Term::Rest => value(id.rest),
            Term::Millisecond => value(position.created_at.0 / 1000),
            Term::Status => value(i64::from(position.status)),
            Term::Name => value(name_at(connection, table.name, id, position).await?),
        });
    }
    Ok(values)
}

/// The name that the last item had when the page ended.
async fn name_at(
    connection: &Connection,
    table: &str,
    id: Id,
    position: &Position,
) -> Result<String> {
    if position.name_hash == name_hash("") {
        return Ok(String::new());
    }
    let sql = format!("SELECT name FROM {table} WHERE key = $1 AND id_rest = $2");
    let current = connection.query_opt(&sql, &[&id.key, &id.rest]).await?;
    let current: Option<String> = current.map(|row| row.try_get(0)).transpose()?;
    if let Some(name) = current.filter(|name| name_hash(name) == position.name_hash) {
        return Ok(name);
    }
    let former = connection
        .query_opt(
            "SELECT name FROM former_names WHERE image_id = $1 AND name_hash = $2",
            &[&position.id, &position.name_hash],
        )
        .await?
        .ok_or(Error::PageTokenExpired)?;
    Ok(former.try_get(0)?)
}

/// Prunes names given up before a time: at most `limit` of them; how many they were.
pub(super) async fn prune_former_names(
    transaction: &Transaction<'_>,
    before: Timestamp,
    limit: usize,
) -> Result<usize> {
    let pruned = transaction
        .execute(
            "DELETE FROM former_names WHERE (image_id, name_hash) IN (
                 SELECT image_id, name_hash FROM former_names WHERE given_up_at < $1
                 ORDER BY image_id, name_hash LIMIT $2 FOR UPDATE SKIP LOCKED)",
            &[&before.0, &(limit as i64)],
        )
        .await?;
    Ok(pruned as usize)
}

fn sql_name(term: Term) -> &'static str {
    match term {
        Term::Key => "image.key",
        Term::Rest => "image.id_rest",
        Term::Name => "image.name",
        Term::Millisecond => "(image.key >> 20)",
        Term::Status => "status",
    }
}

fn keyword(direction: Direction) -> &'static str {
    match direction {
        Direction::Ascending => "ASC",
        Direction::Descending => "DESC",
    }
}
