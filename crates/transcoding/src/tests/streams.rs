//! Bytes that pass while a call runs: as much as the client takes, as long as its deadline allows.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::FutureExt;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, Full};
use prost::Message;
use prost_reflect::DynamicMessage;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::body::Body;
use tower::{Service, ServiceExt};

use super::{
    super::{Deadlines, Events, Settings, Transcoder},
    Inner, SERVICE, data, pool, request, thing_of,
};

/// A service whose every reply is this many messages, one behind another without a pause, and then
/// silence.
#[derive(Clone, Default)]
struct Source {
    messages: usize,
    given: Arc<AtomicUsize>,
    dropped: Arc<AtomicBool>,
}

struct SourceBody(Source);

impl Drop for SourceBody {
    fn drop(&mut self) {
        self.0.dropped.store(true, Ordering::SeqCst);
    }
}

impl http_body::Body for SourceBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.0.given.load(Ordering::SeqCst) == self.0.messages {
            return Poll::Pending;
        }
        self.0.given.fetch_add(1, Ordering::SeqCst);
        let message = data(&Message::encode_to_vec(&thing_of(r#"{"text": "x"}"#)));
        Poll::Ready(Some(Ok(Frame::data(message))))
    }
}

impl Service<Request<Body>> for Source {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Body>) -> Self::Future {
        let mut response = Response::new(Body::new(SourceBody(self.clone())));
        let grpc = http::HeaderValue::from_static("application/grpc");
        response.headers_mut().insert("content-type", grpc);
        std::future::ready(Ok(response))
    }
}

fn transcoder<S>(service: S) -> Transcoder<Deadlines<S>> {
    let service = Deadlines::new(service);
    Transcoder::new(pool(), [SERVICE], service, Settings::default()).expect("the rules are right")
}

#[tokio::test]
async fn a_service_goes_no_faster_than_its_client_reads() {
    for accept in [
        "application/json",
        "application/x-ndjson",
        "text/event-stream",
    ] {
        let source = Source {
            messages: usize::MAX,
            ..Source::default()
        };
        let request = request("GET /v1/watch", &[("accept", accept)], b"");
        let Ok(response) = transcoder(source.clone()).oneshot(request).await;
        assert_eq!(
            source.given.load(Ordering::SeqCst),
            1,
            "only what might be a failure"
        );
        let mut body = response.into_body();
        for read in 1..=5 {
            let frame = body.frame().await.expect("a frame").expect("a frame");
            assert!(frame.is_data());
            assert_eq!(source.given.load(Ordering::SeqCst), read, "{accept}");
        }
        assert!(!source.dropped.load(Ordering::SeqCst));
        drop(body);
        assert!(
            source.dropped.load(Ordering::SeqCst),
            "the call ends with its reader"
        );
    }
}

#[tokio::test]
async fn a_stream_ends_at_its_deadline() {
    for messages in [0, 1, usize::MAX] {
        let source = Source {
            messages,
            ..Source::default()
        };
        let headers = [("grpc-timeout", "50m"), ("accept", "application/x-ndjson")];
        let request = request("GET /v1/watch", &headers, b"");
        let Ok(response) = transcoder(source.clone()).oneshot(request).await;
        assert_eq!(response.status(), 200);
        let body = response.into_body().collect().await.expect("a whole body");
        let text = String::from_utf8(body.to_bytes().to_vec()).expect("text");
        let last: serde_json::Value =
            serde_json::from_str(text.lines().last().expect("a line")).expect("JSON");
        assert_eq!(last["@type"], "type.googleapis.com/google.rpc.Status");
        assert_eq!(last["code"], 4);
        assert!(source.dropped.load(Ordering::SeqCst));
    }
}

const FORMS: [&str; 3] = [
    "application/json",
    "application/x-ndjson",
    "text/event-stream",
];

#[tokio::test]
async fn a_stream_is_answered_before_its_first_message() {
    for accept in FORMS {
        let request = request("GET /v1/watch", &[("accept", accept)], b"");
        let mut call = transcoder(Source::default());
        let response = call.call(request).now_or_never();
        let Ok(response) = response.unwrap_or_else(|| panic!("{accept}: it waits"));
        assert_eq!(response.status(), 200, "{accept}");
        assert_eq!(response.headers()["content-type"], accept);
        assert_eq!(response.headers()["x-accel-buffering"], "no", "{accept}");
    }
}

/// The bodies of streams that are quiet but for their first messages, until their deadline.
async fn quiet(accept: &str, messages: usize) -> String {
    let source = Source {
        messages,
        ..Source::default()
    };
    let settings = Settings {
        heartbeat: Duration::from_millis(20),
        ..Settings::default()
    };
    let service = Deadlines::new(source);
    let transcoder =
        Transcoder::new(pool(), [SERVICE], service, settings).expect("the rules are right");
    let headers = [("accept", accept), ("grpc-timeout", "500m")];
    let Ok(response) = transcoder
        .oneshot(request("GET /v1/watch", &headers, b""))
        .await;
    let body = response.into_body().collect().await.expect("a whole body");
    String::from_utf8(body.to_bytes().to_vec()).expect("text")
}

