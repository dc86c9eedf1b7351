//! A proxy between a store and PostgreSQL that loses connections at chosen moments.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;

/// The moment at which a connection is lost that commits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lost {
    /// The server is never told to commit.
    BeforeCommit,
    /// The server has committed, and its answer does not arrive.
    AfterCommit,
    /// The same, and no connection is made until [`PostgresProxy::mend`].
    AfterCommitForLong,
}

struct Shared {
    next: Mutex<Option<Lost>>,
    /// Whether the way to the server is cut.
    cut: watch::Sender<bool>,
    socket: String,
}

/// The proxy; it ends with the runtime.
pub struct PostgresProxy {
    shared: Arc<Shared>,
    url: String,
}

/// The message that tells the server to commit, as it ends.
const COMMIT: &[u8] = b"COMMIT\0";
const PATIENCE: Duration = Duration::from_secs(30);

/// The listener of a proxy before the server of a URL that [`crate::postgres_server::database`] has given, the socket of
/// the server, and the URL by which the proxy is reached.
pub(crate) async fn before(url: &str) -> (TcpListener, String, String) {
    let (_, rest) = url.split_once("?host=").expect("a URL of the test server");
    let (folder, parameters) = rest.split_once('&').expect("parameters");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    (
        listener,
        format!("{folder}/.s.PGSQL.5432"),
        format!("postgres://images@{address}/postgres?{parameters}"),
    )
}

impl PostgresProxy {
    /// A proxy before the server of a URL that [`crate::postgres_server::database`] has given.
    pub async fn start(url: &str) -> Self {
        let (listener, socket, url) = before(url).await;
        let shared = Arc::new(Shared {
            next: Mutex::default(),
            cut: watch::Sender::new(false),
            socket,
        });
        let serving = shared.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if !*serving.cut.borrow() {
                    tokio::spawn(pass(serving.clone(), client));
                }
            }
        });
        Self { shared, url }
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// Has the connection be lost that commits next.
    pub fn lose_next(&self, lost: Lost) {
        *self.shared.next() = Some(lost);
    }

    /// Loses all connections, and makes no new ones.
    pub fn cut(&self) {
        self.shared.cut.send_replace(true);
    }

    /// Makes connections again.
    pub fn mend(&self) {
        self.shared.cut.send_replace(false);
    }
}

impl Shared {
    fn next(&self) -> std::sync::MutexGuard<'_, Option<Lost>> {
        self.next.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Passes bytes both ways until one side ends or the connection is to be lost.
async fn pass(shared: Arc<Shared>, mut client: TcpStream) {
    let Ok(mut server) = UnixStream::connect(&shared.socket).await else {
        return;
    };
    let mut cut = shared.cut.subscribe();
    let (mut asked, mut answered) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        tokio::select! {
            read = client.read(&mut asked) => {
                let Ok(length @ 1..) = read else { return };
                let asked = &asked[..length];
                let lost = match asked.ends_with(COMMIT) {
                    true => shared.next().take(),
                    false => None,
                };
                if lost == Some(Lost::BeforeCommit) || server.write_all(asked).await.is_err() {
                    return;
                }
                if lost.is_some() {
                    let _ = tokio::time::timeout(PATIENCE, server.read(&mut answered)).await;
                    if lost == Some(Lost::AfterCommitForLong) {
                        shared.cut.send_replace(true);
                    }
                    return;
                }
            }
            read = server.read(&mut answered) => {
                let Ok(length @ 1..) = read else { return };
                if client.write_all(&answered[..length]).await.is_err() {
                    return;
                }
            }
            () = async { drop(cut.wait_for(|cut| *cut).await) } => return,
        }
    }
}
