//! What passes while a call runs: as much as the client takes, as long as its deadline allows.

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
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, Full};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::body::Body;
use tower::{Service, ServiceExt};

use super::{
    super::{Deadlines, Settings, Transcoder},
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
        let message = data(&prost::Message::encode_to_vec(&thing_of(
            r#"{"text": "x"}"#,
        )));
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
            "only what decides the status"
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
    for messages in [1, usize::MAX] {
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
    // Without a message there is an HTTP status to tell it.
    let request = request("GET /v1/watch", &[("grpc-timeout", "20m")], b"");
    let Ok(response) = transcoder(Source::default()).oneshot(request).await;
    assert_eq!(response.status(), 504);
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
