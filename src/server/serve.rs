//! Serves the connections of all listeners: HTTP/1.1 and HTTP/2 on each, and a drain at the end.

use std::convert::Infallible;
use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{FutureExt, TryFutureExt, future};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower::BoxError;

use super::connections::{self, Activity, BusyBody, Connections};
use super::descriptors::Descriptors;
use super::handshake::{self, Complaints};
use super::lingering::Lingering;
use super::listener::{Accepted, Listener, Listeners};
use super::peer::{Peer, Share};
use super::small_writes::Connection;
use super::stalls::Told;
use super::stream::Socket;
use super::streams::{Executor, Streams};
use super::unread::{Discards, RequestBody};

/// A client that has not sent its headers by then is cut off.
const HEADERS_TIMEOUT: Duration = Duration::from_secs(30);
/// Idle HTTP/2 connections are asked whether they live.
const KEEP_ALIVE: Duration = Duration::from_secs(60);
/// Bytes that an HTTP/2 client may send ahead, on a stream and on a connection.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;

/// Requests that an HTTP/2 connection may have under way; it is told so.
const STREAMS: u32 = 200;
/// Bytes of the headers of a request over HTTP/2, uncompressed (RFC 9113, section 10.5.1).
const HTTP2_HEADERS: u32 = 16 << 10;
/// Streams that a client has reset before their request was taken up, as in a flood of resets (CVE-2023-44487), and
/// streams that the server has reset for an error of the client. A connection with more of them is ended.
const RESET_UNSEEN: usize = 20;
const RESET_FOR_ERRORS: usize = 1024;
/// The headers of a request over HTTP/1, and their bytes, which are also those that one read takes of a body: what a last
/// read brings beyond them still counts.
const HTTP1_HEADERS: usize = 100;
const HTTP1_BUFFER: usize = 64 << 10;

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
    /// The uploads, and the downloads, that one connection may have under way. Further uploads are
    /// refused, and further downloads wait.
    pub per_connection: usize,
    /// The connections at a time. Beyond them those are closed that have been idle for longest; where all are busy,
    /// the new one.
    pub connections: usize,
}

impl Default for TransferSettings {
    fn default() -> Self {
        Self {
            unread: Duration::from_secs(120),
            per_connection: 16,
            connections: 20_000,
        }
    }
}

/// Limits of time of a server.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// Requests, after the order to stop.
    pub drain: Duration,
    /// A connection without a request.
    pub idle: Duration,
}

/// Serves what `answer` answers until `stop`, then takes nothing new and lets what runs end, but no
/// longer than the time for that. Requests have a [`Peer`] among their extensions.
pub async fn serve<A, R, B>(
    listeners: Vec<Listener>,
    answer: A,
    stop: CancellationToken,
    times: Times,
    transfers: TransferSettings,
) where
    A: Fn(Request<RequestBody>) -> R + Clone + Send + 'static,
    R: Future<Output = Result<Response<B>, Infallible>> + Send + 'static,
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
{
    let listeners = Listeners::new(listeners);
    let complaints = Arc::<Complaints>::default();
    let connections = Connections::default();
    let discards = Discards::new(stop.clone());
    let mut descriptors = Descriptors::new(connections.clone(), transfers.connections);
    let mut tasks = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listeners.accept() => accepted,
            () = stop.cancelled() => break,
            Some(_) = tasks.join_next(), if !tasks.is_empty() => continue,
        };
        let accepted = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tokio::time::sleep(descriptors.not_accepted(&error)).await;
                continue;
            }
        };
        let activity = connections.open();
        descriptors.accepted();
        if let Socket::Tcp(socket) = &accepted.socket {
            prepare(socket);
        }
        let activity = (activity, times.idle);
        tasks.spawn(connection(
            accepted,
            answer.clone(),
            activity,
            Arc::clone(&discards),
            transfers.clone(),
            Arc::clone(&complaints),
        ));
    }
    drop(listeners);
    connections.close_all();
    let drained = async { while tasks.join_next().await.is_some() {} };
    if tokio::time::timeout(times.drain, drained).await.is_err() {
        tracing::warn!("requests were still running at the end of the drain; they are cut off");
    }
    tasks.shutdown().await;
}

