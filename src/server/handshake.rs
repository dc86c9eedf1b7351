//! The beginning of a connection: a TLS handshake where the listener speaks TLS, and the version of HTTP.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::connections::Activity;
use super::occasionally::Occasionally;
use super::patient::Patient;
use super::peer::Address;
use super::stalls::Patience;
use super::stream::{Socket, Stream};
use crate::tls::Acceptor;

/// The preface of every HTTP/2 connection (RFC 9113, section 3.4).
const HTTP2_PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const PREFACE_PAUSE: Duration = Duration::from_millis(20);
/// The first byte of a TLS handshake (RFC 8446, section 5.1).
const TLS_HANDSHAKE: u8 = 22;

/// The answer to a client that speaks HTTP to a port of TLS.
const NOT_PLAIN: &[u8] =
    b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\ncontent-length: 53\r\n\
    connection: close\r\n\r\nThis port speaks TLS: use https in the address, too.\n";
/// The same to one that speaks HTTP/2 (RFC 9113, sections 6.5 and 6.8): settings, and the end of the connection with the
/// error INADEQUATE_SECURITY.
const NOT_PLAIN_HTTP2: &[u8] = b"\0\0\0\x04\0\0\0\0\0\
    \0\0\x1d\x07\0\0\0\0\0\0\0\0\0\0\0\0\x0cThis port speaks TLS.";
/// The bounds of what is read of such a client, so that it finds the answer.
const FAREWELL: Duration = Duration::from_secs(1);
const FAREWELL_BYTES: u64 = 64 << 10;

/// A connection that is ready for HTTP.
pub(crate) struct Begun {
    pub stream: Stream,
    pub http2: bool,
    pub is_tls: bool,
    /// The subject of the client's certificate.
    pub certificate: Option<Arc<str>>,
}

/// Limits of the beginning.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// The time until the first byte of a connection without TLS.
    pub idle: Duration,
    /// The time from the first byte until the version is known.
    pub headers: Duration,
    /// The time for which a peer may take nothing.
    pub unread: Duration,
}

/// Lines of the log that strangers cause.
#[derive(Debug, Default)]
pub(crate) struct Complaints {
    plain: Occasionally,
    tls: Occasionally,
    handshake: Occasionally,
    no_proxy: Occasionally,
}

impl Complaints {
    /// A peer was refused at a listener that is for trusted proxies alone.
    pub(crate) fn no_proxy(&self, address: Address) {
        if let Some(left_out) = self.no_proxy.may() {
            tracing::warn!(
                peer = %address,
                left_out,
                "a connection is refused: its peer is not among --trusted-proxy, and there is no TLS"
            );
        }
    }
}

/// Begins a connection; none where its client does not.
pub(crate) async fn begin(
    socket: Socket,
    tls: Option<&Acceptor>,
    address: Address,
    activity: &Activity,
    limits: Limits,
    complaints: &Complaints,
) -> Option<Begun> {
    let patience = Patience::new(limits.unread);
    match (socket, tls) {
        (Socket::Tcp(socket), Some(acceptor)) => {
            let handshake = handshake(socket, acceptor, patience, address, complaints);
            let Ok(begun) = tokio::time::timeout(acceptor.timeout, handshake).await else {
                tracing::debug!(peer = %address, "a TLS handshake took too long");
                return None;
            };
            begun
        }
        (socket, _) => {
            let version = version(&socket, activity, limits).await?;
            let http2 = match version {
                Version::Http1 => false,
                Version::Http2 => true,
                Version::Tls => {
                    if let Some(left_out) = complaints.tls.may() {
                        tracing::warn!(
                            peer = %address,
                            left_out,
                            "a client speaks TLS to a port without TLS: it must use http, or the server \
                             a certificate"
                        );
                    }
                    return None;
                }
            };
            Some(Begun {
                stream: socket.plain(patience),
                http2,
                is_tls: false,
                certificate: None,
            })
        }
    }
}

/// The TLS of a connection, with the version of HTTP that its client has chosen.
async fn handshake(
    socket: TcpStream,
    acceptor: &Acceptor,
    patience: Patience,
    address: Address,
    complaints: &Complaints,
) -> Option<Begun> {
    let mut first = [0; 4];
    // rustls would answer a client without TLS with an alert, which nobody understands.
    if socket.peek(&mut first).await.ok()? > 0 && first[0] != TLS_HANDSHAKE {
        if let Some(left_out) = complaints.plain.may() {
            tracing::warn!(
                peer = %address,
                left_out,
                "a client speaks without TLS to a port of TLS: it must use https"
            );
        }
        let answer = match HTTP2_PREFACE.starts_with(&first) {
            true => NOT_PLAIN_HTTP2,
            false => NOT_PLAIN,
        };
        let _ = tokio::time::timeout(FAREWELL, refuse_plain(socket, answer)).await;
        return None;
    }
    let accepted = acceptor.current().accept(Patient::new(socket, patience));
    let stream = match accepted.await {
        Ok(stream) => stream,
        Err(error) => {
            if let Some(left_out) = complaints.handshake.may() {
                tracing::info!(peer = %address, %error, left_out, "a TLS handshake failed");
            }
            return None;
        }
    };
    let (_, connection) = stream.get_ref();
    let http2 = connection.alpn_protocol() == Some(b"h2");
    let certificate = acceptor.subject(connection);
    Some(Begun {
        stream: Stream::Tls(Box::new(stream)),
        http2,
        is_tls: true,
        certificate,
    })
}

async fn refuse_plain(mut socket: TcpStream, answer: &[u8]) -> io::Result<()> {
    socket.write_all(answer).await?;
    socket.shutdown().await?;
    let mut rest = socket.take(FAREWELL_BYTES);
    tokio::io::copy(&mut rest, &mut tokio::io::sink()).await?;
    Ok(())
}

enum Version {
    Http1,
    Http2,
    Tls,
}

/// The protocol of a connection, as its first bytes tell; none where they do not come in time.
async fn version(socket: &Socket, activity: &Activity, limits: Limits) -> Option<Version> {
    // tokio may call a socket readable that is not, but bytes that are there are there.
    tokio::time::timeout(limits.idle, socket.peek(&mut [0]))
        .await
        .ok()?
        .ok()?;
    activity.bytes_came();
    let version = tokio::time::timeout(limits.headers, first_bytes(socket)).await;
    version.ok()?.ok()
}

/// Waits until a connection has sent enough to tell HTTP/2 from HTTP/1. The server's own look at
/// that has no time limit.
async fn first_bytes(socket: &Socket) -> io::Result<Version> {
    let mut start = [0; HTTP2_PREFACE.len()];
    loop {
        let length = socket.peek(&mut start).await?;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if start[0] == TLS_HANDSHAKE {
            return Ok(Version::Tls);
        }
        if !HTTP2_PREFACE.starts_with(&start[..length]) {
            return Ok(Version::Http1);
        }
        if length == start.len() {
            return Ok(Version::Http2);
        }
        // Bytes that are there make the next look return at once.
        tokio::time::sleep(PREFACE_PAUSE).await;
    }
}
