//! The times of retries: exponential back-off with full jitter, bounded in number and time.

use std::time::Duration;

/// The most attempts at an operation: an operation with more is one that ends the process.
pub(super) const MOST_ATTEMPTS: i64 = 10;
/// The time after the first failure within which another attempt may begin.
pub(super) const PATIENCE: Duration = Duration::from_secs(10 * 60);
const FIRST_PAUSE: Duration = Duration::from_secs(1);
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// The pause after an attempt, counted from 1, by a random number from 0 to 1: some part of
/// 1, 2, 4… seconds, so that what failed together does not come again together.
pub(super) fn pause(attempt: i64, random: f64) -> Duration {
    let doublings = attempt.saturating_sub(1).clamp(0, 16) as u32;
    let longest = (FIRST_PAUSE * 2u32.pow(doublings)).min(LONGEST_PAUSE);
    longest.mul_f64(random.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_minute_and_are_spread() {
        let longest = [1, 2, 4, 8, 16, 32, 60, 60];
        for (attempt, seconds) in (1..).zip(longest) {
            assert_eq!(pause(attempt, 1.0), Duration::from_secs(seconds));
            assert_eq!(pause(attempt, 0.0), Duration::ZERO);
            assert_eq!(pause(attempt, 0.5), Duration::from_secs(seconds) / 2);
        }
        assert_eq!(pause(i64::MAX, 1.0), LONGEST_PAUSE);
        assert_eq!(pause(-1, 1.0), FIRST_PAUSE);
    }
}
