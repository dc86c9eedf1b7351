//! Listeners: the sockets on which connections arrive, of each kind.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use tokio::net::{TcpListener, UnixListener};

use super::stream::Socket;
use crate::tls::Acceptor;

/// A socket that listens.
#[derive(Debug)]
pub struct Listener {
    socket: Listening,
    /// Whether only programs of this machine can connect.
    is_loopback: bool,
    tls: Option<Arc<Acceptor>>,
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
    pub is_loopback: bool,
    pub tls: Option<Arc<Acceptor>>,
}

/// The address of the client of a connection, or of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Address {
    /// A socket of the network.
    Tcp(SocketAddr),
    /// A Unix socket, whose clients have no address.
    Unix,
}

impl Address {
    pub(crate) fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Tcp(address) => Some(address.ip()),
            Self::Unix => None,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(formatter),
            Self::Unix => formatter.write_str("unix"),
        }
    }
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
        })
    }

    pub fn unix(socket: UnixListener) -> Self {
        Self {
            socket: Listening::Unix(socket),
            is_loopback: true,
            tls: None,
        }
    }

    /// The listener with TLS, if it is one of the network. A Unix socket has nobody to hide from.
    pub(crate) fn with_tls(mut self, tls: Arc<Acceptor>) -> Self {
        if let Listening::Tcp(_) = self.socket {
            self.tls = Some(tls);
        }
        self
    }

    fn poll_accept(&self, context: &mut Context<'_>) -> Poll<io::Result<Accepted>> {
        let (socket, address) = match &self.socket {
            Listening::Tcp(socket) => match socket.poll_accept(context)? {
                Poll::Ready((socket, address)) => {
                    (Socket::Tcp(socket), Address::Tcp(unmapped(address)))
                }
                Poll::Pending => return Poll::Pending,
            },
            Listening::Unix(socket) => match socket.poll_accept(context)? {
                Poll::Ready((socket, _)) => (Socket::Unix(socket), Address::Unix),
                Poll::Pending => return Poll::Pending,
            },
        };
        Poll::Ready(Ok(Accepted {
            socket,
            address,
            is_loopback: self.is_loopback,
            tls: self.tls.clone(),
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

/// An IPv4 address as such, also where a socket for IPv6 took the connection.
fn unmapped(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
