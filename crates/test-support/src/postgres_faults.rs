//! A proxy between a store and PostgreSQL that has statements and commits fail now and then, as they do in databases
//! that serialise transactions, in deadlocks, and where a wait or a statement takes too long. A failure is the server's
//! own: the proxy sends it a statement that fails in the place of the client's, so that the transaction is rolled back
//! there, and the statements behind it are refused as PostgreSQL refuses them.
//!
//! The proxy reads the client's half of the protocol
//! (<https://www.postgresql.org/docs/18/protocol-message-formats.html>), and passes the server's on as it is.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::tcp::OwnedReadHalf;
use tokio::net::{TcpStream, UnixStream};

use crate::postgres_proxy::before;

/// Codes of failures: a transaction that cannot be serialised, a deadlock, a lock that is not to be had in time, and a
/// statement that was cancelled.
const CODES: [&str; 4] = ["40001", "40P01", "55P03", "57014"];
/// The share of statements that fail. A transaction of twenty has about an even chance.
const SHARE: f64 = 0.03;

/// The proxy; it ends with the runtime.
pub struct PostgresFaults {
    url: String,
    injected: Arc<AtomicU64>,
}

impl PostgresFaults {
    /// A proxy before the server of a URL that [`crate::postgres_server::database`] has given. The seed decides which
    /// statements of each of its connections fail.
    pub async fn start(url: &str, seed: u64) -> Self {
        let (listener, socket, url) = before(url).await;
        let injected = Arc::<AtomicU64>::default();
        let counter = injected.clone();
        tokio::spawn(async move {
            let mut random = StdRng::seed_from_u64(seed);
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = UnixStream::connect(&socket).await else {
                    continue;
                };
                let random = StdRng::from_rng(&mut random);
                tokio::spawn(pass(client, server, random, counter.clone()));
            }
        });
        Self { url, injected }
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// The number of statements that have failed so far.
    pub fn injected(&self) -> u64 {
        self.injected.load(Ordering::Relaxed)
    }
}

/// Passes bytes both ways until one side ends.
async fn pass(client: TcpStream, server: UnixStream, mut random: StdRng, injected: Arc<AtomicU64>) {
    // Small messages are answered at once.
    let _ = client.set_nodelay(true);
    let (asked, mut answers) = client.into_split();
    let (mut answered, mut server) = server.into_split();
    tokio::spawn(async move {
        let _ = tokio::io::copy(&mut answered, &mut answers).await;
    });
    let mut client = Client::new(asked);
    while let Some(mut asked) = client.next().await {
        if asked.may_fail() && random.random_bool(SHARE) {
            injected.fetch_add(1, Ordering::Relaxed);
            let code = CODES.choose(&mut random).expect("some codes");
            asked = asked.failing(code);
        }
        if server.write_all(&asked.bytes).await.is_err() {
            return;
        }
    }
}

/// Messages that belong together: the server answers them once it has the last.
struct Asked {
    bytes: Vec<u8>,
    /// The types of the messages, none of the first that a connection has.
    types: Vec<u8>,
}

/// The message of a statement as text, as far as its text.
const QUERY: u8 = b'Q';
/// Messages behind which the server has something to do.
const LAST: [u8; 7] = [QUERY, b'S', b'H', b'd', b'c', b'f', b'X'];

impl Asked {
    /// Whether it is a statement that a database may refuse: one that is prepared, carried out or given as text, but for
    /// ROLLBACK and the rows of COPY.
    fn may_fail(&self) -> bool {
        match self.types[..] {
            [QUERY] => self.text() != b"ROLLBACK",
            [.., b'S'] => self.types.iter().any(|it| matches!(it, b'P' | b'E')),
            _ => false,
        }
    }

    /// The statement of a message that has it as text.
    fn text(&self) -> &[u8] {
        // Behind type and length, and before a NUL.
        self.bytes.get(5..self.bytes.len() - 1).unwrap_or_default()
    }

    /// A statement that the server refuses with a code, in place of one of the client. A COMMIT that fails has ended the
    /// transaction.
    fn failing(&self, code: &str) -> Self {
        let ends = matches!(self.types[..], [QUERY]) && self.text() == b"COMMIT";
        let sql = format!(
            "{}DO $$ BEGIN RAISE EXCEPTION 'injected' USING ERRCODE = '{code}'; END $$\0",
            if ends { "ROLLBACK; " } else { "" }
        );
        let length = u32::try_from(sql.len() + 4).expect("a short statement");
        let mut bytes = vec![QUERY];
        bytes.extend(length.to_be_bytes());
        bytes.extend(sql.into_bytes());
        Self {
            bytes,
            types: vec![QUERY],
        }
    }
}

/// The messages of a client.
struct Client {
    read: BufReader<OwnedReadHalf>,
    has_begun: bool,
}

impl Client {
    fn new(read: OwnedReadHalf) -> Self {
        Self {
            read: BufReader::new(read),
            has_begun: false,
        }
    }

    /// The next messages that belong together; none where the client has gone.
    async fn next(&mut self) -> Option<Asked> {
        let mut asked = Asked {
            bytes: Vec::new(),
            types: Vec::new(),
        };
        if !self.has_begun {
            self.has_begun = true;
            self.body(&mut asked.bytes).await?;
            return Some(asked);
        }
        loop {
            let kind = self.read.read_u8().await.ok()?;
            asked.types.push(kind);
            asked.bytes.push(kind);
            self.body(&mut asked.bytes).await?;
            if LAST.contains(&kind) {
                return Some(asked);
            }
        }
    }

    /// Reads a message behind its type: its length, and the rest.
    async fn body(&mut self, bytes: &mut Vec<u8>) -> Option<()> {
        let length = self.read.read_u32().await.ok()?;
        bytes.extend(length.to_be_bytes());
        let begun = bytes.len();
        bytes.resize(begun + usize::try_from(length).ok()?.checked_sub(4)?, 0);
        self.read.read_exact(&mut bytes[begun..]).await.ok()?;
        Some(())
    }
}