#[tokio::test]
async fn a_quiet_stream_shows_that_it_lives_and_means_the_same() {
    for messages in [0, 1, 3] {
        let array = quiet("application/json", messages).await;
        assert!(array.matches(' ').count() > 1, "{array}");
        let elements: Vec<serde_json::Value> = serde_json::from_str(&array).expect(&array);
        assert_eq!(elements.len(), messages + 1);
        assert_eq!(elements[messages]["code"], 4);

        let lines = quiet("application/x-ndjson", messages).await;
        assert_eq!(lines.lines().count(), messages + 1, "{lines}");
        for line in lines.lines() {
            serde_json::from_str::<serde_json::Value>(line).expect(line);
        }

        let events = quiet("text/event-stream", messages).await;
        let (comments, events): (Vec<&str>, Vec<&str>) = events
            .split_terminator("\n\n")
            .partition(|event| event.starts_with(':'));
        assert!(comments.len() > 1, "{comments:?}");
        assert!(comments.iter().all(|comment| !comment.contains('\n')));
        assert_eq!(events.len(), messages + 1, "{events:?}");
    }
}

/// Names an event by the text of its Thing.
#[derive(Debug)]
struct Texts;

impl Events for Texts {
    fn id(&self, method: &str, message: &[u8]) -> Option<String> {
        assert_eq!(method, "transcoding.test.Things/Watch");
        let thing = DynamicMessage::decode(super::thing(), message).expect("a Thing");
        Some(super::text(&thing, "text")).filter(|text| !text.is_empty())
    }

    fn resume(
        &self,
        method: &str,
        id: &str,
        request: &mut DynamicMessage,
    ) -> Result<(), &'static str> {
        assert_eq!(method, "transcoding.test.Things/Watch");
        if id == "wrong" {
            return Err("must be right");
        }
        let after = format!("after {id}");
        request.set_field_by_name("text", prost_reflect::Value::String(after));
        Ok(())
    }
}

#[tokio::test]
async fn events_have_the_ids_that_are_given_to_them_and_go_on_behind_the_last() {
    let settings = Settings {
        events: Some(Arc::new(Texts)),
        ..Settings::default()
    };
    let transcoder = Transcoder::new(pool(), [SERVICE], Inner::default(), settings)
        .expect("the rules are right");
    let events = "text/event-stream";
    for (query, accept, last, id) in [
        ("?text=a", events, None, Some("a")),
        ("?text=a", events, Some(""), Some("a")),
        ("?text=a", events, Some("b"), Some("after b")),
        ("", events, Some("я"), Some("after я")),
        ("", events, None, None),
        // What would end the line, or the client's memory of ids, is no id.
        ("?text=a%0Ab", events, None, None),
        ("?text=a%0Db", events, None, None),
        ("?text=a%00b", events, None, None),
        ("?text=a", "application/json", Some("b"), None),
    ] {
        let line = format!("GET /v1/watch{query}");
        let mut request = request(&line, &[("accept", accept)], b"");
        if let Some(last) = last {
            let last = http::HeaderValue::from_bytes(last.as_bytes()).expect("a value");
            request.headers_mut().insert("last-event-id", last);
        }
        let Ok(response) = transcoder.clone().oneshot(request).await;
        assert_eq!(response.status(), 200, "{line}");
        let body = response.into_body().collect().await.expect("a whole body");
        let body = String::from_utf8(body.to_bytes().to_vec()).expect("text");
        let found = body.split_once('\n').and_then(|(line, rest)| {
            assert!(accept != events || body.contains("data: {"), "{body}");
            assert!(!rest.contains("id: "), "{body}");
            line.strip_prefix("id: ")
        });
        assert_eq!(found, id, "{line}: {body}");
        let after = last.filter(|last| !last.is_empty());
        assert_eq!(body.contains("\"after "), after.is_some(), "{line}: {body}");
    }
    let headers = [("accept", events), ("last-event-id", "wrong")];
    let Ok(response) = transcoder
        .oneshot(request("GET /v1/watch", &headers, b""))
        .await;
    assert_eq!(response.status(), 400);
    let body = response.into_body().collect().await.expect("a whole body");
    let body = String::from_utf8_lossy(&body.to_bytes()).into_owned();
    assert!(body.contains("Last-Event-ID must be right"), "{body}");
}

#[tokio::test]
async fn a_call_ends_at_its_deadline() {
    let inner = Inner::default();
    let dropped = Arc::clone(&inner.dropped);
    let call = request("POST /v1/hang", &[("grpc-timeout", "20m")], b"");
    let Ok(response) = transcoder(inner).oneshot(call).await;
    assert_eq!(response.status(), 504);
    assert!(dropped.load(Ordering::SeqCst), "the call is dropped");

    // A body that does not end counts, too.
    let endless = Body::new(http_body_util::StreamBody::new(
        futures_util::stream::pending::<Result<Frame<Bytes>, Infallible>>(),
    ));
    let request = Request::post("/v1/things")
        .header("grpc-timeout", "20m")
        .body(endless)
        .expect("a request");
    let Ok(response) = transcoder(Inner::default()).oneshot(request).await;
    assert_eq!(response.status(), 504);
}

