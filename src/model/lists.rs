//! What a list of images asks of a store, free of any SQL.

use sha2::{Digest, Sha256};

use super::Timestamp;

/// What images are ordered by. The id comes last in every order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Column {
    Id,
    Name,
    CreatedAt,
    Status,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    Ascending,
    Descending,
}

/// A condition on the name: it is, or is not, one of the values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    pub negated: bool,
    pub values: Vec<String>,
}

/// One page of the images of a folder.
#[derive(Debug, Clone)]
pub struct ListQuery {
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
pub struct Position {
    pub id: String,
    pub created_at: Timestamp,
    pub status: u8,
    pub name_hash: i64,
}

/// The items of a page, and the position to go on from where more follow.
#[derive(Debug)]
pub struct Page<T> {
    pub items: Vec<T>,
    pub next: Option<Position>,
}

/// The first 64 bits of the SHA-256 of a name.
pub fn name_hash(name: &str) -> i64 {
    let digest = Sha256::digest(name.as_bytes());
    let mut first = [0; 8];
    first.copy_from_slice(&digest[..8]);
    i64::from_be_bytes(first)
}