/// Serves one connection to its end.
async fn connection<A, R, B>(
    accepted: Accepted,
    answer: A,
    (activity, idle): (Arc<Activity>, Duration),
    discards: Arc<Discards>,
    transfers: TransferSettings,
    complaints: Arc<Complaints>,
) where
    A: Fn(Request<RequestBody>) -> R + Clone + Send + 'static,
    R: Future<Output = Result<Response<B>, Infallible>> + Send + 'static,
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
{
    let Accepted {
        socket,
        address,
        reached,
        is_loopback,
        tls,
        only,
    } = accepted;
    if let Some(only) = only
        && !only.trusts(address)
    {
        complaints.no_proxy(address);
        return;
    }
    let limits = handshake::Limits {
        idle,
        headers: HEADERS_TIMEOUT,
        unread: transfers.unread,
    };
    let begin = handshake::begin(
        socket,
        tls.as_deref(),
        address,
        &activity,
        limits,
        &complaints,
    );
    let begun = tokio::select! {
        begun = begin => match begun {
            Some(begun) => begun,
            None => return,
        },
        () = activity.asked_to_close() => return,
    };
    let http2 = begun.http2;
    // Clients of Unix sockets share what one address may have.
    let ip = accepted
        .address
        .ip()
        .unwrap_or(Ipv4Addr::UNSPECIFIED.into());
    let unread = discards.connection(ip, http2);
    let peer = Peer {
        address,
        reached,
        is_loopback,
        is_tls: begun.is_tls,
        is_proxied: false,
        certificate: begun.certificate,
        share: Share::new(transfers.per_connection),
    };
    let (of_requests, of_bodies) = (activity.clone(), Arc::clone(&unread));
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let (answer, busy) = (answer.clone(), of_requests.request_came());
        let peer = peer.clone();
        let (unread, of) = (Arc::clone(&of_bodies), Arc::clone(&of_bodies));
        // Not before it is polled: what panics there does not end the connection.
        let answered = future::lazy(move |_| {
            let mut request = RequestBody::of(request, of, busy.clone());
            request.extensions_mut().insert(peer);
            let response = answer(request);
            response.map_ok(|response| response.map(|body| BusyBody::new(body, busy)))
        });
        answered.flatten().map_ok(move |mut response| {
            unread.tell(&mut response);
            response.map(|body| Told::new(body, http2))
        })
    });
    // HTTP/2 answers pings meanwhile; what is read there tells nothing of requests.
    let reads = (!http2).then(|| activity.clone());
    let stream = Lingering::new(Connection::new(begun.stream, !http2, reads), unread);
    let stream = TokioIo::new(stream);
    let streams = Streams::new(transfers.unread);
    let builder = builder(streams.executor());
    // From here on the version of HTTP is known.
    let builder = match http2 {
        true => builder.http2_only(),
        false => builder.http1_only(),
    };
    let served = builder.serve_connection(stream, service).into_owned();
    let times = connections::Times {
        idle,
        headers: HEADERS_TIMEOUT,
    };
    let watched = activity.watch(served, &times, |served| served.graceful_shutdown());
    if let Some(Err(error)) = streams.serve(watched).await {
        tracing::debug!(%error, "a connection broke off");
    }
}

/// Sets up a socket of the network. Replies are small and waited for.
fn prepare(socket: &TcpStream) {
    if let Err(error) = socket.set_nodelay(true) {
        tracing::debug!(%error, "a connection keeps Nagle's algorithm");
    }
    if let Err(error) = probe_peer(socket) {
        tracing::debug!(%error, "the peer of a connection will be noticed late to be gone");
    }
}

/// Sets the kernel to find out whether a peer is gone. A peer that is sent something is gone when it acknowledges
/// nothing for [`PEER_GONE`].
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
        // It would begin when the connection becomes idle; `connections` has the times.
        .header_read_timeout(None)
        .max_headers(HTTP1_HEADERS)
        .max_buf_size(HTTP1_BUFFER);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEP_ALIVE)
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(HTTP2_HEADERS)
        .max_pending_accept_reset_streams(RESET_UNSEEN)
        .max_local_error_reset_streams(RESET_FOR_ERRORS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW);
    builder
}