#[tokio::test]
async fn a_grpc_call_ends_at_its_deadline() {
    let grpc = |method: &str, timeout: &str| {
        Request::post(format!("http://a/{SERVICE}/{method}"))
            .header("content-type", "application/grpc")
            .header("grpc-timeout", timeout)
            .body(Full::new(data(&[])))
            .expect("a request")
    };
    let Ok(response) = transcoder(Inner::default())
        .oneshot(grpc("Hang", "20m"))
        .await;
    assert_eq!(response.headers()["grpc-status"], "4");
    let Ok(response) = transcoder(Inner::default())
        .oneshot(grpc("Hang", "2"))
        .await;
    assert_eq!(response.headers()["grpc-status"], "3");

    let source = Source {
        messages: 1,
        ..Source::default()
    };
    let Ok(response) = transcoder(source.clone())
        .oneshot(grpc("Watch", "50m"))
        .await;
    let body = response.into_body().collect().await.expect("a whole body");
    let trailers = body.trailers().expect("trailers");
    assert_eq!(trailers["grpc-status"], "4");
    assert!(source.dropped.load(Ordering::SeqCst));
}

/// Over a real connection: the server sees that its client is gone, before and after the first byte
/// of the reply.
#[tokio::test]
async fn a_client_that_closes_its_connection_ends_the_call() {
    let source = Source {
        messages: 1,
        ..Source::default()
    };
    let inner = Inner::default();
    let cases: [(&str, Arc<AtomicBool>); 2] = [
        ("POST /v1/hang", Arc::clone(&inner.dropped)),
        ("GET /v1/watch", Arc::clone(&source.dropped)),
    ];
    for (line, dropped) in cases {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port");
        let address = listener.local_addr().expect("an address");
        let (hanging, watched) = (transcoder(inner.clone()), transcoder(source.clone()));
        let is_hang = line.contains("hang");
        let server = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.expect("a connection");
            let stream = hyper_util::rt::TokioIo::new(stream);
            let builder = hyper::server::conn::http1::Builder::new();
            let service =
                hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
                    let (hanging, watched) = (hanging.clone(), watched.clone());
                    async move {
                        if is_hang {
                            hanging.oneshot(request).await
                        } else {
                            watched.oneshot(request).await
                        }
                    }
                });
            let _ = builder.serve_connection(stream, service).await;
        });
        let mut stream = tokio::net::TcpStream::connect(address)
            .await
            .expect("a server");
        let head = format!("{line} HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n");
        stream.write_all(head.as_bytes()).await.expect("a request");
        if !is_hang {
            let mut start = [0; 12];
            stream.read_exact(&mut start).await.expect("a reply");
            assert_eq!(&start, b"HTTP/1.1 200");
        }
        assert!(!dropped.load(Ordering::SeqCst), "{line}: the call runs");
        drop(stream);
        tokio::time::timeout(Duration::from_secs(10), server)
            .await
            .expect("the connection ends")
            .expect("no panic");
        assert!(
            dropped.load(Ordering::SeqCst),
            "{line}: the call is dropped"
        );
    }
}

/// Over HTTP/2 a client gives up one call and keeps its connection.
#[tokio::test]
async fn a_client_that_resets_its_stream_ends_the_call() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let address = listener.local_addr().expect("an address");
    let source = Source {
        messages: 1,
        ..Source::default()
    };
    let watched = transcoder(source.clone());
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("a connection");
        let stream = hyper_util::rt::TokioIo::new(stream);
        let executor = hyper_util::rt::TokioExecutor::new();
        let builder = hyper::server::conn::http2::Builder::new(executor);
        let service = hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
            watched.clone().oneshot(request)
        });
        let _ = builder.serve_connection(stream, service).await;
    });
    let stream = tokio::net::TcpStream::connect(address)
        .await
        .expect("a server");
    let (requests, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
    tokio::spawn(connection);
    for _ in 0..2 {
        source.given.store(0, Ordering::SeqCst);
        source.dropped.store(false, Ordering::SeqCst);
        let mut requests = requests.clone().ready().await.expect("a connection");
        let request = Request::get(format!("http://{address}/v1/watch"));
        let request = request.body(()).expect("a request");
        let (reply, mut stream) = requests.send_request(request, true).expect("a stream");
        assert_eq!(reply.await.expect("a reply").status(), 200);
        assert!(!source.dropped.load(Ordering::SeqCst), "the call runs");
        stream.send_reset(h2::Reason::CANCEL);
        let dropped = async {
            while !source.dropped.load(Ordering::SeqCst) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), dropped)
            .await
            .expect("the call is dropped");
    }
}
