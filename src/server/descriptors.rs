//! File descriptors: as many as the system lets this process have, and what is done when they run short.

use std::io;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::connections::Connections;

/// The pause after a failure to accept where nothing could be done about it.
const PAUSE: Duration = Duration::from_millis(100);
/// The pause after a failure to accept where idle connections were asked to close: they are about to.
const SHORT_PAUSE: Duration = Duration::from_millis(5);
/// The interval at which a shortage that lasts is logged.
const TOLD_EVERY: Duration = Duration::from_secs(60);

/// Raises the soft limit of descriptors to the hard one. The soft limit is low for the sake of programs that
/// use `select`.
pub(crate) fn raise_limit() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum || limit.current.is_none() {
        return;
    }
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => tracing::info!(
            from = limit.current,
            to = limit.maximum,
            "the limit of file descriptors is raised"
        ),
        Err(error) => tracing::warn!(%error, "the limit of file descriptors stays"),
    }
}

/// The guard of the descriptors: closes idle connections, so that new connections and files have some.
pub(crate) struct Descriptors {
    connections: Connections,
    /// The number of connections from which on idle ones are closed for new ones.
    enough: usize,
    /// The time at which a shortage was logged last.
    told: Option<Instant>,
}

impl Descriptors {
    /// The guard of at most `most` connections.
    pub(crate) fn new(connections: Connections, most: usize) -> Self {
        let limit = getrlimit(Resource::Nofile).current;
        let limit = limit.map_or(usize::MAX, |it| usize::try_from(it).unwrap_or(usize::MAX));
        // The reserve is for the database, whose readers each have a few, and for the bytes of images.
        let reserve = (limit / 4).clamp(32, 1024);
        Self {
            connections,
            enough: limit.saturating_sub(reserve).max(8).min(most),
            told: None,
        }
    }

    /// Closes idle connections where there are too many after one was accepted.
    pub(crate) fn accepted(&mut self) {
        let count = self.connections.count();
        if count > self.enough {
            let closed = self.connections.close_idle(count - self.enough);
            tracing::debug!(count, closed, "idle connections are closed for new ones");
        }
    }

    /// The pause before the next try after a failure to accept.
    pub(crate) fn not_accepted(&mut self, error: &io::Error) -> Duration {
        tracing::debug!(%error, "a connection was not accepted");
        let errno = Errno::from_io_error(error);
        if !matches!(
            errno,
            Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM)
        ) {
            // The client's: it went away meanwhile.
            return Duration::ZERO;
        }
        let count = self.connections.count();
        // Some at a time, since to look for them means to look at all.
        let closed = self.connections.close_idle(1 + count / 16);
        if self.told.is_none_or(|told| told.elapsed() >= TOLD_EVERY) {
            self.told = Some(Instant::now());
            tracing::warn!(
                %error,
                connections = count,
                closed,
                "no connection can be accepted; idle ones are closed (said once a minute at the most)"
            );
        }
        if closed > 0 { SHORT_PAUSE } else { PAUSE }
    }
}
