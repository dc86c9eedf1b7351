//! The time that a client gives a call: `grpc-timeout`, enforced.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::Frame;
use tokio::time::{Instant, Sleep};
use tonic::{Status, body::Body};
use tower::Service;

use super::{metadata, rejection::Rejection};

/// The most digits that the gRPC protocol has in a timeout.
const MOST_DIGITS: usize = 8;

/// The most digits that the Connect protocol has in one.
const MOST_DIGITS_OF_CONNECT: usize = 10;

/// When a call must have ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadline(Instant);

impl Deadline {
    /// The deadline of a request that has just arrived, if it has one.
    pub(super) fn of(headers: &HeaderMap) -> Result<Option<Self>, Rejection> {
        let Some(value) = headers.get(metadata::TIMEOUT) else {
            return Ok(None);
        };
        let timeout = timeout(value).ok_or_else(|| Rejection::BadHeader {
            name: metadata::TIMEOUT.to_string(),
            problem: "must be at most eight digits and a unit of H, M, S, m, u or n, as in 500m",
        })?;
        Ok(Self::after(timeout))
    }

    /// The deadline of a request of the Connect protocol that has just arrived, if it has one.
    pub(super) fn of_connect(headers: &HeaderMap) -> Result<Option<Self>, Rejection> {
        let Some(value) = headers.get(metadata::CONNECT_TIMEOUT) else {
            return Ok(None);
        };
        let timeout = connect_timeout(value).ok_or_else(|| Rejection::BadHeader {
            name: "Connect-Timeout-Ms".to_owned(),
            problem: "must be at most ten digits, as in 5000",
        })?;
        Ok(Self::after(timeout))
    }

    fn after(timeout: Duration) -> Option<Self> {
        // One that no clock will see is none.
        Instant::now().checked_add(timeout).map(Self)
    }

    /// The output of the future, unless it comes too late or the deadline has passed already.
    pub(super) async fn limit<F: Future>(self, future: F) -> Option<F::Output> {
        if self.0 <= Instant::now() {
            return None;
        }
        tokio::time::timeout_at(self.0, future).await.ok()
    }
}

/// The time that a client gives a call, from its arrival: the header `grpc-timeout`, or `Connect-Timeout-Ms` beside
/// `Connect-Protocol-Version`, which [`Deadlines`] enforces. None where it gives none that is well formed.
pub fn timeout_of(headers: &HeaderMap) -> Option<Duration> {
    match headers.get(metadata::TIMEOUT) {
        Some(value) => timeout(value),
        None if headers.contains_key(metadata::CONNECT_VERSION) => {
            connect_timeout(headers.get(metadata::CONNECT_TIMEOUT)?)
        }
        None => None,
    }
}

/// A timeout as the Connect protocol writes it, in milliseconds.
pub(super) fn connect_timeout(value: &HeaderValue) -> Option<Duration> {
    let digits = value.as_bytes();
    let is_number = digits.iter().all(u8::is_ascii_digit);
    if !is_number || !(1..=MOST_DIGITS_OF_CONNECT).contains(&digits.len()) {
        return None;
    }
    let number = value.to_str().ok()?.parse().ok()?;
    Some(Duration::from_millis(number))
}

