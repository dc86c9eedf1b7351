//! The connections that are open: which are idle, since when, and how they are asked to close.
//!
//! A connection is idle while it has no request. It is kept for the idle timeout then, unless descriptors run
//! short: those that were idle for longest are closed first. From the first byte of a request on its headers
//! have a time of their own.

use std::collections::HashMap;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Buf;
use futures_util::task::AtomicWaker;
use http_body::{Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::time::Instant;

/// Once a connection is asked to close, it has this long to do so as soon as it is idle.
const CLOSING: Duration = Duration::from_secs(5);

/// All connections of a server. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Connections {
    inner: Arc<Inner>,
}

struct Inner {
    all: Mutex<HashMap<u64, Arc<State>>>,
    next: AtomicU64,
    /// Connections that are about to release their descriptors.
    needed: AtomicUsize,
    /// The time from which all times are kept as milliseconds.
    epoch: Instant,
}

/// The activity of a connection, shared by all that touches the connection.
pub(crate) struct Activity {
    id: u64,
    state: Arc<State>,
    connections: Connections,
}

#[derive(Default)]
struct State {
    /// Bodies and answers that are under way.
    busy: AtomicUsize,
    /// The time at which the last of the bodies and answers ended.
    idle_since: AtomicU64,
    /// When the first byte of a request came whose headers have not all come; zero where there is none.
    head_began: AtomicU64,
    to_close: AtomicBool,
    /// Whether the descriptor of the connection is needed at once.
    is_needed: AtomicBool,
    task: AtomicWaker,
}

impl State {
    fn is_idle(&self) -> bool {
        self.busy.load(Ordering::Acquire) == 0 && self.head_began.load(Ordering::Relaxed) == 0
    }

    fn close(&self) {
        self.to_close.store(true, Ordering::Release);
        self.task.wake();
    }
}

impl Default for Connections {
    fn default() -> Self {
        Self {
            inner: Arc::new(Inner {
                all: Mutex::default(),
                next: AtomicU64::new(0),
                needed: AtomicUsize::new(0),
                epoch: Instant::now(),
            }),
        }
    }
}

impl Connections {
    /// A new connection, idle from now on. It is one of these until it is dropped.
    pub(crate) fn open(&self) -> Arc<Activity> {
        let state = Arc::<State>::default();
        state.idle_since.store(self.now(), Ordering::Relaxed);
        let id = self.inner.next.fetch_add(1, Ordering::Relaxed);
        self.all().insert(id, state.clone());
        Arc::new(Activity {
            id,
            state,
            connections: self.clone(),
        })
    }

    /// The number of connections, but for those that were asked to make way.
    pub(crate) fn count(&self) -> usize {
        let needed = self.inner.needed.load(Ordering::Relaxed);
        self.all().len().saturating_sub(needed)
    }

    /// Asks those connections to close that have been idle for longest, at most `count` of them; how many
    /// they were.
    pub(crate) fn close_idle(&self, count: usize) -> usize {
        let all = self.all();
        let mut idle: Vec<_> = all
            .iter()
            .filter(|(_, state)| state.is_idle() && !state.to_close.load(Ordering::Relaxed))
            .map(|(id, state)| (state.idle_since.load(Ordering::Relaxed), id, state))
            .collect();
        // Of those that came in one millisecond the first one goes first: a new one has had no time to ask.
        idle.sort_unstable_by_key(|(since, id, _)| (*since, **id));
        idle.truncate(count);
        for (_, _, state) in &idle {
            state.is_needed.store(true, Ordering::Relaxed);
            state.close();
        }
        self.inner.needed.fetch_add(idle.len(), Ordering::Relaxed);
        idle.len()
    }

    /// Asks all connections to close once what they do is done.
    pub(crate) fn close_all(&self) {
        for state in self.all().values() {
            state.close();
        }
    }

    /// The present time as it is kept; never zero.
    fn now(&self) -> u64 {
        let since = self.inner.epoch.elapsed().as_millis();
        u64::try_from(since).unwrap_or(u64::MAX - 1) + 1
    }

    fn instant(&self, time: u64) -> Instant {
        self.inner.epoch + Duration::from_millis(time.saturating_sub(1))
    }

