//! A connection on which many small replies leave together.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::connections::Activity;
use super::stream::Stream;

/// A stream that says whether it takes several buffers at once. h2 0.4.20 ([`CHAIN_THRESHOLD`]) asks at the start: it
/// then writes each message of 256 bytes or more by itself to one that does, and gathers messages of up to
/// 1 KiB for one that does not, which is most of what a reply costs where many are under way. It
/// asks again at each write, and puts a larger message behind its header in one system call only for
/// one that does. So a stream for HTTP/2 does from its first byte on. Were h2 to do otherwise, only time would be lost.
///
/// [`CHAIN_THRESHOLD`]: https://github.com/hyperium/h2/blob/v0.4.20/src/codec/framed_write.rs#L69-L90
pub(crate) struct Connection {
    stream: Stream,
    vectored: bool,
    /// Is told when bytes come.
    reads: Option<Arc<Activity>>,
}

impl Connection {
    pub(crate) fn new(stream: Stream, vectored: bool, reads: Option<Arc<Activity>>) -> Self {
        Self {
            stream,
            vectored,
            reads,
        }
    }

    fn stream(self: Pin<&mut Self>) -> Pin<&mut Stream> {
        Pin::new(&mut self.get_mut().stream)
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = self.as_mut().stream().poll_read(context, buffer);
        if let Some(activity) = &self.reads
            && buffer.filled().len() > before
        {
            activity.bytes_came();
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.vectored = true;
        self.stream().poll_write(context, buffer)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.stream().poll_write_vectored(context, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.vectored
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_shutdown(context)
    }
}
