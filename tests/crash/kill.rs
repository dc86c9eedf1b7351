//! When the server is killed.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rand::Rng;
use rand::rngs::StdRng;

/// How long a round's load runs at the most.
const LONGEST: Duration = Duration::from_millis(700);
const LOOK: Duration = Duration::from_micros(50);

/// A moment, and how long to wait after it.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    event: Event,
    delay: Duration,
}

#[derive(Debug, Clone, Copy)]
enum Event {
    Start,
    /// So many requests are on their way.
    Sent(usize),
    /// So many replies have come.
    Replied(usize),
    /// A blob is begun.
    FileMade,
    /// A blob is removed.
    FileRemoved,
}

/// The progress of the load.
#[derive(Debug, Default)]
pub struct Progress {
    pub sent: AtomicUsize,
    pub replied: AtomicUsize,
}

impl Moment {
    pub fn random(random: &mut StdRng) -> Self {
        let micros =
            |random: &mut StdRng, most| Duration::from_micros(random.random_range(0..most));
        let (event, delay) = match random.random_range(0..10) {
            0..4 => (Event::Start, micros(random, 600_000)),
            4 | 5 => (
                Event::Sent(random.random_range(1..150)),
                micros(random, 3_000),
            ),
            6 | 7 => (
                Event::Replied(random.random_range(1..150)),
                micros(random, 500),
            ),
            8 => (Event::FileMade, micros(random, 60_000)),
            _ => (Event::FileRemoved, micros(random, 3_000)),
        };
        Self { event, delay }
    }

    /// Waits for the moment. `files` tells which blobs are begun and not removed. Blocks.
    pub fn wait(self, files: impl Fn() -> BTreeSet<String>, progress: &Progress) {
        let started = Instant::now();
        let before = files();
        let come = || match self.event {
            Event::Start => true,
            Event::Sent(count) => progress.sent.load(Ordering::Relaxed) >= count,
            Event::Replied(count) => progress.replied.load(Ordering::Relaxed) >= count,
            Event::FileMade => !files().is_subset(&before),
            Event::FileRemoved => !before.is_subset(&files()),
        };
        while !come() && started.elapsed() < LONGEST {
            std::thread::sleep(LOOK);
        }
        std::thread::sleep(self.delay);
    }
}
