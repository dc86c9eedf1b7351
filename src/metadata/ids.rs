//! Ids: a prefix of three characters, then 48 bits of milliseconds and 37 random bits in
//! base32hex, 20 characters in all. They sort by the time of their making, which keeps inserts
//! at the end of every index; they are not secret and give no right to anything.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use super::Clock;

const ALPHABET: &[u8; 32] = b"0123456789abcdefghijklmnopqrstuv";
const RANDOM_BITS: u32 = 37;
const CHARACTERS: u32 = 17;

/// Makes ids whose time part never goes backwards in this process.
pub struct IdGenerator {
    clock: Arc<dyn Clock>,
    last_millis: AtomicI64,
}

impl IdGenerator {
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            last_millis: AtomicI64::new(0),
        }
    }

    /// A new id that starts with `prefix`.
    pub fn generate(&self, prefix: &str) -> String {
        let now = self.clock.now().0 / 1000;
        let millis = self.last_millis.fetch_max(now, Ordering::Relaxed).max(now);
        encode(prefix, millis as u64, rand::random())
    }
}

fn encode(prefix: &str, millis: u64, random: u64) -> String {
    let millis = u128::from(millis & ((1 << 48) - 1));
    let random = u128::from(random & ((1 << RANDOM_BITS) - 1));
    let bits = (millis << RANDOM_BITS) | random;
    let mut id = String::with_capacity(prefix.len() + CHARACTERS as usize);
    id.push_str(prefix);
    for position in (0..CHARACTERS).rev() {
        id.push(char::from(
            ALPHABET[((bits >> (5 * position)) & 31) as usize],
        ));
    }
    id
}

#[cfg(test)]
mod tests {
    use super::super::{ManualClock, Timestamp};
    use super::*;

    #[test]
    fn ids_have_20_characters_and_sort_by_time_even_when_the_clock_goes_back() {
        let clock = Arc::new(ManualClock::new(Timestamp(1_700_000_000_000_000)));
        let ids = IdGenerator::new(clock.clone());
        let first = ids.generate("e3v");
        clock.set(Timestamp(1_700_000_000_002_000));
        let second = ids.generate("e3v");
        clock.set(Timestamp(1_600_000_000_000_000));
        let third = ids.generate("e3v");
        for id in [&first, &second, &third] {
            assert_eq!(id.len(), 20);
            assert!(
                id.bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
            );
        }
        assert!(first < second);
        // The same millisecond as the second: only the random part differs.
        assert_eq!(second[..12], third[..12]);
    }

    #[test]
    fn every_bit_has_its_place() {
        assert_eq!(encode("fd8", 0, 0), "fd800000000000000000");
        assert_eq!(encode("fd8", u64::MAX, u64::MAX), "fd8vvvvvvvvvvvvvvvvv");
    }
}
