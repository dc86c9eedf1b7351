//! Replies whose client takes nothing more of them. After a while they are cut off, and what they hold
//! (memory, a file, a permit of their connection) is released.
//!
//! A connection that takes no byte is seen where it is written to ([`Patience`] in `small_writes`). Over
//! HTTP/2 one reply may stand still beside others that move, when its client grants it no window. hyper
//! then holds a frame of its body and does not ask for another. [`Watched`] sees that from outside: the
//! request waits, although its body has just given a frame.

use std::cell::Cell;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};

/// The bytes of a body that HTTP/2 gets at a time. What it holds of a body is sent as a whole before
/// the next, and each counts as movement: a client that takes as much within the limit is not cut off.
const PIECE: usize = 16 << 10;

/// A limit of the time for which something waits for its peer.
pub(crate) struct Patience {
    limit: Duration,
    /// Since when it waits.
    since: Option<Instant>,
    /// Made at the first wait and kept, since most waits are short and many.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Patience {
    pub(crate) fn new(limit: Duration) -> Self {
        Self {
            limit,
            since: None,
            timer: None,
        }
    }

    /// The peer moved.
    pub(crate) fn renew(&mut self) {
        self.since = None;
    }

    /// Whether the peer has not moved for too long. Wakes the task when that is so.
    pub(crate) fn is_over(&mut self, context: &mut Context<'_>) -> bool {
        let since = *self.since.get_or_insert_with(Instant::now);
        // A limit beyond all time is none.
        let Some(end) = since.checked_add(self.limit) else {
            return false;
        };
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(end)));
        loop {
            if timer.as_mut().poll(context).is_pending() {
                return false;
            }
            if Instant::now() >= end {
                return true;
            }
            // It rang for an earlier wait.
            timer.as_mut().reset(end);
        }
    }
}

thread_local! {
    /// The last step of the body that was polled while a request is.
    static LAST: Cell<Step> = const { Cell::new(Step::None) };
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// The body was not polled.
    None,
    /// The body gave a frame, or ended.
    Gave,
    /// The body has no frame yet.
    Waits,
}

/// The body of a reply, which tells what it does.
pub(crate) struct Told<B> {
    body: B,
    /// The rest of a frame that is given in pieces.
    rest: Bytes,
    piece: usize,
}

impl<B> Told<B> {
    /// A body that gives its frames in pieces for HTTP/2. For HTTP/1, which writes frames without gathering them,
    /// it gives them whole.
    pub(crate) fn new(body: B, http2: bool) -> Self {
        Self {
            body,
            rest: Bytes::new(),
            piece: if http2 { PIECE } else { usize::MAX },
        }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Told<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.get_mut();
        if this.rest.is_empty() {
            let polled = Pin::new(&mut this.body).poll_frame(context);
            LAST.set(match polled {
                Poll::Pending => Step::Waits,
                Poll::Ready(_) => Step::Gave,
            });
            match polled {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) if data.len() > this.piece => this.rest = data,
                    Ok(data) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                    Err(frame) => return Poll::Ready(Some(Ok(frame))),
                },
                other => return other,
            }
        }
        LAST.set(Step::Gave);
        let piece = this.rest.split_to(this.piece.min(this.rest.len()));
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = self.body.size_hint();
        let rest = self.rest.len() as u64;
        if rest > 0 {
            if let Some(upper) = hint.upper() {
                hint.set_upper(upper + rest);
            }
            hint.set_lower(hint.lower() + rest);
        }
        hint
    }
}

/// A request of an HTTP/2 connection, from its head to the last byte of its reply. Ends early where its
/// client takes nothing of the reply for too long; dropping it resets its stream.
pub(crate) struct Watched {
    request: Pin<Box<dyn Future<Output = ()> + Send>>,
    limit: Duration,
    /// The time for which the reply waits for its client, while it does.
    unread: Option<Box<Patience>>,
}

impl Watched {
    pub(crate) fn new(request: impl Future<Output = ()> + Send + 'static, limit: Duration) -> Self {
        Self {
            request: Box::pin(request),
            limit,
            unread: None,
        }
    }
}

