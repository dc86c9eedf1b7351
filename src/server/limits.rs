//! Limits of each subject: its requests a second, and its transfers under way on all of its connections.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use governor::clock::Clock;
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::peer::Share;

/// The number of subjects from which on those that are not active are forgotten at each new one.
const MANY: usize = 1000;

/// Limits of what one subject may do at a time.
#[derive(Debug, Clone, Default)]
pub struct SubjectSettings {
    /// Requests a second; as many may come at once.
    pub requests_per_second: Option<NonZeroU32>,
    /// The uploads, and the downloads, under way.
    pub transfers: Option<usize>,
}

/// The requests of unknown callers that are under way at a time, where callers must be known. Each may be a stream that
/// keeps its connection from being closed when descriptors run short.
const OF_UNKNOWN_CALLERS: usize = 64;

/// The limits of all subjects. Only those that are known have any, so that strangers add none.
pub(crate) struct SubjectLimits {
    rate: Option<DefaultKeyedRateLimiter<String>>,
    transfers: Option<usize>,
    shares: Mutex<HashMap<String, Arc<Share>>>,
    unknown: Arc<Semaphore>,
}

/// The transfers that are left to a subject, in the extensions of its requests.
#[derive(Debug, Clone)]
pub(super) struct SubjectShare(pub Arc<Share>);

impl SubjectLimits {
    pub(crate) fn new(settings: &SubjectSettings) -> Self {
        let rate = settings.requests_per_second;
        Self {
            rate: rate.map(|rate| RateLimiter::keyed(Quota::per_second(rate))),
            transfers: settings.transfers,
            shares: Mutex::default(),
            unknown: Arc::new(Semaphore::new(OF_UNKNOWN_CALLERS)),
        }
    }

    /// Counts a request.
    ///
    /// # Errors
    /// The time to wait, where the subject has made too many.
    pub(super) fn count(&self, subject: &str) -> Result<(), Duration> {
        let Some(rate) = &self.rate else {
            return Ok(());
        };
        // governor 0.10.4 forgets no key by itself:
        // https://docs.rs/governor/0.10.4/governor/struct.RateLimiter.html#keyed-rate-limiters---housekeeping
        if rate.len() > MANY {
            rate.retain_recent();
        }
        rate.check_key(&subject.to_owned())
            .map_err(|early| early.wait_time_from(rate.clock().now()))
    }

    /// A permit for a request of an unknown caller, as long as there are not too many.
    pub(super) fn unknown(&self) -> Option<OwnedSemaphorePermit> {
        self.unknown.clone().try_acquire_owned().ok()
    }

    /// The transfers of a subject.
    pub(super) fn share(&self, subject: &str) -> Option<SubjectShare> {
        let most = self.transfers?;
        let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        if shares.len() > MANY {
            shares.retain(|_, share| Arc::strong_count(share) > 1);
        }
        let share = match shares.get(subject) {
            Some(share) => share.clone(),
            None => {
                let share = Share::new(most);
                shares.insert(subject.to_owned(), share.clone());
                share
            }
        };
        Some(SubjectShare(share))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_subject_has_a_rate_of_its_own() {
        let settings = SubjectSettings {
            requests_per_second: NonZeroU32::new(5),
            transfers: None,
        };
        let limits = SubjectLimits::new(&settings);
        for subject in ["token:a", "token:b"] {
            let admitted = (0..20).filter(|_| limits.count(subject).is_ok()).count();
            assert!((5..20).contains(&admitted), "{admitted}");
            let wait = limits.count(subject).expect_err("too many");
            assert!(wait <= Duration::from_millis(200), "{wait:?}");
        }
        assert!(limits.share("token:a").is_none());
        let none = SubjectLimits::new(&SubjectSettings::default());
        assert!((0..1000).all(|_| none.count("token:a").is_ok()));
    }

    #[test]
    fn the_transfers_of_a_subject_are_counted_on_all_connections() {
        let settings = SubjectSettings {
            requests_per_second: None,
            transfers: Some(1),
        };
        let limits = SubjectLimits::new(&settings);
        let share = |subject| limits.share(subject).expect("a share").0;
        let running = share("token:a").uploads.clone().try_acquire_owned();
        assert!(share("token:a").uploads.try_acquire().is_err());
        assert!(share("token:b").uploads.try_acquire().is_ok());
        drop(running);
        assert!(share("token:a").uploads.try_acquire().is_ok());
    }
}
