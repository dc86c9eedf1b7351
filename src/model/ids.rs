//! Ids: a prefix of three characters, then 48 bits of milliseconds and 37 random bits in
//! base32hex, 20 characters in all. They sort by the time of their making; they are not secret and
//! give no right to anything.
//!
//! Inside, an id is two numbers: its `key`, the 63 significant bits that make a time-ordered row
//! number, and its `rest`, the last 17 bits. The first five of the 48 bits of time are zero until
//! the year 2248.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use super::{Clock, Fresh, Timestamp};

/// Prefixes of the ids that this server makes (contract).
pub(crate) const DESKTOP_IMAGE_PREFIX: &str = "e3v";
pub(crate) const COMPUTE_IMAGE_PREFIX: &str = "fd8";
pub(crate) const OPERATION_PREFIX: &str = "e3v";

const ALPHABET: &[u8; 32] = b"0123456789abcdefghijklmnopqrstuv";
const PREFIX_LENGTH: usize = 3;
const CHARACTERS: usize = 17;
const REST_BITS: u32 = 17;
/// The random bits of a key.
const RANDOM_BITS: u32 = 20;
/// How far the next key of the same millisecond may lie from the last: a random part of this.
const STEP: i64 = 256;

/// An id without its prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Id {
    pub key: i64,
    pub rest: i64,
}

impl Id {
    /// No id is greater.
    pub(crate) const GREATEST: Self = Self {
        key: i64::MAX,
        rest: (1 << REST_BITS) - 1,
    };

    /// The id in `text`, if it is one that this server could have made with this prefix.
    pub(crate) fn parse(prefix: &str, text: &str) -> Option<Self> {
        let characters = text.strip_prefix(prefix)?.as_bytes();
        if characters.len() != CHARACTERS {
            return None;
        }
        let mut bits = 0u128;
        for character in characters {
            let value = match character {
                b'0'..=b'9' => character - b'0',
                b'a'..=b'v' => character - b'a' + 10,
                _ => return None,
            };
            bits = (bits << 5) | u128::from(value);
        }
        Some(Self {
            key: i64::try_from(bits >> REST_BITS).ok()?,
            rest: (bits & ((1 << REST_BITS) - 1)) as i64,
        })
    }

    /// The id as callers know it.
    pub(crate) fn text(self, prefix: &str) -> String {
        let bits = ((self.key as u128) << REST_BITS) | self.rest as u128;
        let mut text = String::with_capacity(PREFIX_LENGTH + CHARACTERS);
        text.push_str(prefix);
        for position in (0..CHARACTERS).rev() {
            text.push(char::from(
                ALPHABET[((bits >> (5 * position)) & 31) as usize],
            ));
        }
        text
    }

    /// When it was made, to the millisecond.
    pub(crate) fn created_at(self) -> Timestamp {
        Timestamp((self.key >> RANDOM_BITS) * 1000)
    }

    /// The first key of the millisecond that holds `time`.
    pub(crate) fn first_key(time: Timestamp) -> i64 {
        (time.0.max(0) / 1000) << RANDOM_BITS
    }
}

/// Makes ids whose keys only grow, whatever the clock does.
pub(crate) struct IdGenerator {
    clock: Arc<dyn Clock>,
    random: Box<dyn Fn() -> u64 + Send + Sync>,
    last_key: AtomicI64,
}

impl IdGenerator {
    /// Ids greater than those up to `last_key`, which an earlier process may have made by a clock
    /// that has gone back since.
    pub(crate) fn new(clock: Arc<dyn Clock>, last_key: i64) -> Self {
        Self {
            clock,
            random: Box::new(rand::random),
            last_key: AtomicI64::new(last_key),
        }
    }

    /// The same with other random numbers.
    #[cfg(test)]
    pub(crate) fn with_random(self, random: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        Self {
            random: Box::new(random),
            ..self
        }
    }

    /// Ids and a token for what a command makes.
    pub(crate) fn fresh(&self) -> Fresh {
        Fresh {
            image: self.generate(),
            operation: self.generate(),
            blob: self.generate(),
            // From 1 on.
            token: ((self.random)() >> 1).max(1).cast_signed(),
        }
    }

    pub(crate) fn generate(&self) -> Id {
        let random = (self.random)();
        let bits = |from: u32, count: u32| ((random >> from) & ((1 << count) - 1)) as i64;
        let fresh = Id::first_key(self.clock.now()) | bits(0, RANDOM_BITS);
        let step = 1 + bits(RANDOM_BITS, 24) % STEP;
        let next = |last: i64| fresh.max(last + step);
        // The update always gives a value.
        let last = self
            .last_key
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| {
                Some(next(last))
            })
            .unwrap_or_else(|last| last);
        Id {
            key: next(last),
            rest: bits(44, REST_BITS),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::ManualClock;
    use super::*;

    #[test]
    fn keys_only_grow_even_when_the_clock_goes_back() {
        let clock = Arc::new(ManualClock::new(Timestamp(1_700_000_000_000_000)));
        let ids = IdGenerator::new(clock.clone(), 0);
        let mut last = ids.generate();
        for time in [
            1_700_000_000_000_000,
            1_700_000_000_002_000,
            1_600_000_000_000_000,
        ] {
            clock.set(Timestamp(time));
            for _ in 0..1000 {
                let id = ids.generate();
                assert!(id.key > last.key);
                assert!(id.text("e3v") > last.text("e3v"));
                last = id;
            }
        }
        let ids = IdGenerator::new(clock, last.key);
        assert!(ids.generate().key > last.key);
    }

    #[test]
    fn the_key_tells_the_time() {
        let time = Timestamp(1_700_000_000_123_000);
        let ids = IdGenerator::new(Arc::new(ManualClock::new(time)), 0);
        let id = ids.generate();
        assert_eq!(id.created_at(), time);
        assert!(id.key >= Id::first_key(time));
        assert!(id.key < Id::first_key(Timestamp(time.0 + 1000)));
    }

    #[test]
    fn every_bit_has_its_place() {
        assert_eq!(Id { key: 0, rest: 0 }.text("fd8"), "fd800000000000000000");
        let most = Id {
            key: i64::MAX,
            rest: (1 << REST_BITS) - 1,
        };
        assert_eq!(most.text("fd8"), "fd80vvvvvvvvvvvvvvvv");
    }

    #[test]
    fn what_this_server_cannot_have_made_is_no_id() {
        for text in [
            "",
            "e3v",
            "e3v0000000000000000",
            "fd800000000000000000",
            "e3v0000000000000000A",
            "e3v0000000000000000w",
            "e3vvvvvvvvvvvvvvvvvv",
            "e3v000000000000000000",
        ] {
            assert_eq!(Id::parse("e3v", text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn an_id_is_read_as_it_was_written(key in 0..=i64::MAX, rest in 0..1i64 << REST_BITS) {
            let id = Id { key, rest };
            prop_assert_eq!(id.text("e3v").len(), 20);
            prop_assert_eq!(Id::parse("e3v", &id.text("e3v")), Some(id));
        }
    }
}