    fn all(&self) -> MutexGuard<'_, HashMap<u64, Arc<State>>> {
        let all = &self.inner.all;
        all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Activity {
    /// Bytes have come. Those that come while the connection does nothing begin a request.
    pub(crate) fn bytes_came(&self) {
        if self.state.is_idle() {
            let now = self.connections.now();
            self.state.head_began.store(now, Ordering::Relaxed);
        }
    }

    /// A request has come whose headers are there. The connection is busy as long as the guard, or one that
    /// was made of it, lives.
    pub(crate) fn request_came(self: &Arc<Self>) -> Busy {
        let busy = Busy::new(self.clone());
        self.state.head_began.store(0, Ordering::Relaxed);
        busy
    }

    /// Whether the connection was asked to close.
    pub(crate) fn is_to_close(&self) -> bool {
        self.state.to_close.load(Ordering::Acquire)
    }

    /// Returns once the connection is asked to close.
    pub(crate) async fn asked_to_close(&self) {
        poll_fn(|context| {
            self.state.task.register(context.waker());
            match self.is_to_close() {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        })
        .await;
    }

    /// Runs a connection until it ends or exceeds a limit of time. `close` asks the connection to end once its
    /// requests are done.
    pub(crate) async fn watch<C: Future>(
        &self,
        connection: C,
        times: &Times,
        close: impl Fn(Pin<&mut C>),
    ) -> Option<C::Output> {
        let mut connection = pin!(connection);
        let mut timer = pin!(tokio::time::sleep(times.idle));
        let mut closing: Option<Instant> = None;
        poll_fn(|context| {
            self.state.task.register(context.waker());
            if let Poll::Ready(ended) = connection.as_mut().poll(context) {
                return Poll::Ready(Some(ended));
            }
            loop {
                let now = Instant::now();
                let (deadline, what) = self.deadline(times, closing, now);
                let is_over = deadline <= now;
                let close_now =
                    closing.is_none() && (self.is_to_close() || (is_over && what == What::Idle));
                if close_now {
                    closing = Some(now);
                    close(connection.as_mut());
                    if let Poll::Ready(ended) = connection.as_mut().poll(context) {
                        return Poll::Ready(Some(ended));
                    }
                    // A slow farewell is for those who may still send.
                    let is_needed = self.state.is_needed.load(Ordering::Relaxed);
                    if is_needed && self.state.is_idle() {
                        return Poll::Ready(None);
                    }
                    continue;
                }
                if is_over && what != What::Look {
                    return Poll::Ready(None);
                }
                // A later deadline is seen when the timer ends.
                if timer.is_elapsed() || deadline < timer.deadline() {
                    let next = deadline.max(now + Duration::from_millis(1));
                    timer.as_mut().reset(next);
                }
                if timer.as_mut().poll(context).is_pending() {
                    return Poll::Pending;
                }
            }
        })
        .await
    }

    /// The next check of the connection, and its time.
    fn deadline(&self, times: &Times, closing: Option<Instant>, now: Instant) -> (Instant, What) {
        let head_began = self.state.head_began.load(Ordering::Relaxed);
        let is_busy = self.state.busy.load(Ordering::Acquire) > 0;
        if head_began > 0 && !is_busy {
            let began = self.connections.instant(head_began);
            return (began + times.headers, What::Headers);
        }
        if is_busy {
            // An end wakes nobody.
            return (now + times.idle.min(CLOSING), What::Look);
        }
        let since = self.state.idle_since.load(Ordering::Relaxed);
        let since = self.connections.instant(since);
        match closing {
            Some(asked) => (asked.max(since) + CLOSING, What::Closing),
            None => (since + times.idle, What::Idle),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Headers,
    Idle,
    Closing,
    /// A look at the connection, at which nothing ends.
    Look,
}

impl Drop for Activity {
    fn drop(&mut self) {
        self.connections.all().remove(&self.id);
        if self.state.is_needed.load(Ordering::Relaxed) {
            self.connections
                .inner
                .needed
                .fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// The limits of time of a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    /// The limit between two requests.
    pub idle: Duration,
    /// The limit from the first byte of a request to the end of its headers.
    pub headers: Duration,
}

/// Keeps a connection from being idle.
pub struct Busy(Arc<Activity>);

impl Busy {
    fn new(activity: Arc<Activity>) -> Self {
        activity.state.busy.fetch_add(1, Ordering::AcqRel);
        Self(activity)
    }
}

impl Clone for Busy {
    fn clone(&self) -> Self {
        Self::new(self.0.clone())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let state = &self.0.state;
        state
            .idle_since
            .store(self.0.connections.now(), Ordering::Relaxed);
        state.busy.fetch_sub(1, Ordering::AcqRel);
    }
}

pin_project! {
    /// A body whose connection is busy as long as it lives.
    pub struct BusyBody<B> {
        #[pin]
        body: B,
        busy: Busy,
    }
}

impl<B> BusyBody<B> {
    pub(crate) fn new(body: B, busy: Busy) -> Self {
        Self { body, busy }
    }
}

impl<B> http_body::Body for BusyBody<B>
where
    B: http_body::Body<Data: Buf>,
{
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        self.project().body.poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    const TIMES: Times = Times {
        idle: Duration::from_millis(300),
        headers: Duration::from_millis(100),
    };
    const BOUND: Duration = Duration::from_secs(60);

    /// Runs a connection that never ends by itself; how long it lived, and whether it was asked to end.
    async fn ended(activity: &Activity) -> (Duration, bool) {
        let (begun, asked) = (Instant::now(), AtomicBool::new(false));
        let close = |_: Pin<&mut _>| asked.store(true, Ordering::Relaxed);
        let watched = activity.watch(pending(), &TIMES, close);
        let output: Option<()> = tokio::time::timeout(BOUND, watched).await.expect("it ends");
        assert_eq!(output, None);
        (begun.elapsed(), asked.into_inner())
    }

    #[tokio::test]
    async fn an_idle_connection_is_kept_for_its_time_and_then_asked_to_close() {
        let connections = Connections::default();
        let activity = connections.open();
        let (lived, asked) = ended(&activity).await;
        assert!(
            lived >= TIMES.idle + CLOSING - Duration::from_millis(5),
            "{lived:?}"
        );
        assert!(asked);
        drop(activity);
        assert_eq!(connections.count(), 0);
    }

    #[tokio::test]
    async fn headers_have_a_time_from_their_first_byte_on() {
        let activity = Connections::default().open();
        let begin = async {
            tokio::time::sleep(TIMES.headers).await;
            activity.bytes_came();
            // The task that reads them is that of the connection.
            activity.state.task.wake();
            for _ in 0..1000 {
                tokio::time::sleep(TIMES.headers / 10).await;
                // More of the same request.
                activity.bytes_came();
            }
        };
        let (lived, asked) = tokio::select! {
            ended = ended(&activity) => ended,
            () = begin => panic!("the headers had no end"),
        };
        assert!(
            lived >= 2 * TIMES.headers - Duration::from_millis(5),
            "{lived:?}"
        );
        assert!(!asked, "there is nothing to wait for");
    }

    #[tokio::test]
    async fn a_request_keeps_its_connection_as_long_as_it_takes() {
        let activity = Connections::default().open();
        activity.bytes_came();
        let busy = activity.request_came();
        let body = busy.clone();
        tokio::spawn(async move {
            tokio::time::sleep(2 * TIMES.idle).await;
            drop(busy);
            tokio::time::sleep(2 * TIMES.idle).await;
            drop(body);
        });
        let (lived, asked) = ended(&activity).await;
        let least = 5 * TIMES.idle + CLOSING - Duration::from_millis(5);
        assert!(lived >= least && asked, "{lived:?}");
    }

    #[tokio::test]
    async fn those_that_were_idle_for_longest_are_closed_first() {
        let connections = Connections::default();
        let activities: Vec<_> = (0..4).map(|_| connections.open()).collect();
        for number in [3, 1, 0, 2] {
            drop(activities[number].request_came());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let busy = activities[1].request_came();
        activities[2].bytes_came();
        let to_close = || {
            activities
                .iter()
                .map(|it| it.is_to_close())
                .collect::<Vec<_>>()
        };
        assert_eq!(connections.close_idle(1), 1);
        assert_eq!(to_close(), [false, false, false, true]);
        assert_eq!(connections.close_idle(10), 1);
        assert_eq!(to_close(), [true, false, false, true]);
        assert_eq!(
            connections.close_idle(10),
            0,
            "what has a request is not idle"
        );
        drop(busy);
    }
}
