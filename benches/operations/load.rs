//! Keeps a server busy with calls of one method, and notes when each ended.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use futures_util::future::try_join_all;

use super::connection::{Call, Connection, Reply};

/// How many connections there are, and how many calls are under way on each.
#[derive(Clone, Copy)]
pub struct Shape {
    pub connections: usize,
    pub streams: usize,
}

/// The load with which the goals of throughput are measured.
pub const BUSY: Shape = Shape {
    connections: 16,
    streams: 64,
};
pub const ALONE: Shape = Shape {
    connections: 1,
    streams: 1,
};

/// Times and failures of the calls of one load.
#[derive(Default)]
pub struct Seen {
    /// In the order in which the calls ended.
    pub latencies: Vec<Duration>,
    pub took: Duration,
    /// The longest time in which no call ended on any stream.
    pub longest_gap: Duration,
    last: Option<Instant>,
}

impl Seen {
    pub fn per_second(&self) -> f64 {
        self.latencies.len() as f64 / self.took.as_secs_f64()
    }

    fn note(&mut self, reply: &Reply, now: Instant) {
        self.latencies.push(now - reply.sent);
        if let Some(last) = self.last.replace(now) {
            self.longest_gap = self.longest_gap.max(now - last);
        }
    }
}

/// Calls until `next` has no more calls, and gives each reply to `ended`.
pub async fn run(
    address: SocketAddr,
    path: &str,
    shape: Shape,
    next: impl FnMut() -> Option<Call>,
    ended: impl FnMut(&[u8]),
) -> io::Result<Seen> {
    let next = RefCell::new(next);
    let ended = RefCell::new(ended);
    let seen = RefCell::new(Seen::default());
    let connections = (0..shape.connections).map(|_| Connection::connect(address, path));
    let connections = try_join_all(connections).await?;
    let started = Instant::now();
    let calls = (&next, &ended, &seen);
    let busy = connections.into_iter().map(|mut connection| async move {
        let (next, ended, seen) = calls;
        let mut replies = Vec::new();
        for call in std::iter::from_fn(|| next.borrow_mut()()).take(shape.streams) {
            connection.call(&call);
        }
        while connection.open() > 0 {
            connection.flush().await?;
            connection.receive(&mut replies).await?;
            let now = Instant::now();
            for reply in replies.drain(..) {
                seen.borrow_mut().note(&reply, now);
                ended.borrow_mut()(&reply.message);
                if let Some(call) = next.borrow_mut()() {
                    connection.call(&call);
                }
            }
        }
        Ok::<_, io::Error>(())
    });
    try_join_all(busy).await?;
    let mut seen = seen.into_inner();
    seen.took = started.elapsed();
    Ok(seen)
}

/// Makes calls with `call` for some time.
pub fn during(time: Duration, mut call: impl FnMut() -> Call) -> impl FnMut() -> Option<Call> {
    let end = Instant::now() + time;
    move || (Instant::now() < end).then(&mut call)
}
