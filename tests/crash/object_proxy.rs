//! A proxy between the replicas and the object storage that makes trouble: it answers with errors, is slow, and cuts
//! connections in the middle of a request or of its answer. It also notes what passes, as far as a check needs it.

use std::collections::BTreeSet;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;
use tokio_util::sync::{CancellationToken, DropGuard};

/// The longest head of a request.
const LONGEST_HEAD: usize = 64 << 10;
/// The longest delay of a request, in milliseconds.
const DELAY: u64 = 400;

/// A proxy, which runs until it is dropped.
pub struct ObjectProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    _ended: DropGuard,
}

struct Shared {
    storage: SocketAddr,
    state: Mutex<State>,
}

struct State {
    random: StdRng,
    /// The share of requests that get into trouble.
    trouble: f64,
    troubled: usize,
    /// The names of blobs that were begun, and not removed.
    blobs: BTreeSet<String>,
    /// The ids of uploads in parts that were to be noted.
    noted: BTreeSet<String>,
}

/// The fate of a request.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Passes,
    Late(Duration),
    /// It does not arrive, and is answered with an error.
    Refused(&'static str, &'static str),
    /// So much of it arrives.
    Cut(f64),
    /// It arrives, and so many bytes of the answer do.
    AnswerCut(u64),
}

impl Fate {
    fn random(random: &mut StdRng) -> Self {
        match random.random_range(0..6) {
            0 => Self::Late(Duration::from_millis(random.random_range(0..DELAY))),
            1 => Self::Refused("503 Slow Down", "SlowDown"),
            2 => Self::Refused("500 Internal Server Error", "InternalError"),
            3 => Self::Cut(random.random()),
            4 => Self::AnswerCut(0),
            // From the middle of the head of a short answer to the middle of a long one.
            _ => Self::AnswerCut(1 << random.random_range(4..22)),
        }
    }
}

impl ObjectProxy {
    /// A proxy before a storage, which makes no trouble yet.
    pub async fn start(storage: SocketAddr, random: StdRng) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listener.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let state = State {
            random,
            trouble: 0.0,
            troubled: 0,
            blobs: BTreeSet::new(),
            noted: BTreeSet::new(),
        };
        let shared = Arc::new(Shared {
            storage,
            state: Mutex::new(state),
        });
        let (serving, ended) = (shared.clone(), CancellationToken::new());
        let until = ended.clone();
        tokio::spawn(async move {
            let accepting = async {
                while let Ok((client, _)) = listener.accept().await {
                    let (shared, until) = (serving.clone(), until.clone());
                    tokio::spawn(async move {
                        // Why a connection ended is known to both sides of it.
                        let _ = until.run_until_cancelled(pass(shared, client)).await;
                    });
                }
            };
            let _ = until.run_until_cancelled(accepting).await;
        });
        Self {
            address,
            shared,
            _ended: ended.drop_guard(),
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Has a share of the requests get into trouble from now on. How many did before is returned.
    pub fn trouble(&self, share: f64) -> usize {
        let mut state = self.shared.lock();
        state.trouble = share;
        std::mem::take(&mut state.troubled)
    }

    /// The names of the blobs as the requests that have passed leave them.
    pub fn blobs(&self) -> BTreeSet<String> {
        self.shared.lock().blobs.clone()
    }

    /// Whether the id of an upload in parts was to be noted, so that whoever removes the blob would find it.
    pub fn is_noted(&self, upload: &str) -> bool {
        self.shared.lock().noted.contains(upload)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request as it was sent.
struct Request {
    method: String,
    path: String,
    query: String,
    /// The line of the request, and all that follows it.
    line: Vec<u8>,
    rest: Vec<u8>,
}

impl State {
    fn fate(&mut self) -> Fate {
        if !self.random.random_bool(self.trouble) {
            return Fate::Passes;
        }
        self.troubled += 1;
        let mut random = StdRng::from_rng(&mut self.random);
        Fate::random(&mut random)
    }

    fn note(&mut self, request: &Request, body: &[u8]) {
        let mut segments = request.path.rsplit('/');
        let (name, folder) = (segments.next(), segments.next());
        let (Some(name), Some(folder)) = (name, folder) else {
            return;
        };
        match (folder, &*request.method) {
            ("blobs", "PUT") => drop(self.blobs.insert(name.to_owned())),
            ("blobs", "POST") => drop(self.blobs.insert(name.to_owned())),
            ("blobs", "DELETE") if request.query.is_empty() => drop(self.blobs.remove(name)),
            ("uploads", "PUT") => {
                let id = String::from_utf8_lossy(body).into_owned();
                self.noted.insert(id);
            }
            _ => {}
        }
    }
}

/// Passes one request on, and its answer back: a connection serves no second one.
async fn pass(shared: Arc<Shared>, mut client: TcpStream) -> io::Result<()> {
    client.set_nodelay(true)?;
    let (request, body) = read(&mut client).await?;
    let fate = {
        let mut state = shared.lock();
        state.note(&request, &body);
        state.fate()
    };
    if let Fate::Refused(status, code) = fate {
        let xml = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code></Error>");
        // An answer to HEAD has no body.
        let shown = if request.method == "HEAD" { "" } else { &xml };
        let answer = format!(
            "HTTP/1.1 {status}\r\nContent-Type: application/xml\r\nContent-Length: {}\r\n\
             Connection: close\r\n\r\n{shown}",
            xml.len()
        );
        return client.write_all(answer.as_bytes()).await;
    }
    if let Fate::Late(delay) = fate {
        sleep(delay).await;
    }
    let mut storage = TcpStream::connect(shared.storage).await?;
    storage.set_nodelay(true)?;
    let mut sent = request.line;
    sent.extend(b"Connection: close\r\n");
    sent.extend(request.rest);
    sent.extend(body);
    if let Fate::Cut(share) = fate {
        sent.truncate((sent.len() as f64 * share) as usize);
        return storage.write_all(&sent).await;
    }
    storage.write_all(&sent).await?;
    let most = match fate {
        Fate::AnswerCut(bytes) => bytes,
        _ => u64::MAX,
    };
    // The request whose answer is cut off has been carried out.
    let mut first = [0];
    if storage.peek(&mut first).await? > 0 {
        tokio::io::copy(&mut storage.take(most), &mut client).await?;
    }
    Ok(())
}

/// Reads a request whole; the largest is one part of an upload.
async fn read(client: &mut TcpStream) -> io::Result<(Request, Vec<u8>)> {
    let mut bytes = Vec::new();
    let end = loop {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
        if let Some(end) = end {
            break end + 4;
        }
        if bytes.len() > LONGEST_HEAD || client.read_buf(&mut bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    };
    let mut body = bytes.split_off(end);
    let head = String::from_utf8_lossy(&bytes).into_owned();
    let mut lines = head.lines();
    let mut words = lines.next().unwrap_or_default().split(' ');
    let (method, target) = (words.next(), words.next());
    let target = target.unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let length = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let is_length = name.eq_ignore_ascii_case("content-length");
        is_length.then(|| value.trim().parse().expect("a length"))
    });
    let length: usize = length.unwrap_or_default();
    body.reserve(length.saturating_sub(body.len()));
    while body.len() < length {
        if client.read_buf(&mut body).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    let line = bytes.iter().position(|byte| *byte == b'\n');
    let rest = bytes.split_off(line.map_or(0, |line| line + 1));
    let request = Request {
        method: method.unwrap_or_default().to_owned(),
        path: path.to_owned(),
        query: query.to_owned(),
        line: bytes,
        rest,
    };
    Ok((request, body))
}
