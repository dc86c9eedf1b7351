//! The slots in which uploads run. A slot that is asked for while all are taken is taken from the slowest
//! upload whose sender is slower than a minimum, so that many senders of next to nothing shut out nobody.
//!
//! The rate of an upload is that of its sender: bytes by the time that the server waited for them. An upload
//! that waits for the server's disk is not slow. A limit for each peer would not do: all may come through one proxy.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// Limits of uploads: their number, and the speed below which one gives way to others.
#[derive(Debug, Clone)]
pub struct UploadSettings {
    /// The number of uploads that run at the same time. Each keeps two threads.
    pub slots: usize,
    /// Bytes a second. A sender that is slower gives way where all slots are taken.
    pub slowest: u64,
    /// How long the server must have waited for a sender before it is judged, and over how long at the least.
    pub judged_after: Duration,
}

impl Default for UploadSettings {
    fn default() -> Self {
        Self {
            slots: 64,
            slowest: 64 << 10,
            judged_after: Duration::from_secs(5),
        }
    }
}

/// The slots of a server. Cheap to clone.
#[derive(Clone)]
pub(super) struct UploadSlots(Arc<Slots>);

struct Slots {
    settings: UploadSettings,
    taken: Mutex<Taken>,
    freed: Notify,
}

#[derive(Default)]
struct Taken {
    last_id: u64,
    uploads: HashMap<u64, Arc<Sender>>,
}

/// The slot of one upload; dropping it frees it.
pub(super) struct Slot {
    slots: UploadSlots,
    id: u64,
    sender: Arc<Sender>,
}

/// The sender of an upload, with its pace.
struct Sender {
    pace: Mutex<Pace>,
    evicted: CancellationToken,
}

struct Pace {
    now: Mark,
    /// Since when the server waits for the next bytes, while it does.
    waits_since: Option<Instant>,
    /// The end of the newest span that is long enough to judge by, and the start of the one after it.
    marks: [Mark; 2],
}

/// The progress of an upload at a moment.
#[derive(Clone, Copy, Default)]
struct Mark {
    waited: Duration,
    bytes: u64,
}

/// A judgement on the speed of a sender.
enum Judgement {
    Fast,
    /// In bytes a second.
    Slow(f64),
    /// Slow so far, and judged when the server has waited for as long again.
    NotYet(Duration),
}

/// The answer to a request for a slot.
enum Asked {
    Given(Slot),
    /// All are taken; a sender may turn out to be slow after this time.
    Later(Duration),
    /// All are taken, and by senders that are fast enough.
    Refused,
}

impl UploadSlots {
    pub(super) fn new(settings: UploadSettings) -> Self {
        Self(Arc::new(Slots {
            settings,
            taken: Mutex::default(),
            freed: Notify::new(),
        }))
    }

