//! Lists of images: what is asked of a store, and the order of the items.

use std::cmp::Ordering;

use sha2::{Digest, Sha256};

use super::{Id, Timestamp};

/// A column that images are ordered by. The id comes last in every order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Column {
    Id,
    Name,
    CreatedAt,
    Status,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Ascending,
    Descending,
}

/// A condition on the name: it is, or is not, one of the values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Condition {
    pub negated: bool,
    pub values: Vec<String>,
}

/// One page of the images of a folder.
#[derive(Debug, Clone)]
pub(crate) struct ListQuery {
    pub folder_id: String,
    /// All must hold.
    pub conditions: Vec<Condition>,
    pub order: Vec<(Column, Direction)>,
    /// At least one.
    pub page_size: usize,
    /// The last item of the page before.
    pub after: Option<Position>,
}

/// Where a page ended: the last item as it was then. The name is held as a hash, since it may
/// be longer than a page token; the store finds the name again, also when the item is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Position {
    pub id: String,
    pub created_at: Timestamp,
    pub status: u8,
    pub name_hash: i64,
}

/// The items of a page, and the position to go on from where more follow.
#[derive(Debug)]
pub(crate) struct Page<T> {
    pub items: Vec<T>,
    pub next: Option<Position>,
}

/// The first 64 bits of the SHA-256 of a name.
pub(crate) fn name_hash(name: &str) -> i64 {
    let digest = Sha256::digest(name.as_bytes());
    let mut first = [0; 8];
    first.copy_from_slice(&digest[..8]);
    i64::from_be_bytes(first)
}

/// The order asked for, without repeated columns, made total by the id. The id goes the way of the last column, so
/// that one index serves both; it holds the time of creation, so that the two at the end are one.
pub(crate) fn total_order(order: &[(Column, Direction)]) -> Vec<(Column, Direction)> {
    let mut total: Vec<(Column, Direction)> = Vec::new();
    let id_direction = order.last().map_or(Direction::Ascending, |last| last.1);
    for term in order.iter().copied().chain([(Column::Id, id_direction)]) {
        if total.iter().all(|(column, _)| *column != term.0) {
            total.push(term);
        }
    }
    if let [
        ..,
        (Column::CreatedAt, direction),
        (Column::Id, id_direction),
    ] = &total[..]
        && direction == id_direction
    {
        total.remove(total.len() - 2);
    }
    total
}

/// The values of an image that lists are ordered by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SortKey<'a> {
    pub id: Id,
    pub name: &'a str,
    pub status: u8,
}

impl SortKey<'_> {
    /// Compares two images in a total order. Times count to the millisecond, as ids hold them.
    pub(crate) fn compare(&self, other: &Self, order: &[(Column, Direction)]) -> Ordering {
        let compared = order.iter().map(|(column, direction)| {
            let ascending = match column {
                Column::Id => self.id.cmp(&other.id),
                Column::Name => self.name.as_bytes().cmp(other.name.as_bytes()),
                Column::CreatedAt => self.id.created_at().cmp(&other.id.created_at()),
                Column::Status => self.status.cmp(&other.status),
            };
            match direction {
                Direction::Ascending => ascending,
                Direction::Descending => ascending.reverse(),
            }
        });
        compared.fold(Ordering::Equal, Ordering::then)
    }
}

impl ListQuery {
    /// Whether an image of this name is asked for.
    pub(crate) fn admits(&self, name: &str) -> bool {
        self.conditions.iter().all(|condition| {
            condition.values.iter().any(|value| value == name) != condition.negated
        })
    }
}