impl Future for Watched {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        LAST.set(Step::None);
        if this.request.as_mut().poll(context).is_ready() {
            return Poll::Ready(());
        }
        match LAST.get() {
            // As it was before.
            Step::None => {}
            Step::Gave => {
                let unread = this
                    .unread
                    .get_or_insert_with(|| Box::new(Patience::new(this.limit)));
                unread.renew();
            }
            Step::Waits => {
                this.unread = None;
                return Poll::Pending;
            }
        }
        let unread = this.unread.as_mut();
        if unread.is_none_or(|unread| !unread.is_over(context)) {
            return Poll::Pending;
        }
        tracing::info!(
            seconds = this.limit.as_secs(),
            "a reply is cut off: its client takes nothing of it"
        );
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::future::poll_fn;

    use futures_util::stream;
    use http_body_util::{BodyExt, Full, StreamBody};

    use super::*;

    const LIMIT: Duration = Duration::from_millis(50);
    const BOUND: Duration = Duration::from_secs(30);

    /// A request whose body is polled as hyper does, each time that it is woken.
    fn request<B>(mut body: B, mut takes: impl FnMut() -> bool + Send + 'static) -> Watched
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: std::fmt::Debug,
    {
        let mut held = false;
        let polled = poll_fn(move |context| {
            loop {
                if held && !takes() {
                    return Poll::Pending;
                }
                held = false;
                match Pin::new(&mut body).poll_frame(context) {
                    Poll::Ready(None) => return Poll::Ready(()),
                    Poll::Ready(Some(frame)) => held = frame.expect("a frame").is_data(),
                    Poll::Pending => return Poll::Pending,
                }
            }
        });
        Watched::new(polled, LIMIT)
    }

    #[tokio::test]
    async fn a_reply_of_which_nothing_is_taken_ends() {
        let body = Told::new(Full::new(Bytes::from_static(b"x")), true);
        let ended = tokio::time::timeout(BOUND, request(body, || false)).await;
        ended.expect("it ends");
    }

    #[tokio::test]
    async fn a_reply_that_has_nothing_to_give_does_not_end() {
        let quiet = stream::pending::<Result<Frame<Bytes>, Infallible>>();
        let body = Told::new(StreamBody::new(quiet), true);
        let ended = tokio::time::timeout(5 * LIMIT, request(body, || false)).await;
        assert!(ended.is_err());
        // Nor does one whose handler takes its time.
        let handler = Watched::new(std::future::pending(), LIMIT);
        assert!(tokio::time::timeout(5 * LIMIT, handler).await.is_err());
    }

    #[tokio::test]
    async fn a_reply_that_is_taken_slowly_does_not_end() {
        // Each piece late, but within the limit.
        let slowly = stream::unfold(0, |given| async move {
            tokio::time::sleep(LIMIT / 5).await;
            let frame = Frame::data(Bytes::from_static(b"x"));
            (given < 20).then_some((Ok::<_, Infallible>(frame), given + 1))
        });
        let body = Told::new(StreamBody::new(Box::pin(slowly)), true);
        let started = Instant::now();
        request(body, || true).await;
        assert!(started.elapsed() > 2 * LIMIT);
    }

    #[tokio::test]
    async fn a_body_is_the_same_in_pieces() {
        for length in [0, 1, PIECE, PIECE + 1, 3 * PIECE - 1] {
            let bytes = Bytes::from(vec![7; length]);
            let body = Told::new(Full::new(bytes.clone()), true);
            assert_eq!(body.size_hint().exact(), Some(length as u64));
            let mut left = length as u64;
            let mut body = Box::pin(body);
            let mut collected = Vec::new();
            while let Some(frame) = body.frame().await {
                let data = frame.expect("a frame").into_data().expect("data");
                assert!(data.len() <= PIECE);
                left -= data.len() as u64;
                assert_eq!(body.size_hint().exact(), Some(left));
                assert_eq!(body.is_end_stream(), left == 0);
                collected.extend_from_slice(&data);
            }
            assert!(collected == bytes);
        }
    }
}
