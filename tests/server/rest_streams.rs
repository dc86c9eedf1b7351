//! Streams of replies over REST: an operation followed to its end, and the audit events.

use desktop_images::contract::desktopimages::v1::ReadAuditEventsRequest;
use flate2::write::GzDecoder;
use prost::Message;
use serde_json::{Value, json};
use std::io::Write;
use test_support::{Disk, Fill, Method, Refusal, TestServer, audit_events, failure, text, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::Code;

/// A reply read piece by piece, as it comes.
struct Lines {
    reply: reqwest::Response,
    /// Decodes the body of the reply.
    decoder: Option<GzDecoder<Vec<u8>>>,
    text: String,
}

impl Lines {
    async fn start(server: &TestServer, path: &str, headers: &[(&str, &str)]) -> Self {
        let mut request = server.http.get(server.url(path));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let reply = within("the stream starts", request.send()).await.unwrap();
        assert_eq!(reply.status(), 200);
        let encoded = reply.headers().contains_key("content-encoding");
        Self {
            reply,
            decoder: encoded.then(|| GzDecoder::new(Vec::new())),
            text: String::new(),
        }
    }

    /// The next line, without its end; none at the end.
    async fn next(&mut self) -> Option<String> {
        loop {
            if let Some((line, rest)) = self.text.split_once('\n') {
                let line = line.to_owned();
                self.text = rest.to_owned();
                return Some(line);
            }
            let piece = within("the stream goes on", self.reply.chunk()).await;
            let piece = piece.unwrap()?;
            let piece = match &mut self.decoder {
                None => piece.to_vec(),
                Some(decoder) => {
                    decoder.write_all(&piece).unwrap();
                    decoder.flush().unwrap();
                    std::mem::take(decoder.get_mut())
                }
            };
            self.text.push_str(std::str::from_utf8(&piece).unwrap());
        }
    }

    /// The next event: its name, where it has one, and its data.
    async fn event(&mut self) -> Option<(String, Value)> {
        let (id, name, data) = self.event_with_id().await?;
        assert_eq!(id, None);
        Some((name, data))
    }

    /// The next event with its id, where it has one.
    async fn event_with_id(&mut self) -> Option<(Option<String>, String, Value)> {
        let (mut id, mut name, mut data) = (None, String::new(), Value::Null);
        while let Some(line) = self.next().await {
            match line.split_once(": ") {
                Some(("id", text)) => id = Some(text.to_owned()),
                Some(("event", word)) => name = word.to_owned(),
                Some(("data", json)) => data = serde_json::from_str(json).unwrap(),
                _ => {
                    assert_eq!(line, "");
                    return Some((id, name, data));
                }
            }
        }
        None
    }
}

/// An import that runs until it is cancelled.
async fn endless_import(server: &TestServer) -> String {
    let uri = server.importable_hole("large.img", 64 << 30);
    let request = json!({"folderId": "f", "uri": uri});
    let accepted = server.ask(Method::Create, request).await;
    text(&accepted, "id").to_owned()
}

async fn get(server: &TestServer, path: &str, accept: &str) -> (u16, String, String) {
    let request = server.http.get(server.url(path)).header("accept", accept);
    let reply = request.send().await.unwrap();
    let content_type = reply.headers().get("content-type");
    let content_type = content_type.map_or("", |value| value.to_str().unwrap());
    let (status, content_type) = (reply.status().as_u16(), content_type.to_owned());
    (status, content_type, reply.text().await.unwrap())
}

#[tokio::test]
async fn a_running_operation_is_followed_event_by_event_in_any_coding() {
    for coding in ["identity", "gzip"] {
        let server = TestServer::start().await;
        let id = endless_import(&server).await;
        let headers = [("accept", "text/event-stream"), ("accept-encoding", coding)];
        let path = format!("/operations/{id}:watch");
        let mut events = Lines::start(&server, &path, &headers).await;
        assert_eq!(events.decoder.is_some(), coding == "gzip");
        // Each arrives while the operation goes on, however it is encoded.
        for _ in 0..2 {
            let (name, state) = events.event().await.expect("an event");
            assert_eq!((name.as_str(), &state["id"]), ("", &json!(id)));
            assert_eq!(state["done"], false);
        }
        let request = json!({"operationId": id});
        server.ask(Method::OperationCancel, request.clone()).await;
        let mut last = Value::Null;
        loop {
            match events.event().await.expect("an end") {
                (name, state) if name.is_empty() => last = state,
                end => {
                    assert_eq!(end, ("end".to_owned(), json!({})));
                    break;
                }
            }
        }
        assert_eq!(events.event().await, None);
        assert_eq!(failure(&last).0, Code::Cancelled);
        assert_eq!(server.ask(Method::OperationGet, request).await, last);
    }
}

#[tokio::test]
async fn what_has_ended_is_told_once_in_the_form_asked_for() {
    let server = TestServer::start().await;
    let operation = server
        .uploaded("f", "", &Disk::mbr(1, Fill::Sparse(1)))
        .await;
    let path = format!("/operations/{}:watch", text(&operation, "id"));
    let read = |text: &str| serde_json::from_str::<Value>(text).unwrap();

    let (status, content_type, body) = get(&server, &path, "*/*").await;
    assert_eq!((status, content_type.as_str()), (200, "application/json"));
    assert_eq!(read(&body), json!([operation]));
    let (_, content_type, body) = get(&server, &path, "application/x-ndjson").await;
    assert_eq!(content_type, "application/x-ndjson");
    assert_eq!((body.lines().count(), read(&body)), (1, operation.clone()));
    let (_, content_type, body) = get(&server, &path, "text/event-stream").await;
    assert_eq!(content_type, "text/event-stream");
    let (data, end) = body.split_once("\n\n").unwrap();
    assert_eq!(read(data.strip_prefix("data: ").unwrap()), operation);
    assert_eq!(end, "event: end\ndata: {}\n\n");

    let (status, ..) = get(&server, &path, "text/html").await;
    assert_eq!(status, 406);
    let head = server.http.head(server.url(&path)).send().await.unwrap();
    assert_eq!(head.status(), 200);
    assert_eq!(head.headers()["content-type"], "application/json");
    let post = server.http.post(server.url(&path)).send().await.unwrap();
    assert_eq!(post.status(), 405);
    assert_eq!(post.headers()["allow"], "GET, HEAD, OPTIONS");
}

#[tokio::test]
async fn what_cannot_be_watched_has_a_status_of_its_own() {
    let server = TestServer::start().await;
    for accept in [
        "application/json",
        "application/x-ndjson",
        "text/event-stream",
    ] {
        let (status, content_type, body) = get(&server, "/operations/x:watch", accept).await;
        assert_eq!((status, content_type.as_str()), (404, "application/json"));
        let refusal = Refusal::from_json(&serde_json::from_str(&body).unwrap());
        assert_eq!(refusal.code, Code::NotFound);
    }
}

#[tokio::test]
async fn a_watch_ends_with_its_deadline_and_with_the_server() {
    let mut server = TestServer::start_with(|config| {
        config.drain_timeout = std::time::Duration::from_secs(3600);
    })
    .await;
    let id = endless_import(&server).await;
    let path = format!("/operations/{id}:watch");
    for (headers, code) in [
        (&[("grpc-timeout", "1S")][..], Code::DeadlineExceeded),
        (&[], Code::Unavailable),
    ] {
        let mut lines = vec![("accept", "application/x-ndjson")];
        lines.extend(headers);
        let mut lines = Lines::start(&server, &path, &lines).await;
        let mut last: Value = serde_json::from_str(&lines.next().await.unwrap()).unwrap();
        let stopped = match code {
            Code::Unavailable => Some(within("the server stops", server.stop())),
            _ => None,
        };
        let rest = async {
            while let Some(line) = lines.next().await {
                last = serde_json::from_str(&line).unwrap();
            }
        };
        match stopped {
            Some(stopped) => drop(tokio::join!(stopped, rest)),
            None => rest.await,
        }
        assert_eq!(last["@type"], "type.googleapis.com/google.rpc.Status");
        assert_eq!(last["code"], code as i32, "{last}");
    }
}

/// A watch of health has no end, also when the server stops: two streams over HTTP/2, and one over HTTP/1.1.
#[tokio::test]
async fn streams_that_outlast_the_drain_are_cut_off() {
    let mut server = TestServer::start_with(|config| {
        config.drain_timeout = std::time::Duration::from_millis(100);
    })
    .await;
    let url = server.url("/grpc.health.v1.Health/Watch");
    let http2 = reqwest::Client::builder().no_proxy();
    let http2 = http2.http2_prior_knowledge().build().unwrap();
    let mut replies = Vec::new();
    for client in [&http2, &http2, &server.http] {
        let request = client.post(&url).header("accept", "application/x-ndjson");
        let reply = within("the stream starts", request.send()).await;
        let mut reply = reply.unwrap();
        let first = within("the first line", reply.chunk()).await.unwrap();
        assert_eq!(first.unwrap().as_ref(), b"{\"status\":\"SERVING\"}\n");
        replies.push(reply);
    }
    within("the server stops", server.stop()).await;
    for mut reply in replies {
        let told = within("the stop is told", reply.chunk()).await.unwrap();
        assert_eq!(told.unwrap().as_ref(), b"{\"status\":\"NOT_SERVING\"}\n");
        let next = within("the stream breaks off", reply.chunk()).await;
        assert!(next.is_err(), "not a whole stream: {next:?}");
    }
}

/// Over HTTP/1.1 too, the end is told in trailers to those who take them.
#[tokio::test]
async fn trailers_tell_how_a_stream_ended() {
    let server = TestServer::start().await;
    let operation = server
        .uploaded("f", "", &Disk::mbr(1, Fill::Sparse(1)))
        .await;
    for (te, has_trailers) in [
        ("TE: trailers\r\nConnection: TE, close", true),
        ("Connection: close", false),
    ] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let request = format!(
            "GET /operations/{}:watch HTTP/1.1\r\nHost: {}\r\n{te}\r\n\r\n",
            text(&operation, "id"),
            server.address
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        within("the reply ends", stream.read_to_string(&mut answer))
            .await
            .unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let announced = head
            .to_ascii_lowercase()
            .contains("\ntrailer: grpc-status, grpc-message");
        let ends = body.contains("\r\n0\r\ngrpc-status: 0\r\n");
        assert_eq!((announced, ends), (has_trailers, has_trailers), "{answer}");
    }
}

#[tokio::test]
async fn audit_events_are_read_and_followed() {
    let server = TestServer::start().await;
    server
        .compute_image("f", "n", &Disk::mbr(1, Fill::Sparse(1)))
        .await;
    server
        .compute_image("g", "n", &Disk::mbr(1, Fill::Sparse(1)))
        .await;
    let path = "/desktop-images/v1/auditEvents";
    for (query, folder, after) in [
        ("", "", 0),
        ("?folderId=f", "f", 0),
        ("?after_sequence=1", "", 1),
    ] {
        let (status, _, body) = get(&server, &format!("{path}{query}"), "*/*").await;
        assert_eq!(status, 200);
        let events: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(
            events,
            json!(audit_events(&server, folder, after).await),
            "{query}"
        );
    }
    let (status, _, body) = get(&server, &format!("{path}?afterSequence=-1"), "*/*").await;
    let refusal = Refusal::from_json(&serde_json::from_str(&body).unwrap());
    assert_eq!(
        (status, refusal.fields),
        (400, vec!["after_sequence".to_owned()])
    );

    let headers = [("accept", "application/x-ndjson")];
    let followed = format!("{path}?folderId=g&follow=true");
    let mut lines = Lines::start(&server, &followed, &headers).await;
    for status in ["STARTED", "DONE"] {
        let event: Value = serde_json::from_str(&lines.next().await.unwrap()).unwrap();
        assert_eq!(event["status"], status);
    }
    server
        .compute_image("g", "m", &Disk::mbr(1, Fill::Sparse(1)))
        .await;
    for status in ["STARTED", "DONE"] {
        let event: Value = serde_json::from_str(&lines.next().await.unwrap()).unwrap();
        assert_eq!(
            (&event["status"], &event["folderId"]),
            (&json!(status), &json!("g"))
        );
    }
}

const QUIET: &str = "/desktop-images/v1/auditEvents?folderId=quiet&follow=true";

/// Nobody writes into the folder: nothing but the answer itself may come.
#[tokio::test]
async fn what_is_followed_is_answered_before_anything_happens() {
    let server = TestServer::start().await;
    for (accept, coding) in [
        ("application/json", "identity"),
        ("application/x-ndjson", "gzip"),
        ("text/event-stream", "zstd"),
    ] {
        let headers = [("accept", accept), ("accept-encoding", coding)];
        let quiet = Lines::start(&server, QUIET, &headers).await;
        let headers = quiet.reply.headers();
        assert_eq!(headers["content-type"], accept);
        assert_eq!(headers["x-accel-buffering"], "no", "{accept}");
        assert!(!headers.contains_key("content-length"), "{accept}");
    }
    // HEAD tells as much.
    let head = server.http.head(server.url(QUIET)).send();
    let head = within("HEAD is answered", head).await.unwrap();
    assert_eq!(head.status(), 200);

    // Over gRPC, and over gRPC-Web on HTTP/1.1.
    let request = ReadAuditEventsRequest {
        folder_id: "quiet".to_owned(),
        after_sequence: 0,
        follow: true,
    };
    let mut audit = server.audit();
    let read = within("gRPC is answered", audit.read(request.clone())).await;
    drop(read.expect("a stream"));
    let message = request.encode_to_vec();
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    let web = server
        .http
        .post(server.url("/desktopimages.v1.AuditService/Read"))
        .header("content-type", "application/grpc-web+proto")
        .body([&[0][..], &length, &message].concat());
    let web = within("gRPC-Web is answered", web.send()).await.unwrap();
    assert_eq!(web.status(), 200);
    assert_eq!(web.headers()["x-accel-buffering"], "no");
    assert!(!web.headers().contains_key("grpc-status"));
}

/// Through a content coding too, which might keep what is small.
#[tokio::test]
async fn a_quiet_stream_shows_that_it_lives() {
    let server = TestServer::start().await;
    let events = [("accept", "text/event-stream"), ("accept-encoding", "gzip")];
    let array = [("accept", "application/json"), ("accept-encoding", "gzip")];
    let mut events = Lines::start(&server, QUIET, &events).await;
    let mut array = Lines::start(&server, QUIET, &array).await;
    let comment = events.next().await.expect("a comment");
    assert!(comment.starts_with(':'), "{comment}");
    assert_eq!(events.next().await.as_deref(), Some(""));
    let mut decoded = Vec::new();
    while decoded.is_empty() {
        let piece = within("white space", array.reply.chunk()).await.unwrap();
        let decoder = array.decoder.as_mut().expect("it is encoded");
        decoder.write_all(&piece.expect("no end")).unwrap();
        decoder.flush().unwrap();
        decoded.append(decoder.get_mut());
    }
    assert!(decoded.iter().all(u8::is_ascii_whitespace), "{decoded:?}");
}

#[tokio::test]
async fn audit_events_are_read_on_behind_the_last_event_id() {
    let server = TestServer::start().await;
    for folder in ["f", "g"] {
        server
            .compute_image(folder, "n", &Disk::mbr(1, Fill::Sparse(1)))
            .await;
    }
    let all = audit_events(&server, "", 0).await;
    let path = "/desktop-images/v1/auditEvents";
    let read = async |query: &str, last: Option<&str>| {
        let mut headers = vec![("accept", "text/event-stream")];
        headers.extend(last.map(|last| ("last-event-id", last)));
        let mut lines = Lines::start(&server, &format!("{path}{query}"), &headers).await;
        let mut events = Vec::new();
        loop {
            let (id, name, event) = lines.event_with_id().await.expect("an end");
            if name == "end" {
                assert_eq!(id, None, "the last id stays that of an audit event");
                return events;
            }
            assert_eq!(id.as_deref(), event["sequence"].as_str(), "{event}");
            events.push(event);
        }
    };
    assert_eq!(read("", None).await, all);
    assert_eq!(read("", Some("")).await, all);
    for (seen, event) in all.iter().enumerate() {
        let last = text(event, "sequence");
        assert_eq!(read("", Some(last)).await, all[seen + 1..], "{last}");
        // A browser asks for the same address again, whatever that said.
        let query = "?afterSequence=1";
        assert_eq!(read(query, Some(last)).await, all[seen + 1..], "{last}");
    }
    let of_g: Vec<_> = all
        .iter()
        .filter(|event| event["folderId"] == "g")
        .collect();
    let first = text(&all[0], "sequence");
    let read = read("?folderId=g", Some(first)).await;
    assert_eq!(read.iter().collect::<Vec<_>>(), of_g);

    for wrong in ["x", "-1", "1.5", "99999999999999999999"] {
        let request = server.http.get(server.url(path));
        let request = request.header("last-event-id", wrong);
        let reply = request.send().await.unwrap();
        assert_eq!(reply.status(), 400, "{wrong}");
        let body = reply.text().await.unwrap();
        assert!(body.contains("Last-Event-ID"), "{body}");
    }

    // A watch tells how things stand, wherever it was left.
    let operation = text(&all[0], "operationId");
    let headers = [("accept", "text/event-stream"), ("last-event-id", "7")];
    let path = format!("/operations/{operation}:watch");
    let mut watch = Lines::start(&server, &path, &headers).await;
    let (name, state) = watch.event().await.expect("a state, without an id");
    assert_eq!((name.as_str(), &state["id"]), ("", &json!(operation)));
}
