//! The peer of a request: the connection that it came on, and its client.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use tokio::sync::Semaphore;

/// The address of the client of a connection, or of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Address {
    /// A socket of the network.
    Tcp(SocketAddr),
    /// A client that a trusted proxy has named.
    Behind(IpAddr),
    /// A Unix socket, whose clients have no address.
    Unix,
}

impl Address {
    /// The address of a socket: one of IPv4 as such, also where a socket for IPv6 took the connection.
    pub(crate) fn of(address: SocketAddr) -> Self {
        Self::Tcp(canonical(address))
    }

    pub(crate) fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Tcp(address) => Some(address.ip()),
            Self::Behind(address) => Some(*address),
            Self::Unix => None,
        }
    }
}

/// An address of IPv4 as such, also where a socket for IPv6 has it.
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(formatter),
            Self::Behind(address) => address.fmt(formatter),
            Self::Unix => formatter.write_str("unix"),
        }
    }
}

/// Facts of the connection that a request came on, in its extensions.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    pub address: Address,
    /// The address of this server that the connection came to; none of a Unix socket.
    pub reached: Option<SocketAddr>,
    /// Whether the listener is one that only programs of this machine reach.
    pub is_loopback: bool,
    /// Whether the client speaks TLS, to this server or to a trusted proxy.
    pub is_tls: bool,
    /// Whether a trusted proxy has passed the request on.
    pub is_proxied: bool,
    /// The subject of the certificate that the client has shown, as it stands there.
    pub certificate: Option<Arc<str>>,
    /// The permits of the transfers of the connection.
    pub share: Arc<Share>,
}

/// The permits that are left for transfers of a connection.
#[derive(Debug)]
pub(crate) struct Share {
    pub uploads: Arc<Semaphore>,
    pub downloads: Arc<Semaphore>,
}

impl Share {
    pub(crate) fn new(per_connection: usize) -> Arc<Self> {
        let most = || Arc::new(Semaphore::new(per_connection));
        Arc::new(Self {
            uploads: most(),
            downloads: most(),
        })
    }
}

#[cfg(test)]
impl Peer {
    /// The peer of a request at a listener of loopback, or at one that other machines reach.
    pub(crate) fn at(is_loopback: bool) -> Self {
        Self {
            address: Address::Unix,
            reached: None,
            is_loopback,
            is_tls: false,
            is_proxied: false,
            certificate: None,
            share: Share::new(1),
        }
    }
}
