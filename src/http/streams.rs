//! The requests of a connection, in the connection's own task.
//!
//! hyper asks an executor to run each request of an HTTP/2 connection. With a task for each, one that
//! ends wakes the connection, which writes its reply, and so every reply costs a change of tasks, perhaps
//! of threads, and a system call. Here all requests that have something to do are polled one after
//! another, and what they answered leaves in one write.
//!
//! Requests of one connection so share a core, while they are short: reads and writes of the store have
//! threads of their own. One that goes on for long, as the bytes of an image do, gets a task of its own.

use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::future::poll_fn;
use futures_util::stream::FuturesUnordered;
use futures_util::task::AtomicWaker;
use futures_util::{FutureExt, StreamExt};
use hyper::rt::Executor;
use tokio::task::coop::has_budget_remaining;

/// A request that is polled more often than that gets a task of its own. A call is polled at most a few
/// times: when it arrives, when the store has answered, when its reply is sent.
const FEW_POLLS: usize = 32;

/// Requests that have arrived and are not polled yet. Cheap to clone; all clones share them.
#[derive(Clone, Default)]
pub struct Streams(Arc<Mutex<Vec<Stream>>>);

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Streams {
    fn execute(&self, request: F) {
        let stream = Stream {
            request: Some(Box::pin(request)),
            polls: 0,
        };
        self.with(|arrived| arrived.push(stream));
    }
}

impl Streams {
    fn with<T>(&self, change: impl FnOnce(&mut Vec<Stream>) -> T) -> T {
        // Nothing panics while it holds this lock.
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Serves the connection that has these streams, to its end. What still runs then is dropped, but
    /// for what has a task of its own.
    pub async fn serve<C: Future>(self, connection: C) -> C::Output {
        let mut connection = pin!(connection);
        let mut running = FuturesUnordered::new();
        let wakes = Arc::new(Wakes::default());
        let waker = Waker::from(Arc::clone(&wakes));
        poll_fn(|context| {
            wakes.task.register(context.waker());
            let mut own = Context::from_waker(&waker);
            loop {
                wakes.begin();
                if let Poll::Ready(output) = connection.as_mut().poll(&mut own) {
                    return Poll::Ready(output);
                }
                self.with(|arrived| running.extend(arrived.drain(..)));
                while let Poll::Ready(Some(())) = running.poll_next_unpin(&mut own) {}
                if wakes.end() {
                    return Poll::Pending;
                }
                if !has_budget_remaining() {
                    context.waker().wake_by_ref();
                    return Poll::Pending;
                }
            }
        })
        .await
    }
}

/// Tells a task that is being polled of what has woken it meanwhile, as each reply does that is to be
/// written. The runtime would put it behind other tasks and wake a thread for it.
#[derive(Default)]
struct Wakes {
    state: AtomicU8,
    task: AtomicWaker,
}

const IDLE: u8 = 0;
const POLLED: u8 = 1;
const WOKEN: u8 = 2;

impl Wakes {
    fn begin(&self) {
        self.state.store(POLLED, Ordering::SeqCst);
    }

    /// Whether nothing has woken the task since it began.
    fn end(&self) -> bool {
        self.state
            .compare_exchange(POLLED, IDLE, Ordering::SeqCst, Ordering::SeqCst)
            .is_ok()
    }
}

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.state.swap(WOKEN, Ordering::SeqCst) == IDLE {
            self.task.wake();
        }
    }
}

/// One request.
struct Stream {
    /// Until it ends, or has a task of its own.
    request: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    polls: usize,
}

impl Future for Stream {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let Some(mut request) = self.request.take() else {
            return Poll::Ready(());
        };
        self.polls += 1;
        if self.polls > FEW_POLLS {
            tokio::spawn(request);
            return Poll::Ready(());
        }
        let mut polled = AssertUnwindSafe(request.as_mut());
        // One that panics ends, as its task would, and not all of its connection.
        match std::panic::catch_unwind(AssertUnwindSafe(|| polled.poll_unpin(context))) {
            Ok(Poll::Pending) => {
                self.request = Some(request);
                Poll::Pending
            }
            Ok(Poll::Ready(())) | Err(_) => Poll::Ready(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::sync::atomic::AtomicUsize;
    use std::time::Duration;

    use tokio::sync::oneshot;

    use super::*;

    const BOUND: Duration = Duration::from_secs(30);

    async fn bounded<F: Future>(future: F) -> F::Output {
        let ended = tokio::time::timeout(BOUND, future).await;
        ended.expect("it ends")
    }

    #[tokio::test]
    async fn requests_run_until_their_connection_ends() {
        let streams = Streams::default();
        let (ended, waits) = oneshot::channel();
        let (first, second) = oneshot::channel::<()>();
        let (own, dropped) = oneshot::channel::<()>();
        let executor = streams.clone();
        let connection = async move {
            executor.execute(async { panic!("as it should") });
            executor.execute(async move {
                // Keeps its half of the channel until it is dropped.
                let _own = own;
                pending().await
            });
            // Arrives before what it waits for.
            executor.execute(async move { ended.send(second.await).expect("it is awaited") });
            tokio::task::yield_now().await;
            executor.execute(async move { first.send(()).expect("it is awaited") });
            waits.await
        };
        assert_eq!(bounded(streams.serve(connection)).await, Ok(Ok(())));
        assert!(
            bounded(dropped).await.is_err(),
            "dropped with its connection"
        );
    }

    #[tokio::test]
    async fn one_that_goes_on_gets_a_task_of_its_own() {
        let streams = Streams::default();
        let polls = Arc::new(AtomicUsize::new(0));
        let (ended, waits) = oneshot::channel();
        let (executor, counted) = (streams.clone(), Arc::clone(&polls));
        let request = async move {
            for _ in 0..2 * FEW_POLLS {
                counted.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
            }
            ended.send(tokio::task::id()).expect("it is awaited");
        };
        let connection = async move {
            executor.execute(request);
            (tokio::task::id(), waits.await)
        };
        let (own, others) = bounded(tokio::spawn(streams.serve(connection)))
            .await
            .expect("no panic");
        assert_ne!(others.expect("it ends"), own);
        assert_eq!(polls.load(Ordering::Relaxed), 2 * FEW_POLLS);
    }
}
