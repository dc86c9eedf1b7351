//! Sizes of the parts of an upload, and the memory that all parts of the process share.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::layout::UNIT;

const MIB: u64 = 1 << 20;
/// The most parts of one upload, everywhere.
const MOST_PARTS: usize = 10_000;
/// The parts of an upload of known length at the most: the rest is for what is stored beside the bytes.
const EQUAL_PARTS: u64 = 9_000;
/// The smallest part but the last; S3 asks for 5 MiB.
const SMALLEST: u64 = 8 * MIB;
/// Sizes of the parts of an upload of unknown length, so many of each; then the last size. 10,000 parts hold more than
/// 1 TiB.
const GROWING: [u64; 5] = [8 * MIB, 16 * MIB, 32 * MIB, 64 * MIB, 128 * MIB];
const OF_EACH: usize = 500;
/// The unit in which memory is counted.
const KIB: u64 = 1 << 10;

/// The memory for parts of all uploads together. A part takes its room before its first byte. Parts wait in turn, a
/// large one before a small one that came later. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct PartMemory {
    room: Arc<Semaphore>,
    bytes: u64,
}

/// The room of one part, given back when it is dropped.
pub(super) struct PartRoom(
    #[expect(dead_code, reason = "dropping it gives the room back")] OwnedSemaphorePermit,
);

impl PartMemory {
    /// The least memory that uploads work with.
    pub(crate) const LEAST: u64 = 2 * SMALLEST;

    /// Memory of so many bytes, of [`PartMemory::LEAST`] at least.
    pub(crate) fn new(bytes: u64) -> Self {
        let most = u64::from(u32::MAX) * KIB;
        let bytes = bytes.clamp(Self::LEAST, most) / UNIT as u64 * UNIT as u64;
        Self {
            room: Arc::new(Semaphore::new((bytes / KIB) as usize)),
            bytes,
        }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Waits for room for a part, which is not larger than all of the memory.
    pub(super) async fn take(&self, bytes: u64) -> Option<PartRoom> {
        let kibibytes = u32::try_from(bytes.div_ceil(KIB)).ok()?;
        // Nobody closes the semaphore.
        let room = self.room.clone().acquire_many_owned(kibibytes).await;
        room.ok().map(PartRoom)
    }
}

/// The sizes of the parts of one upload, none of which is larger than the memory for all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PartSizes {
    equal: Option<u64>,
    most: u64,
}

impl PartSizes {
    pub(super) fn new(length: Option<u64>, memory: &PartMemory) -> Self {
        let equal = length.map(|length| {
            let size = length.div_ceil(EQUAL_PARTS).max(SMALLEST);
            size.next_multiple_of(UNIT as u64)
        });
        Self {
            equal,
            most: memory.bytes(),
        }
    }

    /// The size of the part with this number, of the first one with 0. None where an upload has no such part.
    pub(super) fn size(&self, number: usize) -> Option<u64> {
        let growing = || GROWING[(number / OF_EACH).min(GROWING.len() - 1)];
        let size = self.equal.unwrap_or_else(growing).min(self.most);
        (number < MOST_PARTS).then_some(size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn total(sizes: PartSizes) -> u64 {
        (0..).map_while(|number| sizes.size(number)).sum()
    }

    #[test]
    fn parts_hold_what_they_must() {
        let memory = PartMemory::new(192 * MIB);
        for (length, first, at_least) in [
            (Some(0), 8 * MIB, 0),
            (Some(50 * GIB), 8 * MIB, 50 * GIB),
            (Some(100 * GIB), 100 * GIB / 9_000, 100 * GIB),
            (Some(1024 * GIB), 1024 * GIB / 9_000, 1100 * GIB),
            (None, 8 * MIB, 1024 * GIB),
        ] {
            let sizes = PartSizes::new(length, &memory);
            let found = sizes.size(0).unwrap();
            assert!(
                (first..first + 2 * UNIT as u64).contains(&found),
                "{length:?}"
            );
            assert!(total(sizes) >= at_least, "{length:?}");
            assert_eq!(sizes.size(MOST_PARTS), None);
            for number in 1..MOST_PARTS {
                let (before, size) = (sizes.size(number - 1).unwrap(), sizes.size(number).unwrap());
                assert!(size == before || length.is_none() && size == 2 * before);
                assert!(size.is_multiple_of(UNIT as u64) && size <= memory.bytes());
            }
        }
        let small = PartMemory::new(0);
        assert_eq!(
            PartSizes::new(Some(1024 * GIB), &small).size(0),
            Some(small.bytes())
        );
    }

    #[tokio::test]
    async fn who_came_first_gets_room_first_though_a_later_one_needs_less() {
        let memory = PartMemory::new(32 * MIB);
        let first = memory.take(24 * MIB).await;
        let mut large = tokio_test_poll(memory.take(16 * MIB));
        assert!(large.poll().is_none());
        let mut small = tokio_test_poll(memory.take(8 * MIB));
        assert!(
            small.poll().is_none(),
            "there is room, but it is not its turn"
        );
        drop(first);
        assert!(large.poll().is_some());
        assert!(small.poll().is_some());
    }

    /// A future that is polled by hand.
    struct ByHand<F>(std::pin::Pin<Box<F>>);

    fn tokio_test_poll<F: Future>(future: F) -> ByHand<F> {
        ByHand(Box::pin(future))
    }

    impl<F: Future> ByHand<F> {
        fn poll(&mut self) -> Option<F::Output> {
            use futures_util::FutureExt;
            self.0.as_mut().now_or_never()
        }
    }
}
