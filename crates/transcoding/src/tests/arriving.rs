//! Replies of one message that arrive as a whole, in parts, late, or not to their end.

use std::{collections::VecDeque, task::Poll};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode};
use http_body::Frame;
use http_body_util::StreamBody;
use tonic::{Code, Status, body::Body};

use super::super::{
    codec::{self, Codec},
    frames::{Messages, Read, whole},
    metadata,
    rules::{self, Method},
};
use super::{SERVICE, pool};

/// One step of a body that arrives.
#[derive(Clone, Copy)]
enum Step {
    Data(&'static [u8]),
    Status(&'static str),
    /// The status, and metadata.
    More,
    Wait,
    Fail,
}
use Step::{Data, Fail, More, Status as Ends, Wait};

fn body(steps: &[Step]) -> Body {
    let mut steps: VecDeque<Step> = steps.iter().copied().collect();
    let status = |code| HeaderMap::from_iter([(metadata::STATUS, code)]);
    let frames = futures_util::stream::poll_fn(move |context| {
        let frame = match steps.pop_front() {
            None => return Poll::Ready(None),
            Some(Wait) => {
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            Some(Fail) => Err(Status::data_loss("broken off")),
            Some(Data(data)) => Ok(Frame::data(Bytes::from_static(data))),
            Some(Ends(code)) => Ok(Frame::trailers(status(HeaderValue::from_static(code)))),
            Some(More) => {
                let mut trailers = status(HeaderValue::from_static("0"));
                trailers.insert("x-more", HeaderValue::from_static("1"));
                Ok(Frame::trailers(trailers))
            }
        };
        Poll::Ready(Some(frame))
    });
    Body::new(StreamBody::new(frames))
}

/// The messages of a reply and how many trailers it had, or its status.
type Seen = Result<(Vec<Bytes>, usize), Code>;

/// Whether a reply was taken as a whole, and its messages or its status, with what was behind them.
async fn seen(method: &Method, steps: &[Step]) -> (bool, Seen) {
    let (mut body, mut read) = (body(steps), Read::default());
    if let Some(message) = whole(&mut body, &mut read) {
        return (true, Ok((vec![message], 1)));
    }
    let all = async {
        let mut messages = Messages::new(StatusCode::OK, HeaderMap::new(), read, body)?;
        let mut all = Vec::new();
        while let Some(message) = messages.next(method).await? {
            all.push(message);
        }
        Ok((all, messages.trailers().len()))
    };
    (false, all.await.map_err(|status: Status| status.code()))
}

#[tokio::test]
async fn replies_are_read_alike_however_they_arrive() {
    const A: &[u8] = b"\0\0\0\0\x01a";
    const B: &[u8] = b"\0\0\0\0\x01b";
    const BOTH: &[u8] = b"\0\0\0\0\x01a\0\0\0\0\x01b";
    let a = Bytes::from_static(b"a");
    let b = Bytes::from_static(b"b");
    let messages = |messages: &[&Bytes]| -> Vec<Bytes> {
        messages.iter().map(|message| (*message).clone()).collect()
    };
    let cases: [(&str, &[Step], bool, Seen); 13] = [
        (
            "whole",
            &[Data(A), Ends("0")],
            true,
            Ok((messages(&[&a]), 1)),
        ),
        (
            "metadata",
            &[Data(A), More],
            false,
            Ok((messages(&[&a]), 2)),
        ),
        (
            "failed behind",
            &[Data(A), Ends("5")],
            false,
            Err(Code::NotFound),
        ),
        ("failed", &[Ends("5")], false, Err(Code::NotFound)),
        (
            "late",
            &[Wait, Data(A), Ends("0")],
            false,
            Ok((messages(&[&a]), 1)),
        ),
        (
            "a late end",
            &[Data(A), Wait, Ends("0")],
            false,
            Ok((messages(&[&a]), 1)),
        ),
        (
            "an empty frame behind",
            &[Data(A), Data(b""), Wait, Ends("0")],
            false,
            Ok((messages(&[&a]), 1)),
        ),
        (
            "halves",
            &[Data(&A[..3]), Data(&A[3..]), Ends("0")],
            false,
            Ok((messages(&[&a]), 1)),
        ),
        (
            "two",
            &[Data(A), Data(B), Ends("0")],
            false,
            Ok((messages(&[&a, &b]), 1)),
        ),
        (
            "two in one",
            &[Data(BOTH), Ends("0")],
            false,
            Ok((messages(&[&a, &b]), 1)),
        ),
        ("broken off", &[Data(A), Fail], false, Err(Code::DataLoss)),
        (
            "broken off late",
            &[Data(A), Wait, Fail],
            false,
            Err(Code::DataLoss),
        ),
        ("no status", &[Data(A)], false, Err(Code::Internal)),
    ];
    let codec = Codec::new(pool(), codec::Settings::default());
    let router = rules::compile(pool(), &codec, [SERVICE]).expect("the rules are right");
    let method = &router.routes()[0].value.method;
    for (name, steps, is_whole, expected) in cases {
        assert_eq!(seen(method, steps).await, (is_whole, expected), "{name}");
    }
}
