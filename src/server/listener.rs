//! Listeners: the sockets on which connections arrive, of each kind.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use tokio::net::{TcpListener, UnixListener};

use super::peer::{Address, canonical};
use super::proxies::TrustedProxies;
use super::stream::Socket;
use crate::tls::Acceptor;

/// A socket that listens.
#[derive(Debug)]
pub struct Listener {
    socket: Listening,
    /// Whether only programs of this machine can connect.
    is_loopback: bool,
    tls: Option<Arc<Acceptor>>,
    /// The only peers that may connect.
    only: Option<Arc<TrustedProxies>>,
}

#[derive(Debug)]
enum Listening {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// A connection that was accepted.
pub(crate) struct Accepted {
    pub socket: Socket,
    pub address: Address,
    /// The address of this server that the client has connected to; none of a Unix socket.
    pub reached: Option<SocketAddr>,
    pub is_loopback: bool,
    pub tls: Option<Arc<Acceptor>>,
    /// The only peers that may be here.
    pub only: Option<Arc<TrustedProxies>>,
}

impl Listener {
    /// # Errors
    /// Those of the system, which does not know the address of the socket.
    pub fn tcp(socket: TcpListener) -> io::Result<Self> {
        let is_loopback = socket.local_addr()?.ip().to_canonical().is_loopback();
        Ok(Self {
            socket: Listening::Tcp(socket),
            is_loopback,
            tls: None,
            only: None,
        })
    }

    pub fn unix(socket: UnixListener) -> Self {
        Self {
            socket: Listening::Unix(socket),
            is_loopback: true,
            tls: None,
            only: None,
        }
    }

    /// The listener with TLS, if it is one of the network. A Unix socket has nobody to hide from.
    pub(crate) fn with_tls(mut self, tls: Arc<Acceptor>) -> Self {
        if let Listening::Tcp(_) = self.socket {
            self.tls = Some(tls);
        }
        self
    }

    /// The listener for these peers alone, if other machines reach it without TLS.
    pub(crate) fn only_for(mut self, proxies: Arc<TrustedProxies>) -> Self {
        if !self.is_loopback && self.tls.is_none() {
            self.only = Some(proxies);
        }
        self
    }

    fn poll_accept(&self, context: &mut Context<'_>) -> Poll<io::Result<Accepted>> {
        let (socket, address, reached) = match &self.socket {
            Listening::Tcp(socket) => match socket.poll_accept(context)? {
                Poll::Ready((socket, address)) => {
                    // A client that has gone already needs no address.
                    let reached = socket.local_addr().ok().map(canonical);
                    (Socket::Tcp(socket), Address::of(address), reached)
                }
                Poll::Pending => return Poll::Pending,
            },
            Listening::Unix(socket) => match socket.poll_accept(context)? {
                Poll::Ready((socket, _)) => (Socket::Unix(socket), Address::Unix, None),
                Poll::Pending => return Poll::Pending,
            },
        };
        Poll::Ready(Ok(Accepted {
            socket,
            address,
            reached,
            is_loopback: self.is_loopback,
            tls: self.tls.clone(),
            only: self.only.clone(),
        }))
    }
}

/// The listeners of a server, which have their turns one after another.
pub(crate) struct Listeners {
    all: Vec<Listener>,
    /// The listener that is asked first.
    next: AtomicUsize,
}

impl Listeners {
    pub(crate) fn new(all: Vec<Listener>) -> Self {
        Self {
            all,
            next: AtomicUsize::new(0),
        }
    }

    /// The next connection, of whichever listener.
    pub(crate) async fn accept(&self) -> io::Result<Accepted> {
        poll_fn(|context| {
            let first = self.next.fetch_add(1, Ordering::Relaxed);
            for offset in 0..self.all.len() {
                let at = first.wrapping_add(offset) % self.all.len();
                if let Poll::Ready(accepted) = self.all[at].poll_accept(context) {
                    return Poll::Ready(accepted);
                }
            }
            Poll::Pending
        })
        .await
    }
}
