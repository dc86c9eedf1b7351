//! Lines of the log on their way out: gathered in memory and written by a thread of their own, so that a request
//! pays for no system call and does not wait for the reader of the log. The line of a Get costs 6 µs of CPU instead of
//! 16 (`--log-level info` against `off`, h2load with 8 connections of 8 streams, 2026-11-28).
//!
//! The memory is bounded. A line that finds it full waits a moment; if nothing was written by then, this line and
//! those after it are dropped, until there is room again. Their number is reported.

use std::io::Write;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Bytes that wait to be written. As many may be on their way.
    pub(super) capacity: usize,
    /// How long a line waits for room.
    pub(super) patience: Duration,
    /// How long lines are gathered, unless half of the capacity is taken before.
    pub(super) gather: Duration,
}

impl Limits {
    pub(super) const USUAL: Self = Self {
        capacity: 1 << 20,
        patience: Duration::from_millis(100),
        gather: Duration::from_millis(5),
    };
}

pub(super) struct Lines {
    limits: Limits,
    state: Mutex<State>,
    /// Signalled where the writing thread may have something to do.
    added: Condvar,
    /// Signalled where there is room again, and where all is written.
    taken: Condvar,
}

#[derive(Default)]
struct State {
    waiting: Vec<u8>,
    dropped: u64,
    /// Whether the last line that waited for room found none: later lines do not wait.
    stuck: bool,
    /// Whether the writing thread waits for a first line.
    idle: bool,
    writing: bool,
    /// Whether a flush waits, for which nothing is gathered.
    hurry: bool,
}

impl Lines {
    pub(super) const fn new(limits: Limits) -> Self {
        Self {
            limits,
            state: Mutex::new(State {
                waiting: Vec::new(),
                dropped: 0,
                stuck: false,
                idle: false,
                writing: false,
                hurry: false,
            }),
            added: Condvar::new(),
            taken: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the line has room. Any line has, where none waits.
    fn has_room(&self, state: &State, line: &[u8]) -> bool {
        state.waiting.is_empty() || state.waiting.len() + line.len() <= self.limits.capacity
    }

    pub(super) fn add(&self, line: &[u8]) {
        let mut state = self.lock();
        if !state.stuck && !self.has_room(&state, line) {
            let full = |state: &mut State| !self.has_room(state, line);
            state = self
                .taken
                .wait_timeout_while(state, self.limits.patience, full)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        state.stuck = !self.has_room(&state, line);
        if state.stuck {
            state.dropped += 1;
            return;
        }
        state.waiting.extend_from_slice(line);
        if std::mem::take(&mut state.idle) || state.waiting.len() * 2 >= self.limits.capacity {
            self.added.notify_one();
        }
    }

    /// Waits until all lines added before are written, but not longer than `bound`: the log may be read by nobody.
    pub(super) fn flush(&self, bound: Duration) {
        let mut state = self.lock();
        state.hurry = true;
        self.added.notify_one();
        let unwritten = |state: &mut State| state.writing || !state.waiting.is_empty();
        let waited = self.taken.wait_timeout_while(state, bound, unwritten);
        waited.unwrap_or_else(PoisonError::into_inner).0.hurry = false;
    }

    /// Writes lines for ever. `dropped` is called with the number of lines that were dropped, once there is room.
    /// A log that cannot be written is passed over: it must not end the process.
    pub(super) fn write(&self, mut to: impl Write, dropped: impl Fn(u64)) -> ! {
        let mut lines = Vec::new();
        loop {
            let number = self.take(&mut lines);
            if number > 0 {
                dropped(number);
            }
            let _ = to.write_all(&lines).and_then(|()| to.flush());
        }
    }

    /// Waits for lines and takes all that there are, with the number of those that were dropped.
    fn take(&self, lines: &mut Vec<u8>) -> u64 {
        lines.clear();
        let mut state = self.lock();
        state.writing = false;
        self.taken.notify_all();
        state.idle = true;
        let state = self.added.wait_while(state, |it| it.waiting.is_empty());
        let mut state = state.unwrap_or_else(PoisonError::into_inner);
        state.idle = false;
        let few = |it: &mut State| !it.hurry && it.waiting.len() * 2 < self.limits.capacity;
        let gathered = self
            .added
            .wait_timeout_while(state, self.limits.gather, few);
        state = gathered.unwrap_or_else(PoisonError::into_inner).0;
        std::mem::swap(&mut state.waiting, lines);
        state.writing = true;
        self.taken.notify_all();
        std::mem::take(&mut state.dropped)
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, mpsc};

    use super::*;

    /// A place to write to that takes nothing until it is told to.
    struct Gate {
        open: mpsc::Receiver<()>,
        written: Arc<Mutex<String>>,
    }

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // Closed for good, it is open.
            let _ = self.open.recv();
            let text = String::from_utf8_lossy(bytes);
            self.written.lock().unwrap().push_str(&text);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    const LONG: Duration = Duration::from_secs(60);

    fn start(limits: Limits) -> (Arc<Lines>, mpsc::Sender<()>, Arc<Mutex<String>>) {
        let lines = Arc::new(Lines::new(limits));
        let (opener, open) = mpsc::channel();
        let written = Arc::new(Mutex::new(String::new()));
        let gate = Gate {
            open,
            written: written.clone(),
        };
        let own = lines.clone();
        std::thread::spawn(move || {
            own.write(gate, |number| {
                own.add(format!("{number} dropped\n").as_bytes())
            })
        });
        (lines, opener, written)
    }

    #[test]
    fn lines_are_written_in_their_order_and_all_of_them_before_a_flush_ends() {
        let (lines, opener, written) = start(Limits::USUAL);
        drop(opener);
        let mut expected = String::new();
        for number in 0..10_000 {
            let line = format!("line {number}\n");
            lines.add(line.as_bytes());
            expected.push_str(&line);
            if number % 1000 == 0 {
                lines.flush(LONG);
                assert_eq!(*written.lock().unwrap(), expected);
            }
        }
        lines.flush(LONG);
        assert_eq!(*written.lock().unwrap(), expected);
    }

    #[test]
    fn lines_without_room_are_dropped_and_counted() {
        let limits = Limits {
            capacity: 12,
            patience: Duration::from_millis(1),
            gather: Duration::ZERO,
        };
        let (lines, opener, written) = start(limits);
        lines.add(b"one\n");
        // It is on its way, and nobody takes it.
        while !lines.lock().writing {
            std::thread::yield_now();
        }
        for line in ["two\n", "three\n", "four\n", "5\n", "six\n"] {
            lines.add(line.as_bytes());
        }
        // A flush is bounded.
        lines.flush(Duration::from_millis(1));
        assert_eq!(*written.lock().unwrap(), "");
        drop(opener);
        lines.flush(LONG);
        lines.add(b"end\n");
        lines.flush(LONG);
        let text = written.lock().unwrap().clone();
        assert_eq!(text, "one\ntwo\nthree\n5\n2 dropped\nend\n");
    }

    #[test]
    fn a_line_longer_than_the_room_is_written_where_none_waits() {
        let limits = Limits {
            capacity: 4,
            ..Limits::USUAL
        };
        let (lines, opener, written) = start(limits);
        drop(opener);
        lines.add(b"a long line\n");
        lines.flush(LONG);
        assert_eq!(*written.lock().unwrap(), "a long line\n");
    }
}