    /// Takes a slot. Waits, but not for long, where all are taken and one of them is about to prove slow, or
    /// one is to be freed within `making_room`; none where that is not so.
    pub(super) async fn take(&self, making_room: Duration) -> Option<Slot> {
        let started = Instant::now();
        loop {
            let freed = self.0.freed.notified();
            let asked = self.ask();
            let waited = started.elapsed();
            let pause = match asked {
                Asked::Given(slot) => return Some(slot),
                Asked::Later(pause) if waited < 2 * self.0.settings.judged_after => pause,
                _ if waited < making_room => making_room - waited,
                Asked::Later(_) | Asked::Refused => return None,
            };
            tokio::select! {
                () = freed => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    fn ask(&self) -> Asked {
        let settings = &self.0.settings;
        let mut taken = self.taken();
        if taken.uploads.len() < settings.slots {
            return Asked::Given(self.give(&mut taken));
        }
        let mut slowest = None;
        let mut pause = None;
        for (id, sender) in &taken.uploads {
            match sender.judge(settings) {
                Judgement::Fast => {}
                Judgement::Slow(rate) => {
                    if slowest.is_none_or(|(_, least)| rate < least) {
                        slowest = Some((*id, rate));
                    }
                }
                Judgement::NotYet(rest) => {
                    pause = Some(pause.map_or(rest, |pause: Duration| pause.min(rest)));
                }
            }
        }
        match (slowest, pause) {
            (Some((id, rate)), _) => {
                if let Some(sender) = taken.uploads.remove(&id) {
                    tracing::info!(
                        bytes_per_second = rate,
                        "a slow upload gives way to another"
                    );
                    sender.evicted.cancel();
                }
                Asked::Given(self.give(&mut taken))
            }
            (None, Some(pause)) => Asked::Later(pause),
            (None, None) => Asked::Refused,
        }
    }

    fn give(&self, taken: &mut Taken) -> Slot {
        taken.last_id += 1;
        let sender = Arc::new(Sender {
            pace: Mutex::new(Pace {
                now: Mark::default(),
                waits_since: None,
                marks: [Mark::default(); 2],
            }),
            evicted: CancellationToken::new(),
        });
        let id = taken.last_id;
        taken.uploads.insert(id, Arc::clone(&sender));
        Slot {
            slots: self.clone(),
            id,
            sender,
        }
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.0.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    /// Returns when the upload must give way to another.
    pub(super) fn evicted(&self) -> WaitForCancellationFutureOwned {
        self.sender.evicted.clone().cancelled_owned()
    }

    /// The server waits for bytes of the sender from now on.
    pub(super) fn waits(&self) {
        self.sender.pace().waits_since = Some(Instant::now());
    }

    /// The wait is over, and this many bytes came of it.
    pub(super) fn received(&self, bytes: usize) {
        let span = self.slots.0.settings.judged_after;
        self.sender.pace().received(bytes as u64, span);
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if self.slots.taken().uploads.remove(&self.id).is_some() {
            self.slots.0.freed.notify_one();
        }
    }
}

impl Sender {
    fn judge(&self, settings: &UploadSettings) -> Judgement {
        let pace = self.pace();
        let current = pace.waits_since.map(|since| since.elapsed());
        let current = current.unwrap_or_default();
        // Silent now, however much it sent before.
        if current >= 2 * settings.judged_after && settings.slowest > 0 {
            return Judgement::Slow(0.0);
        }
        let waited = pace.now.waited + current - pace.marks[0].waited;
        let bytes = pace.now.bytes - pace.marks[0].bytes;
        let rate = bytes as f64 / waited.as_secs_f64();
        if rate >= settings.slowest as f64 {
            return Judgement::Fast;
        }
        match settings.judged_after.checked_sub(waited) {
            None | Some(Duration::ZERO) => Judgement::Slow(rate),
            // Of no sender is it known that it is fast before it has sent something.
            Some(rest) => Judgement::NotYet(rest),
        }
    }

    fn pace(&self) -> MutexGuard<'_, Pace> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pace {
    fn received(&mut self, bytes: u64, span: Duration) {
        if let Some(since) = self.waits_since.take() {
            self.now.waited += since.elapsed();
        }
        self.now.bytes += bytes;
        // What was sent long ago does not count: a sender may fall silent after a quick start.
        if self.now.waited - self.marks[1].waited >= span {
            self.marks = [self.marks[1], self.now];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPAN: Duration = Duration::from_millis(100);
    const BOUND: Duration = Duration::from_secs(30);

    fn slots(count: usize, slowest: u64) -> UploadSlots {
        UploadSlots::new(UploadSettings {
            slots: count,
            slowest,
            judged_after: SPAN,
        })
    }

    async fn taken(slots: &UploadSlots) -> Option<Slot> {
        let taken = tokio::time::timeout(BOUND, slots.take(Duration::ZERO)).await;
        taken.expect("it is decided")
    }

    fn is_evicted(slot: &Slot) -> bool {
        slot.sender.evicted.is_cancelled()
    }

    /// Has the server wait for a sender, for a time of which it knows.
    fn wait(slot: &Slot, time: Duration, bytes: usize) {
        slot.sender.pace().waits_since = Instant::now().checked_sub(time);
        slot.received(bytes);
    }

    #[tokio::test]
    async fn slots_are_given_until_all_are_taken_and_again_when_one_is_free() {
        let slots = slots(2, 0);
        let first = taken(&slots).await.expect("a slot");
        let _second = taken(&slots).await.expect("a slot");
        // No sender is slower than nothing.
        assert!(taken(&slots).await.is_none());
        drop(first);
        assert!(taken(&slots).await.is_some());
    }

    #[tokio::test]
    async fn the_slowest_sender_gives_way_and_its_slot_is_not_freed_twice() {
        let slots = slots(3, 1000);
        let [fast, slow, slowest] = [SPAN * 1000, SPAN, SPAN].map(|_| slots.ask());
        let (Asked::Given(fast), Asked::Given(slow), Asked::Given(slowest)) = (fast, slow, slowest)
        else {
            panic!("all are free");
        };
        wait(&fast, 10 * SPAN, 1_000_000);
        wait(&slow, 10 * SPAN, 20);
        wait(&slowest, 10 * SPAN, 10);
        let next = taken(&slots).await.expect("a slot");
        wait(&next, 10 * SPAN, 1_000_000);
        assert!(is_evicted(&slowest) && !is_evicted(&slow) && !is_evicted(&fast));
        drop(slowest);
        let another = taken(&slots).await.expect("a slot");
        wait(&another, 10 * SPAN, 1_000_000);
        assert!(is_evicted(&slow) && !is_evicted(&fast));
        assert!(taken(&slots).await.is_none(), "all that are left are fast");
    }

    #[tokio::test]
    async fn who_finds_new_senders_only_waits_until_they_are_judged() {
        let slots = slots(1, 1000);
        let silent = taken(&slots).await.expect("a slot");
        silent.waits();
        let started = Instant::now();
        let next = taken(&slots).await;
        assert!(next.is_some() && is_evicted(&silent));
        assert!(started.elapsed() >= SPAN / 2, "it is judged, not guessed");
    }

    #[tokio::test]
    async fn a_slot_that_is_about_to_be_freed_is_waited_for() {
        let slots = slots(1, 0);
        let first = taken(&slots).await.expect("a slot");
        assert!(slots.take(SPAN).await.is_none());
        let (next, ()) = tokio::join!(slots.take(BOUND), async {
            tokio::time::sleep(SPAN).await;
            drop(first);
        });
        assert!(next.is_some());
    }

    #[tokio::test]
    async fn a_sender_that_was_fast_once_and_then_trickles_gives_way() {
        let slots = slots(1, 1000);
        let upload = taken(&slots).await.expect("a slot");
        wait(&upload, SPAN, 100_000_000);
        for _ in 0..5 {
            wait(&upload, SPAN, 1);
        }
        assert!(taken(&slots).await.is_some() && is_evicted(&upload));
    }

    #[tokio::test]
    async fn a_sender_that_falls_silent_gives_way_however_much_it_sent() {
        let slots = slots(1, 1000);
        let upload = taken(&slots).await.expect("a slot");
        wait(&upload, SPAN / 100, 1 << 40);
        assert!(taken(&slots).await.is_none());
        upload.sender.pace().waits_since = Instant::now().checked_sub(2 * SPAN);
        assert!(taken(&slots).await.is_some() && is_evicted(&upload));
    }

    #[tokio::test]
    async fn an_upload_that_waits_for_the_server_is_not_slow() {
        let slots = slots(1, 1000);
        let upload = taken(&slots).await.expect("a slot");
        wait(&upload, SPAN / 100, 100);
        // The server is busy with what has come, for longer than it takes to judge.
        tokio::time::sleep(3 * SPAN).await;
        assert!(taken(&slots).await.is_none());
        assert!(!is_evicted(&upload));
    }
}
