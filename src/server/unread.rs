//! Request bodies that were answered before their end.
//!
//! Many clients send a body to its end before they read. Were the connection closed under them, the
//! kernel would answer what they still send with a reset, which takes away the answer too. So the rest of
//! a body is read and dropped beside the answer, within limits of time, size and number. Beyond those an
//! HTTP/1 connection is closed slowly (`lingering`), and an HTTP/2 stream is reset.

use std::collections::HashMap;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, Version, header};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::connections::Busy;

/// Bodies that are dropped at the same time, of all clients and of the address of one.
const MOST: usize = 64;
const MOST_OF_A_PEER: usize = 8;
/// Frames that are there already are taken without a task.
const FEW_FRAMES: usize = 16;
/// The time for which a body is read on once the server is to stop.
const AT_THE_STOP: Duration = Duration::from_secs(2);

/// Bounds of the part of a body that is read and dropped.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    time: Duration,
    /// Without a byte.
    silence: Duration,
    /// Bytes.
    size: u64,
}

const BOUNDS: Bounds = Bounds {
    time: Duration::from_secs(30),
    // Some clients, Node's among them, leave off without a word once they have the answer.
    silence: Duration::from_secs(5),
    size: 16 << 30,
};

/// The bodies that a server reads and drops.
pub(crate) struct Discards {
    taken: Mutex<HashMap<IpAddr, usize>>,
    stop: CancellationToken,
}

/// A slot: the right to have one body read and dropped.
struct Slot {
    discards: Arc<Discards>,
    peer: IpAddr,
}

impl Discards {
    /// Bodies are not read much longer after `stop`.
    pub(crate) fn new(stop: CancellationToken) -> Arc<Self> {
        Arc::new(Self {
            taken: Mutex::default(),
            stop,
        })
    }

    /// The unread bodies of a new connection.
    pub(crate) fn connection(self: &Arc<Self>, peer: IpAddr, http2: bool) -> Arc<Unread> {
        Arc::new(Unread {
            discards: Arc::clone(self),
            peer: network(peer),
            http2,
            closes: AtomicBool::new(false),
            awaited: Mutex::default(),
        })
    }

    fn slot(self: &Arc<Self>, peer: IpAddr) -> Option<Slot> {
        let mut taken = self.taken();
        let all: usize = taken.values().sum();
        let own = taken.get(&peer).copied().unwrap_or(0);
        if all >= MOST || own >= MOST_OF_A_PEER {
            return None;
        }
        taken.insert(peer, own + 1);
        Some(Slot {
            discards: Arc::clone(self),
            peer,
        })
    }

    fn taken(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut taken = self.discards.taken();
        if let Some(own) = taken.get_mut(&self.peer) {
            *own -= 1;
            if *own == 0 {
                taken.remove(&self.peer);
            }
        }
    }
}

/// The address by which a client is known: with IPv6, one has a whole network.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6((address.to_bits() >> 64 << 64).into()),
        address => address,
    }
}

/// The unread bodies of one connection.
pub struct Unread {
    discards: Arc<Discards>,
    peer: IpAddr,
    http2: bool,
    /// Whether an HTTP/1 connection ends with its answer, since a body is left unread.
    closes: AtomicBool,
    /// The slot of a body that its client sends only when it is asked to, but may begin to.
    awaited: Mutex<Option<Slot>>,
}

/// The close of a connection that is not read to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Farewell {
    /// The time for which bytes that come are dropped.
    pub time: Duration,
    /// The time after which a silent connection is closed.
    pub silence: Duration,
}

impl Farewell {
    const SHORT: Self = Self {
        time: Duration::from_secs(2),
        silence: Duration::from_secs(2),
    };
}

impl Unread {
    /// Says in the answer that the connection ends with it, where it does.
    pub fn tell<B>(&self, response: &mut Response<B>) {
        if !self.http2 && self.closes.load(Ordering::Relaxed) {
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(header::CONNECTION, close);
        }
    }

    /// The bounds of a slow close of the connection, if it cannot be closed at once.
    pub fn farewell(&self) -> Option<Farewell> {
        let closes = self.closes.load(Ordering::Relaxed);
        // At a stop, connections are closed that have nothing under way.
        if self.http2 || !closes && self.discards.stop.is_cancelled() {
            return None;
        }
        let awaited = self.awaited.lock().unwrap_or_else(PoisonError::into_inner);
        Some(match *awaited {
            Some(_) => Farewell {
                time: BOUNDS.time,
                ..Farewell::SHORT
            },
            None => Farewell::SHORT,
        })
    }

    fn close(&self) {
        self.closes.store(true, Ordering::Relaxed);
    }
}

/// The body of a request. What is left of it when it is dropped is read and dropped too.
pub struct RequestBody {
    /// The body as hyper has it, until this one is dropped.
    incoming: Option<Incoming>,
    connection: Arc<Unread>,
    /// Whether the client waits for a sign to send the body, which hyper gives once the body is polled.
    awaits_sign: bool,
    ended: bool,
    /// The connection is not idle before the body is at its end, nor while it is dropped.
    busy: Busy,
}

impl RequestBody {
    /// The request with its body as one that knows its connection.
    pub fn of(request: Request<Incoming>, connection: Arc<Unread>, busy: Busy) -> Request<Self> {
        let awaits_sign = request.version() == Version::HTTP_11 && expects(request.headers());
        request.map(|incoming| Self {
            incoming: Some(incoming),
            connection,
            awaits_sign,
            ended: false,
            busy,
        })
    }
}

