//! The end of an HTTP/1 connection whose client may still send: the sending half is closed first, and
//! what comes is dropped for a while, so that the client finds the answer before the reset.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use super::unread::{Farewell, Unread};

/// Bytes that are dropped at a time, and how often before other tasks have their turn.
const PIECE: usize = 16 << 10;
const FEW_PIECES: usize = 64;

/// A stream that is closed slowly.
pub(crate) struct Lingering<S> {
    stream: S,
    unread: Arc<Unread>,
    ending: Option<Ending>,
}

/// The state of a connection whose sending half is closed.
struct Ending {
    farewell: Farewell,
    end: Instant,
    timer: Pin<Box<Sleep>>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Lingering<S> {
    pub(crate) fn new(stream: S, unread: Arc<Unread>) -> Self {
        Self {
            stream,
            unread,
            ending: None,
        }
    }

    fn stream(self: Pin<&mut Self>) -> Pin<&mut S> {
        Pin::new(&mut self.get_mut().stream)
    }
}

impl<S: AsyncRead + Unpin> Lingering<S> {
    /// Drops what comes, until no more does or the time is over.
    fn poll_drop(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some(ending) = &mut self.ending else {
            return Poll::Ready(());
        };
        let mut piece = [MaybeUninit::uninit(); PIECE];
        for _ in 0..FEW_PIECES {
            let mut piece = ReadBuf::uninit(&mut piece);
            match Pin::new(&mut self.stream).poll_read(context, &mut piece) {
                Poll::Ready(Ok(())) if !piece.filled().is_empty() => {
                    let now = Instant::now();
                    if now >= ending.end {
                        return Poll::Ready(());
                    }
                    let until = ending.end.min(now + ending.farewell.silence);
                    ending.timer.as_mut().reset(until);
                }
                // The client has closed its half, or is gone.
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return ending.timer.as_mut().poll(context),
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Lingering<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(context, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Lingering<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
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
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.ending.is_none() {
            ready!(self.as_mut().stream().poll_shutdown(context))?;
            let Some(farewell) = self.unread.farewell() else {
                return Poll::Ready(Ok(()));
            };
            let now = Instant::now();
            self.ending = Some(Ending {
                farewell,
                end: now + farewell.time,
                timer: Box::pin(sleep_until(now + farewell.silence)),
            });
        }
        self.poll_drop(context).map(Ok)
    }
}
