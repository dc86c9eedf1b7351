//! Page tokens: a fingerprint of the query, then where the page ended. They fit 100 characters
//! whatever the image is named, since the name is held as a hash.

use std::fmt::Debug;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

use crate::model::{Position, Timestamp};

const VERSION: u8 = 1;
const POSITION_LENGTH: usize = 8 + 1 + 8;

/// A token that does not continue this query.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Wrong {
    #[error("is not a token that this server gave; start again without one")]
    Malformed,
    #[error("belongs to another query; repeat the folder, filter and order that it came from")]
    OtherQuery,
}

/// Tells queries apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fingerprint([u8; 8]);

impl Fingerprint {
    /// The fingerprint of a query, by what it is when printed for debugging.
    pub(super) fn of(query: &impl Debug) -> Self {
        let digest = Sha256::digest(format!("{query:?}"));
        let mut first = [0; 8];
        first.copy_from_slice(&digest[..8]);
        Self(first)
    }
}

pub(super) fn from_position(position: &Position, query: Fingerprint) -> String {
    let mut bytes = vec![VERSION];
    bytes.extend(query.0);
    bytes.extend(position.created_at.0.to_be_bytes());
    bytes.push(position.status);
    bytes.extend(position.name_hash.to_be_bytes());
    bytes.extend(position.id.as_bytes());
    URL_SAFE_NO_PAD.encode(bytes)
}

pub(super) fn position(token: &str, query: Fingerprint) -> Result<Position, Wrong> {
    let bytes = payload(token, query)?;
    let (facts, id) = bytes
        .split_at_checked(POSITION_LENGTH)
        .ok_or(Wrong::Malformed)?;
    let number = |range: std::ops::Range<usize>| {
        let bytes = facts.get(range).and_then(|bytes| bytes.try_into().ok());
        bytes.map(i64::from_be_bytes).ok_or(Wrong::Malformed)
    };
    Ok(Position {
        created_at: Timestamp(number(0..8)?),
        status: facts[8],
        name_hash: number(9..17)?,
        id: checked_id(id)?,
    })
}

pub(super) fn from_id(id: &str, query: Fingerprint) -> String {
    let mut bytes = vec![VERSION];
    bytes.extend(query.0);
    bytes.extend(id.as_bytes());
    URL_SAFE_NO_PAD.encode(bytes)
}

pub(super) fn id(token: &str, query: Fingerprint) -> Result<String, Wrong> {
    checked_id(&payload(token, query)?)
}

/// The bytes after the fingerprint, once that is known to be the query's.
fn payload(token: &str, query: Fingerprint) -> Result<Vec<u8>, Wrong> {
    let bytes = URL_SAFE_NO_PAD
        .decode(token)
        .map_err(|_| Wrong::Malformed)?;
    match bytes.split_first() {
        Some((&VERSION, rest)) => match rest.split_first_chunk::<8>() {
            Some((fingerprint, payload)) if *fingerprint == query.0 => Ok(payload.to_vec()),
            Some(_) => Err(Wrong::OtherQuery),
            None => Err(Wrong::Malformed),
        },
        _ => Err(Wrong::Malformed),
    }
}

fn checked_id(bytes: &[u8]) -> Result<String, Wrong> {
    match std::str::from_utf8(bytes) {
        Ok(id) if !id.is_empty() && id.bytes().all(|b| b.is_ascii_alphanumeric()) => {
            Ok(id.to_owned())
        }
        _ => Err(Wrong::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_token_is_short_and_leads_back(
            created_at: i64, status: u8, name_hash: i64, id in "e3v[0-9a-v]{17}"
        ) {
            let query = Fingerprint::of(&"query");
            let there = Position { created_at: Timestamp(created_at), status, name_hash, id };
            let token = from_position(&there, query);
            prop_assert!(token.len() <= 100);
            prop_assert_eq!(position(&token, query), Ok(there));
            prop_assert_eq!(position(&token, Fingerprint::of(&"other")), Err(Wrong::OtherQuery));
        }

        #[test]
        fn any_text_is_refused_without_a_panic(token in "\\PC{0,120}") {
            prop_assert_eq!(position(&token, Fingerprint::of(&"q")), Err(Wrong::Malformed));
        }
    }

    #[test]
    fn a_cut_token_is_malformed() {
        let query = Fingerprint::of(&"query");
        let there = Position {
            created_at: Timestamp(1),
            status: 2,
            name_hash: 3,
            id: "e3v00000000000000000".to_owned(),
        };
        let token = from_position(&there, query);
        // Up to the id, whose own end no cut shows.
        for length in 0..(1 + 8 + POSITION_LENGTH) * 8 / 6 {
            let cut = position(&token[..length], query);
            assert_eq!(cut, Err(Wrong::Malformed), "{length}");
        }
    }
}