/// Whether a client waits for 100 (Continue), as hyper sees it.
fn expects(headers: &HeaderMap) -> bool {
    let expect = headers.get(header::EXPECT);
    expect.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        self.awaits_sign = false;
        let Some(incoming) = &mut self.incoming else {
            return Poll::Ready(None);
        };
        let frame = Pin::new(incoming).poll_frame(context);
        self.ended |= matches!(frame, Poll::Ready(None | Some(Err(_))));
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming
            .as_ref()
            .map_or(SizeHint::with_exact(0), Body::size_hint)
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        if self.ended || self.is_end_stream() {
            return;
        }
        if let Some(incoming) = self.incoming.take() {
            leave(incoming, &self.connection, self.awaits_sign, &self.busy);
        }
    }
}

/// Drops the rest of a body that nobody reads any more.
#[cold]
fn leave(mut body: Incoming, connection: &Arc<Unread>, awaits_sign: bool, busy: &Busy) {
    if awaits_sign {
        // Reading the body would be the sign. A client that waits no longer may send the body unasked.
        let slot = connection.discards.slot(connection.peer);
        *connection
            .awaited
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = slot;
        connection.close();
        return;
    }
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..FEW_FRAMES {
        match Pin::new(&mut body).poll_frame(&mut context) {
            Poll::Ready(Some(Ok(_))) => {}
            Poll::Ready(None | Some(Err(_))) => return,
            Poll::Pending => break,
        }
    }
    let fits = body.size_hint().lower() <= BOUNDS.size;
    let slot = fits.then(|| connection.discards.slot(connection.peer));
    match (slot.flatten(), Handle::try_current()) {
        (Some(slot), Ok(runtime)) => {
            let (connection, busy) = (Arc::clone(connection), busy.clone());
            runtime.spawn(async move {
                let _busy = busy;
                let stop = slot.discards.stop.clone();
                if !discard(&mut body, BOUNDS, &stop).await {
                    tracing::debug!("what is left of a request body is not read any longer");
                    connection.close();
                }
            });
        }
        _ => connection.close(),
    }
}

/// Reads a body and drops it. False where it did not end within its bounds.
async fn discard<B>(body: &mut B, bounds: Bounds, stop: &CancellationToken) -> bool
where
    B: Body<Data = Bytes> + Unpin,
{
    let reading = async {
        let mut taken = 0;
        loop {
            match tokio::time::timeout(bounds.silence, body.frame()).await {
                Ok(Some(Ok(frame))) => {
                    taken += frame.data_ref().map_or(0, Bytes::len) as u64;
                    if taken > bounds.size {
                        return false;
                    }
                }
                Ok(None | Some(Err(_))) => return true,
                Err(_) => return false,
            }
        }
    };
    let stopped = async {
        stop.cancelled().await;
        tokio::time::sleep(AT_THE_STOP).await;
    };
    tokio::select! {
        ended = tokio::time::timeout(bounds.time, reading) => ended.unwrap_or(false),
        () = stopped => false,
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream::{self, StreamExt};
    use http_body_util::StreamBody;

    use super::*;

    const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[test]
    fn no_more_bodies_are_dropped_than_there_are_slots() {
        let discards = Discards::new(CancellationToken::new());
        let mut slots: Vec<Slot> = (0..MOST_OF_A_PEER)
            .map(|_| discards.slot(PEER).expect("a slot"))
            .collect();
        assert!(discards.slot(PEER).is_none(), "one too many of a client");
        for other in 1.. {
            let address = IpAddr::from([10, 0, 0, other]);
            let Some(slot) = discards.slot(address) else {
                break;
            };
            slots.push(slot);
        }
        assert_eq!(slots.len(), MOST);
        slots.remove(0);
        assert!(discards.slot(PEER).is_some(), "what is left is free");
        drop(slots);
        assert!(discards.taken().is_empty());
    }

    #[test]
    fn a_client_is_known_by_its_network() {
        for (one, other, same) in [
            ("127.0.0.1", "::ffff:127.0.0.1", true),
            ("127.0.0.1", "127.0.0.2", false),
            ("2001:db8::1", "2001:db8::2:1", true),
            ("2001:db8::1", "2001:db8:0:1::1", false),
        ] {
            let network = |text: &str| super::network(text.parse().expect("an address"));
            assert_eq!(network(one) == network(other), same, "{one} {other}");
        }
    }

    #[tokio::test]
    async fn a_body_is_dropped_within_its_bounds() {
        let bounds = Bounds {
            time: Duration::from_millis(300),
            silence: Duration::from_millis(100),
            size: 1000,
        };
        let stop = CancellationToken::new();
        let piece = || Ok::<_, std::io::Error>(Frame::data(Bytes::from_static(&[0; 100])));
        let drop_all = async |pieces: usize, pause: Duration, ends: bool| {
            let body = stream::unfold(0, move |sent| async move {
                if sent == pieces {
                    return match ends {
                        true => None,
                        false => std::future::pending().await,
                    };
                }
                tokio::time::sleep(pause).await;
                Some((piece(), sent + 1))
            });
            discard(&mut StreamBody::new(body.boxed()), bounds, &stop).await
        };
        let at_once = Duration::ZERO;
        assert!(drop_all(0, at_once, true).await);
        assert!(drop_all(10, at_once, true).await, "as large as may be");
        assert!(!drop_all(11, at_once, true).await, "larger");
        assert!(!drop_all(1, at_once, false).await, "silent");
        let slow = Duration::from_millis(60);
        assert!(drop_all(2, slow, true).await, "slow");
        assert!(!drop_all(9, slow, true).await, "slow for too long");
    }
}
