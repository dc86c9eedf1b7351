//! Lines of the log that strangers can cause: one a second at the most, the others are counted.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

const INTERVAL: Duration = Duration::from_secs(1);

/// A line that is written occasionally.
#[derive(Debug, Default)]
pub(crate) struct Occasionally {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    written: Option<Instant>,
    left_out: u64,
}

impl Occasionally {
    /// The number of lines that were left out since the last one, if this one is to be written.
    pub(crate) fn may(&self) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state
            .written
            .is_some_and(|written| written.elapsed() < INTERVAL)
        {
            state.left_out += 1;
            return None;
        }
        state.written = Some(Instant::now());
        Some(std::mem::take(&mut state.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_left_out_and_counted() {
        let line = Occasionally::default();
        assert_eq!(line.may(), Some(0));
        assert_eq!((line.may(), line.may()), (None, None));
        line.state.lock().unwrap().written = Instant::now().checked_sub(INTERVAL);
        assert_eq!(line.may(), Some(2));
    }
}
