//! The listener: HTTP/1.1 and HTTP/2 without TLS on one port, and a drain at the end.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{FutureExt, TryFutureExt, future};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower::BoxError;

use super::lingering::Lingering;
use super::small_writes::Connection;
use super::stalls::{Patience, Told};
use super::streams::{Executor, Streams};
use super::unread::{Discards, RequestBody};

/// A client that has not sent its headers by then is cut off.
const HEADERS_TIMEOUT: Duration = Duration::from_secs(30);
/// Idle HTTP/2 connections are asked whether they live.
const KEEP_ALIVE: Duration = Duration::from_secs(60);
/// Bytes that an HTTP/2 client may send ahead, on a stream and on a connection.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;
/// After a failure to accept, as when no file descriptor is left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How every HTTP/2 connection starts (RFC 9113, section 3.4).
const HTTP2_PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const PREFACE_PAUSE: Duration = Duration::from_millis(20);

/// A peer that is silent is asked whether it lives, and one that answers nothing, neither that nor what is
/// sent to it, is gone after [`PEER_GONE`]: no reply is kept for it.
const PROBE_AFTER: Duration = Duration::from_secs(30);
const PROBE_INTERVAL: Duration = Duration::from_secs(10);
const PEER_GONE: Duration = Duration::from_secs(120);

/// Limits of what comes and goes on connections.
#[derive(Debug, Clone)]
pub struct TransferSettings {
    /// A reply of which its client takes nothing for so long is cut off.
    pub unread: Duration,
    /// How many uploads, and how many downloads, one connection may have under way. Further uploads are
    /// refused, and further downloads wait.
    pub per_connection: usize,
}

impl Default for TransferSettings {
    fn default() -> Self {
        Self {
            unread: Duration::from_secs(120),
            per_connection: 16,
        }
    }
}

/// Facts of the connection that a request came on, in its extensions.
#[derive(Debug, Clone)]
pub struct Peer {
    pub address: std::net::SocketAddr,
    /// What the transfers of the connection have of it.
    pub share: Arc<Share>,
}

/// How many more transfers a connection may have.
#[derive(Debug)]
pub struct Share {
    pub uploads: Arc<Semaphore>,
    pub downloads: Arc<Semaphore>,
}

impl Share {
    fn new(settings: &TransferSettings) -> Arc<Self> {
        let most = || Arc::new(Semaphore::new(settings.per_connection));
        Arc::new(Self {
            uploads: most(),
            downloads: most(),
        })
    }
}

/// Serves what `answer` answers until `stop`, then takes nothing new and lets what runs end, but no
/// longer than `drain_timeout`. Requests have a [`Peer`] among their extensions.
pub async fn serve<A, R, B>(
    listener: TcpListener,
    answer: A,
    stop: CancellationToken,
    drain_timeout: Duration,
    transfers: TransferSettings,
) where
    A: Fn(Request<RequestBody>) -> R + Clone + Send + 'static,
    R: Future<Output = Result<Response<B>, Infallible>> + Send + 'static,
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
{
    let graceful = GracefulShutdown::new();
    let discards = Discards::new(stop.clone());
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "no connection could be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // Replies are small and waited for.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "a connection keeps Nagle's algorithm");
        }
        if let Err(error) = probe_peer(&stream) {
            tracing::debug!(%error, "the peer of a connection will be noticed late to be gone");
        }
        let (answer, discards) = (answer.clone(), Arc::clone(&discards));
        let patience = transfers.unread;
        let peer = Peer {
            address,
            share: Share::new(&transfers),
        };
        let (watcher, stop) = (graceful.watcher(), stop.clone());
        connections.spawn(async move {
            let http2 = tokio::select! {
                version = tokio::time::timeout(HEADERS_TIMEOUT, is_http2(&stream)) => {
                    match version {
                        Ok(Ok(http2)) => http2,
                        _ => return,
                    }
                }
                () = stop.cancelled() => return,
            };
            let unread = discards.connection(address.ip(), http2);
            let stream = Lingering::new(
                Connection::new(stream, !http2, Patience::new(patience)),
                Arc::clone(&unread),
            );
            let stream = TokioIo::new(stream);
            let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                let (answer, unread) = (answer.clone(), Arc::clone(&unread));
                let peer = peer.clone();
                let of = Arc::clone(&unread);
                // Not before it is polled: what panics there does not end the connection.
                let answered = future::lazy(move |_| {
                    let mut request = RequestBody::of(request, of);
                    request.extensions_mut().insert(peer);
                    answer(request)
                });
                answered.flatten().map_ok(move |mut response| {
                    unread.tell(&mut response);
                    response.map(|body| Told::new(body, http2))
                })
            });
            let streams = Streams::new(patience);
            let builder = builder(streams.executor());
            let connection = builder.serve_connection(stream, service);
            let connection = watcher.watch(connection.into_owned());
            if let Err(error) = streams.serve(connection).await {
                tracing::debug!(%error, "a connection broke off");
            }
        });
    }
    drop(listener);
    if tokio::time::timeout(drain_timeout, graceful.shutdown())
        .await
        .is_err()
    {
        tracing::warn!("requests were still running at the end of the drain; they are cut off");
    }
    connections.shutdown().await;
}

/// Has the kernel find out whether a peer is gone. Of one that is sent something, only that it acknowledges
/// nothing for [`PEER_GONE`] tells.
fn probe_peer(stream: &TcpStream) -> io::Result<()> {
    let socket = SockRef::from(stream);
    let probes = TcpKeepalive::new()
        .with_time(PROBE_AFTER)
        .with_interval(PROBE_INTERVAL);
    socket.set_tcp_keepalive(&probes)?;
    socket.set_tcp_user_timeout(Some(PEER_GONE))
}

fn builder(executor: Executor) -> Builder<Executor> {
    let mut builder = Builder::new(executor);
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_TIMEOUT);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEP_ALIVE)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW);
    builder
}

/// Waits until a connection has sent enough to tell HTTP/2 from HTTP/1. The server's own look at
/// that has no time limit.
async fn is_http2(stream: &TcpStream) -> io::Result<bool> {
    let mut start = [0; HTTP2_PREFACE.len()];
    loop {
        let length = stream.peek(&mut start).await?;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if !HTTP2_PREFACE.starts_with(&start[..length]) {
            return Ok(false);
        }
        if length == start.len() {
            return Ok(true);
        }
        // What is there makes the next look return at once.
        tokio::time::sleep(PREFACE_PAUSE).await;
    }
}