/// A timeout as the gRPC protocol writes it.
fn timeout(value: &HeaderValue) -> Option<Duration> {
    let (unit, digits) = value.as_bytes().split_last()?;
    if digits.is_empty() || digits.len() > MOST_DIGITS || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    match unit {
        b'H' => Some(Duration::from_secs(number * 3600)),
        b'M' => Some(Duration::from_secs(number * 60)),
        b'S' => Some(Duration::from_secs(number)),
        b'm' => Some(Duration::from_millis(number)),
        b'u' => Some(Duration::from_micros(number)),
        b'n' => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

/// Ends the calls of a gRPC service at their deadline: that of their `grpc-timeout`, or the
/// [`Deadline`] in their extensions, which wins. The call is dropped, and the caller is told
/// DEADLINE_EXCEEDED, in trailers where messages have been sent already.
#[derive(Debug, Clone)]
pub struct Deadlines<S> {
    grpc: S,
}

impl<S> Deadlines<S> {
    /// Deadlines around a service.
    pub fn new(grpc: S) -> Self {
        Self { grpc }
    }
}

impl<S> Service<Request<Body>> for Deadlines<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.grpc.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let deadline = match request.extensions().get() {
            Some(deadline) => Ok(Some(*deadline)),
            None => Deadline::of(request.headers()),
        };
        let deadline = match deadline {
            Ok(Some(deadline)) => deadline,
            Ok(None) => return Box::pin(self.grpc.call(request)),
            Err(rejection) => {
                let (_, status) = rejection.to_status();
                return Box::pin(async move { Ok(status.into_http()) });
            }
        };
        let call = self.grpc.call(request);
        Box::pin(async move {
            match deadline.limit(call).await {
                Some(reply) => reply.map(|reply| {
                    reply.map(|body| {
                        Body::new(Limited {
                            body: Some(body),
                            end: Box::pin(tokio::time::sleep_until(deadline.0)),
                        })
                    })
                }),
                None => Ok(exceeded().into_http()),
            }
        })
    }
}

fn exceeded() -> Status {
    Status::deadline_exceeded(Rejection::DeadlineExceeded.to_string())
}

/// The body of a reply until its deadline, then trailers that tell of it.
struct Limited {
    /// Dropped at the deadline, and the call with it.
    body: Option<Body>,
    end: Pin<Box<Sleep>>,
}

impl http_body::Body for Limited {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        let Some(body) = &mut this.body else {
            return Poll::Ready(None);
        };
        // The clock, too: the timer stands still where a service is never slow.
        let is_over = this.end.deadline() <= Instant::now();
        if !is_over && this.end.as_mut().poll(context).is_pending() {
            return Pin::new(body).poll_frame(context);
        }
        self.body = None;
        let mut trailers = HeaderMap::new();
        Poll::Ready(Some(match exceeded().add_header(&mut trailers) {
            Ok(()) => Ok(Frame::trailers(trailers)),
            Err(status) => Err(status),
        }))
    }

    fn is_end_stream(&self) -> bool {
        match &self.body {
            Some(body) => body.is_end_stream(),
            None => true,
        }
    }

    fn size_hint(&self) -> http_body::SizeHint {
        match &self.body {
            Some(body) => body.size_hint(),
            None => http_body::SizeHint::with_exact(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_of_connect_are_milliseconds() {
        for (text, expected) in [
            ("0", Some(0)),
            ("1", Some(1)),
            ("05000", Some(5000)),
            ("9999999999", Some(9_999_999_999)),
            ("10000000000", None),
            ("", None),
            ("-1", None),
            ("1.5", None),
            ("5m", None),
            (" 5", None),
        ] {
            let value = HeaderValue::from_static(text);
            let expected = expected.map(Duration::from_millis);
            assert_eq!(connect_timeout(&value), expected, "{text}");
            let name = metadata::CONNECT_TIMEOUT;
            let mut headers: HeaderMap = [(name, value)].into_iter().collect();
            assert_eq!(timeout_of(&headers), None, "{text}");
            headers.insert(metadata::CONNECT_VERSION, HeaderValue::from_static("1"));
            assert_eq!(timeout_of(&headers), expected, "{text}");
        }
    }

    #[test]
    fn timeouts_are_read_as_the_protocol_writes_them() {
        let cases = [
            ("1H", Some(Duration::from_secs(3600))),
            ("2M", Some(Duration::from_secs(120))),
            ("3S", Some(Duration::from_secs(3))),
            ("4m", Some(Duration::from_millis(4))),
            ("5u", Some(Duration::from_micros(5))),
            ("99999999n", Some(Duration::from_nanos(99_999_999))),
            ("99999999H", Some(Duration::from_secs(99_999_999 * 3600))),
            ("0S", Some(Duration::ZERO)),
            ("999999999n", None),
            ("", None),
            ("S", None),
            ("5", None),
            ("5s", None),
            ("-5S", None),
            ("+5S", None),
            ("1.5S", None),
            (" 5S", None),
        ];
        for (text, expected) in cases {
            let value = HeaderValue::from_static(text);
            assert_eq!(timeout(&value), expected, "{text}");
        }
    }
}
