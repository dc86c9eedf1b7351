//! Layouts of objects that were read lately. An object never changes, but it may be removed or lost: a layout is looked
//! at again when it is older than [`FRESH`].

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::layout::Layout;

/// The time for which an object is not looked at again.
const FRESH: Duration = Duration::from_secs(5);
/// The most objects and bytes of maps that are kept: maps of 8 TiB.
const MOST: usize = 256;
const HEAVIEST: usize = 32 << 20;

#[derive(Debug, Default)]
pub(super) struct Layouts(Mutex<VecDeque<Known>>);

#[derive(Debug)]
struct Known {
    id: String,
    layout: Arc<Layout>,
    seen: Instant,
}

impl Layouts {
    /// The layout of an object that was seen a moment ago.
    pub(super) fn known(&self, id: &str) -> Option<Arc<Layout>> {
        let known = self.lock();
        let found = known.iter().find(|known| known.id == id)?;
        (found.seen.elapsed() < FRESH).then(|| found.layout.clone())
    }

    /// The layout with a map of an object that was seen before and has this length, as it had then.
    pub(super) fn outdated(&self, id: &str, length: u64) -> Option<Arc<Layout>> {
        let known = self.lock();
        let found = known.iter().find(|known| known.id == id)?;
        match &*found.layout {
            Layout::Packed(map) if map.object_length() == length => Some(found.layout.clone()),
            _ => None,
        }
    }

    pub(super) fn note(&self, id: &str, layout: Arc<Layout>) {
        let mut known = self.lock();
        known.retain(|known| known.id != id);
        known.push_back(Known {
            id: id.to_owned(),
            layout,
            seen: Instant::now(),
        });
        while known.len() > MOST || known.iter().map(Known::weight).sum::<usize>() > HEAVIEST {
            known.pop_front();
        }
    }

    pub(super) fn forget(&self, id: &str) {
        self.lock().retain(|known| known.id != id);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn weight(&self) -> usize {
        match &*self.layout {
            Layout::Whole => 0,
            Layout::Packed(map) => map.weight(),
        }
    }
}
