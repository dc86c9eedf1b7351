//! Binding: the sockets that the configuration asks for.

use std::fmt;
use std::fs::{self, Permissions};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use listenfd::ListenFd;
use tokio::net::{TcpListener, UnixListener};

use super::Error;
use crate::server::{Listener, TrustedProxies};
use crate::tls::Acceptor;

/// The mode of a Unix socket: its user and its group may connect.
const SOCKET_MODE: u32 = 0o660;

/// A place to listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    Tcp(SocketAddr),
    /// A Unix socket with this path.
    Unix(PathBuf),
    /// All sockets that systemd has passed to this process (socket activation).
    Systemd,
}

impl fmt::Display for Listen {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(formatter),
            Self::Unix(path) => write!(formatter, "unix:{}", path.display()),
            Self::Systemd => formatter.write_str("systemd"),
        }
    }
}

/// The address of a socket that listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bound {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl fmt::Display for Bound {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(formatter),
            Self::Unix(path) => write!(formatter, "unix:{}", path.display()),
        }
    }
}

impl Bound {
    /// Whether only programs of this machine can connect.
    pub(super) fn is_loopback(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().to_canonical().is_loopback(),
            Self::Unix(_) => true,
        }
    }
}

/// The sockets of a server.
#[derive(Default)]
pub(super) struct Sockets {
    pub listeners: Vec<Listener>,
    pub bound: Vec<Bound>,
    /// The files of Unix sockets, which are removed when these are dropped.
    pub files: Vec<SocketFile>,
}

impl Sockets {
    /// Binds all that is asked for.
    pub(super) async fn bind(places: &[Listen]) -> Result<Self, Error> {
        let mut sockets = Self::default();
        for place in places {
            let failed = |source| Error::Listen {
                address: place.to_string(),
                source,
            };
            match place {
                Listen::Tcp(address) => {
                    let socket = bind_tcp(*address).await.map_err(failed)?;
                    sockets.add_tcp(socket).map_err(failed)?;
                }
                Listen::Unix(path) => {
                    let (socket, file) = bind_unix(path).map_err(failed)?;
                    sockets.files.push(file);
                    sockets.bound.push(Bound::Unix(path.clone()));
                    sockets.listeners.push(Listener::unix(socket));
                }
                Listen::Systemd => sockets.add_passed().map_err(failed)?,
            }
        }
        Ok(sockets)
    }

    /// Gives TLS to the listeners of the network.
    pub(super) fn speak_tls(&mut self, acceptor: &Arc<Acceptor>) {
        self.change(|listener| listener.with_tls(Arc::clone(acceptor)));
    }

    /// Lets only these peers connect to listeners that other machines reach without TLS.
    pub(super) fn only_for(&mut self, proxies: &Arc<TrustedProxies>) {
        self.change(|listener| listener.only_for(Arc::clone(proxies)));
    }

    fn change(&mut self, change: impl Fn(Listener) -> Listener) {
        let listeners = std::mem::take(&mut self.listeners);
        self.listeners = listeners.into_iter().map(change).collect();
    }

    fn add_tcp(&mut self, socket: TcpListener) -> io::Result<()> {
        self.bound.push(Bound::Tcp(socket.local_addr()?));
        self.listeners.push(Listener::tcp(socket)?);
        Ok(())
    }

    /// Adds what systemd has passed. The files of such sockets are systemd's.
    fn add_passed(&mut self) -> io::Result<()> {
        let mut passed = ListenFd::from_env();
        if passed.len() == 0 {
            return Err(io::Error::other(
                "systemd has passed no sockets to this process (LISTEN_FDS and LISTEN_PID)",
            ));
        }
        for index in 0..passed.len() {
            if let Ok(Some(socket)) = passed.take_tcp_listener(index) {
                socket.set_nonblocking(true)?;
                self.add_tcp(TcpListener::from_std(socket)?)?;
            } else if let Ok(Some(socket)) = passed.take_unix_listener(index) {
                socket.set_nonblocking(true)?;
                let address = socket.local_addr()?;
                let path = address.as_pathname().unwrap_or(Path::new("")).to_owned();
                self.bound.push(Bound::Unix(path));
                let socket = UnixListener::from_std(socket)?;
                self.listeners.push(Listener::unix(socket));
            } else {
                return Err(io::Error::other(format!(
                    "the file descriptor {} that systemd has passed is no socket that listens for streams",
                    index + 3
                )));
            }
        }
        Ok(())
    }
}

/// Binds an address. Where all addresses are meant and the system has no IPv6, those of IPv4 are all.
async fn bind_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    match TcpListener::bind(address).await {
        Err(error)
            if address.ip() == Ipv6Addr::UNSPECIFIED
                && error.kind() != io::ErrorKind::AddrInUse =>
        {
            let ipv4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port()));
            TcpListener::bind(ipv4).await.map_err(|_| error)
        }
        bound => bound,
    }
}

/// Binds a Unix socket. It appears under its path when it has its mode, and replaces the file of a socket at which
/// nobody listens any more.
fn bind_unix(path: &Path) -> io::Result<(UnixListener, SocketFile)> {
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            return Err(io::Error::other("there is a file that is no socket"));
        }
        Ok(_) if UnixStream::connect(path).is_ok() => {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let socket = UnixListener::bind(&new)?;
    fs::set_permissions(&new, Permissions::from_mode(SOCKET_MODE))?;
    fs::rename(&new, path)?;
    let file = SocketFile {
        path: path.to_owned(),
        identity: identity(path)?,
    };
    Ok((socket, file))
}

/// The file of a Unix socket, removed when this is dropped.
pub(super) struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Another process may have put its own there.
        if identity(&self.path).is_ok_and(|found| found == self.identity)
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "the socket's file stays");
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let found = fs::symlink_metadata(path)?;
    Ok((found.dev(), found.ino()))
}
