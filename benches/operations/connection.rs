//! A gRPC client that costs next to nothing: one HTTP/2 connection (RFC 9113) for unary calls of
//! one method. It shares the cores with the server that is measured, and a client with a price of
//! its own would hide what the server costs. Headers are the same on every call, so that all but
//! the first send indices into the table of HPACK (RFC 7541), as other clients do.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::time::Instant;

use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use uuid::Uuid;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Frame types and flags.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const FRAME_HEADER: usize = 9;
const INITIAL_WINDOW_SIZE: u16 = 4;

/// Bytes of replies that may be under way on a stream, and on the connection until the window is opened again.
const WINDOW: u32 = 1 << 30;
const DEFAULT_WINDOW: u32 = 65_535;
/// A gRPC message has a flag and a length before it.
const MESSAGE_HEADER: usize = 5;

/// A call to be made.
pub struct Call {
    pub message: Vec<u8>,
    pub idempotency_key: Option<Uuid>,
}

impl Call {
    pub fn new(message: &impl Message) -> Self {
        Self {
            message: message.encode_to_vec(),
            idempotency_key: None,
        }
    }
}

/// A call that has ended well.
pub struct Reply {
    pub sent: Instant,
    pub message: Vec<u8>,
}

struct Open {
    sent: Instant,
    body: Vec<u8>,
}

/// One connection, with calls of one method on it.
pub struct Connection {
    stream: TcpStream,
    path: String,
    address: SocketAddr,
    next_stream: u32,
    open: HashMap<u32, Open>,
    output: Vec<u8>,
    input: Vec<u8>,
    /// Bytes of replies since the connection's window was opened.
    received: u32,
}

impl Connection {
    /// Connects for calls of the method with this path.
    pub async fn connect(address: SocketAddr, path: &str) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let mut connection = Self {
            stream,
            path: path.to_owned(),
            address,
            next_stream: 1,
            open: HashMap::new(),
            output: PREFACE.to_vec(),
            input: Vec::new(),
            received: 0,
        };
        let mut settings = INITIAL_WINDOW_SIZE.to_be_bytes().to_vec();
        settings.extend(WINDOW.to_be_bytes());
        connection.frame(SETTINGS, 0, 0, &settings);
        connection.open_window(WINDOW - DEFAULT_WINDOW);
        Ok(connection)
    }

    /// How many calls are under way.
    pub fn open(&self) -> usize {
        self.open.len()
    }

    /// Adds a call to what the next `flush` sends.
    pub fn call(&mut self, call: &Call) {
        let id = self.next_stream;
        self.next_stream += 2;
        let mut block = Vec::with_capacity(64);
        // :method POST and :scheme http.
        block.extend([0x83, 0x86]);
        if id == 1 {
            literal(&mut block, &[0x41], &self.address.to_string());
            literal(&mut block, &[0x44], &self.path);
            literal(&mut block, &[0x5f], "application/grpc");
            literal(&mut block, b"\x40\x02te", "trailers");
        } else {
            // The four that the first call put into the table, the latest first.
            block.extend([65, 64, 63, 62].map(|index| 0x80 | index));
        }
        if let Some(key) = call.idempotency_key {
            let mut text = Uuid::encode_buffer();
            let text = key.hyphenated().encode_lower(&mut text);
            literal(&mut block, b"\x00\x0fidempotency-key", text);
        }
        self.frame(HEADERS, END_HEADERS, id, &block);
        let length = call.message.len();
        self.frame_header(MESSAGE_HEADER + length, DATA, END_STREAM, id);
        self.output.push(0);
        self.output.extend((length as u32).to_be_bytes());
        self.output.extend(&call.message);
        let open = Open {
            sent: Instant::now(),
            body: Vec::new(),
        };
        self.open.insert(id, open);
    }

    /// Sends the calls that were added.
    pub async fn flush(&mut self) -> io::Result<()> {
        self.stream.write_all(&self.output).await?;
        self.output.clear();
        Ok(())
    }

    /// Waits for more from the server, and adds the calls that have ended to `replies`. A call
    /// that was refused is an error: nothing here is meant to be refused.
    pub async fn receive(&mut self, replies: &mut Vec<Reply>) -> io::Result<()> {
        self.input.reserve(64 << 10);
        if self.stream.read_buf(&mut self.input).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let input = std::mem::take(&mut self.input);
        let mut rest = &input[..];
        while let Some((header, after)) = rest.split_first_chunk::<FRAME_HEADER>() {
            let length = u32::from_be_bytes([0, header[0], header[1], header[2]]);
            let Some((payload, after)) = after.split_at_checked(length as usize) else {
                break;
            };
            let id = u32::from_be_bytes([header[5], header[6], header[7], header[8]]);
            self.take(header[3], header[4], id, payload, replies)?;
            rest = after;
        }
        let taken = input.len() - rest.len();
        self.input = input;
        self.input.drain(..taken);
        if self.received > WINDOW / 2 {
            self.open_window(self.received);
            self.received = 0;
        }
        Ok(())
    }

    fn take(
        &mut self,
        kind: u8,
        flags: u8,
        id: u32,
        payload: &[u8],
        replies: &mut Vec<Reply>,
    ) -> io::Result<()> {
        match kind {
            DATA => {
                self.received += payload.len() as u32;
                if let Some(open) = self.open.get_mut(&id) {
                    open.body.extend(payload);
                }
            }
            SETTINGS if flags & ACK == 0 => self.frame(SETTINGS, ACK, 0, &[]),
            PING if flags & ACK == 0 => self.frame(PING, ACK, 0, payload),
            RST_STREAM | GOAWAY => return Err(io::ErrorKind::ConnectionReset.into()),
            _ => {}
        }
        if matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0 {
            let ended = self.open.remove(&id);
            let Open { sent, mut body } = ended.ok_or(io::ErrorKind::InvalidData)?;
            // A unary reply carries a message exactly when its status is OK.
            let whole = body.first_chunk().is_some_and(|header| {
                let [compressed, length @ ..]: [u8; MESSAGE_HEADER] = *header;
                let length = u32::from_be_bytes(length) as usize;
                compressed == 0 && body.len() == MESSAGE_HEADER + length
            });
            if !whole {
                return Err(io::Error::other(format!("a {} was refused", self.path)));
            }
            body.drain(..MESSAGE_HEADER);
            replies.push(Reply {
                sent,
                message: body,
            });
        }
        Ok(())
    }

    fn open_window(&mut self, bytes: u32) {
        self.frame(WINDOW_UPDATE, 0, 0, &bytes.to_be_bytes());
    }

    fn frame(&mut self, kind: u8, flags: u8, id: u32, payload: &[u8]) {
        self.frame_header(payload.len(), kind, flags, id);
        self.output.extend(payload);
    }

    fn frame_header(&mut self, length: usize, kind: u8, flags: u8, id: u32) {
        self.output.extend(&(length as u32).to_be_bytes()[1..]);
        self.output.extend([kind, flags]);
        self.output.extend(id.to_be_bytes());
    }
}

/// A header whose value is written out, of less than 127 bytes.
fn literal(block: &mut Vec<u8>, name: &[u8], value: &str) {
    block.extend(name);
    block.push(value.len() as u8);
    block.extend(value.as_bytes());
}
