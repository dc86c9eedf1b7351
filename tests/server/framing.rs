//! Requests byte by byte: what could be read in two ways is refused, and a connection says when it ends.

use test_support::{Refusal, TestServer, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The answers of a connection until it ends: a request for health follows each, so that it shows whether
/// the connection was kept.
async fn answers(server: &TestServer, request: &str) -> String {
    let follows = "GET /grpc.health.v1.Health/none HTTP/1.1\r\nHost: localhost\r\n\
                   Connection: close\r\n\r\n";
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let both = format!("{request}{follows}");
    stream.write_all(both.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // A reset ends it, too.
    let _ = within("the connection ends", stream.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}

fn status(answer: &str) -> u16 {
    let code = answer
        .strip_prefix("HTTP/1.")
        .and_then(|rest| rest.get(2..5));
    code.and_then(|code| code.parse().ok())
        .unwrap_or_else(|| panic!("{answer:?}"))
}

/// A request for a list, with these lines in its head.
fn get(lines: &str) -> String {
    format!("GET /compute/v1/images?folderId=f HTTP/1.1\r\n{lines}\r\n")
}

fn post(lines: &str, body: &str) -> String {
    format!("POST /grpc.health.v1.Health/Check HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n{body}")
}

#[tokio::test]
async fn requests_that_could_be_read_in_two_ways_are_refused_and_their_connection_ends() {
    let server = TestServer::start().await;
    let here = server.address;
    let chunks = "2\r\n{}\r\n0\r\n\r\n";
    let of_0 = |lines: &str| get(lines).replace("HTTP/1.1", "HTTP/1.0");
    let target =
        |target: &str, host: &str| format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let cases = [
        (
            "two hosts",
            get("Host: localhost\r\nHost: evil.example\r\n"),
            400,
        ),
        (
            "one host twice",
            get("Host: localhost\r\nhost: localhost\r\n"),
            400,
        ),
        ("no host", get(""), 400),
        (
            "no host but a body",
            post("", "").replace("Host: localhost\r\n", ""),
            400,
        ),
        ("an empty host", get("Host:\r\n"), 400),
        ("a host of spaces", get("Host:   \r\n"), 400),
        (
            "two hosts in one line",
            get("Host: localhost, evil.example\r\n"),
            400,
        ),
        ("a URL for a host", get("Host: http://localhost\r\n"), 400),
        ("a path in the host", get("Host: localhost/a\r\n"), 400),
        ("a user in the host", get("Host: evil@localhost\r\n"), 400),
        ("no number for a port", get("Host: localhost:x\r\n"), 400),
        (
            "two hosts over 1.0",
            of_0("Host: localhost\r\nHost: localhost\r\n"),
            400,
        ),
        (
            "another target",
            target("http://evil.example/", "localhost"),
            400,
        ),
        (
            "another host",
            target("http://localhost/", "evil.example"),
            400,
        ),
        (
            "another port",
            target("http://localhost:1/", "localhost:2"),
            400,
        ),
        (
            "a target with a user",
            target("http://a@localhost/", "a@localhost"),
            400,
        ),
        (
            "a target of no web",
            target("ftp://localhost/", "localhost"),
            400,
        ),
        (
            "a target without a path",
            target("localhost:8080", "localhost:8080"),
            400,
        ),
        ("an asterisk to GET", target("*", "localhost"), 400),
        (
            "a tunnel",
            "CONNECT localhost:22 HTTP/1.1\r\nHost: localhost:22\r\n\r\n".into(),
            501,
        ),
        (
            "gzip in chunks",
            post("Transfer-Encoding: gzip, chunked\r\n", chunks),
            501,
        ),
        (
            "gzip in chunks on two lines",
            post(
                "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n",
                chunks,
            ),
            501,
        ),
        (
            "identity in chunks",
            post("Transfer-Encoding: identity, chunked\r\n", chunks),
            501,
        ),
        (
            "chunks in gzip",
            post("Transfer-Encoding: chunked, gzip\r\n", chunks),
            400,
        ),
        (
            "chunks in chunks",
            post("Transfer-Encoding: chunked, chunked\r\n", chunks),
            400,
        ),
        (
            "chunks in chunks on two lines",
            post(
                "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
                chunks,
            ),
            400,
        ),
        ("no coding", post("Transfer-Encoding:\r\n", chunks), 400),
        (
            "an unknown coding",
            post("Transfer-Encoding: xchunked\r\n", chunks),
            400,
        ),
        (
            "chunks over 1.0",
            post("Transfer-Encoding: chunked\r\n", chunks).replace("HTTP/1.1", "HTTP/1.0"),
            400,
        ),
        (
            "two lengths",
            post("Content-Length: 2\r\nContent-Length: 3\r\n", "{}"),
            400,
        ),
        (
            "two lengths in one line",
            post("Content-Length: 2, 3\r\n", "{}"),
            400,
        ),
        (
            "a length with a sign",
            post("Content-Length: +2\r\n", "{}"),
            400,
        ),
        (
            "a negative length",
            post("Content-Length: -2\r\n", "{}"),
            400,
        ),
        ("no length", post("Content-Length:\r\n", "{}"), 400),
        (
            "a folded line",
            get("Host: localhost\r\nX-A: a\r\n b\r\n"),
            400,
        ),
        ("a space before the colon", get("Host : localhost\r\n"), 400),
        (
            "a space before the first name",
            get(" Host: localhost\r\n"),
            400,
        ),
        (
            "a NUL in a value",
            get("Host: localhost\r\nX-A: a\0b\r\n"),
            400,
        ),
        (
            "a CR in a value",
            get("Host: localhost\r\nX-A: a\rb\r\n"),
            400,
        ),
        (
            "a line without a colon",
            get("Host: localhost\r\nX-A\r\n"),
            400,
        ),
        (
            "another version",
            get("Host: localhost\r\n").replace("HTTP/1.1", "HTTP/1.9"),
            400,
        ),
    ];
    for (what, request, expected) in cases {
        let answer = answers(&server, &request).await;
        assert_eq!(status(&answer), expected, "{what}: {answer}");
        assert_eq!(answer.matches("HTTP/1.").count(), 1, "{what}: {answer}");
        let head = answer
            .split("\r\n\r\n")
            .next()
            .unwrap()
            .to_ascii_lowercase();
        assert!(
            head.contains("\nconnection: close") || head.starts_with("http/1.0"),
            "{what}: {answer}"
        );
    }
    // A refusal here is a status like any other.
    let answer = answers(&server, &get("")).await;
    let body = answer.split_once("\r\n\r\n").expect("a body").1;
    let refusal = Refusal::from_json(&serde_json::from_str(body).expect(body));
    assert_eq!(refusal.fields, ["Host"]);
    let _ = here;
}

#[tokio::test]
async fn requests_that_can_be_read_in_one_way_keep_their_connection() {
    let server = TestServer::start().await;
    let chunks = "2\r\n{}\r\n0\r\n\r\n";
    let health = |head: &str| head.replace("$", "/grpc.health.v1.Health/Check");
    for (what, request, expected) in [
        ("a host", get("Host: localhost\r\n"), 200),
        ("a host and a port", get("HOST: 127.0.0.1:8080\r\n"), 200),
        (
            "a host with an empty port",
            get("Host: localhost:\r\n"),
            200,
        ),
        (
            "a URL",
            get("Host: LOCALHOST\r\n").replace("GET ", "GET http://localhost"),
            200,
        ),
        (
            "any server",
            "OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(),
            204,
        ),
        (
            "chunks",
            post("Transfer-Encoding: Chunked\r\n", chunks),
            200,
        ),
        ("a length", post("Content-Length: 2\r\n", "{}"), 200),
        (
            "a length twice",
            post("Content-Length: 2\r\nContent-Length: 2\r\n", "{}"),
            200,
        ),
        ("a foreign host", get("Host: evil.example\r\n"), 403),
        (
            "bare line feeds",
            health("POST $ HTTP/1.1\nHost: localhost\nContent-Length: 2\n\n{}"),
            200,
        ),
    ] {
        let answer = answers(&server, &request).await;
        assert_eq!(status(&answer), expected, "{what}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 2, "{what}: {answer}");
    }
    // The standard has servers read these one way, and close.
    for (what, request, expected) in [
        (
            "a length and chunks",
            post(
                "Content-Length: 9\r\nTransfer-Encoding: chunked\r\n",
                chunks,
            ),
            200,
        ),
        (
            "chunks and a length",
            post(
                "Transfer-Encoding: chunked\r\nContent-Length: 9\r\n",
                chunks,
            ),
            200,
        ),
        (
            "a host over 1.0",
            get("Host: localhost\r\n").replace("HTTP/1.1", "HTTP/1.0"),
            200,
        ),
        (
            "no host over 1.0",
            get("").replace("HTTP/1.1", "HTTP/1.0"),
            403,
        ),
    ] {
        let answer = answers(&server, &request).await;
        assert_eq!(status(&answer), expected, "{what}: {answer}");
        assert_eq!(answer.matches("HTTP/1.").count(), 1, "{what}: {answer}");
    }
}

/// Over HTTP/2 the host is `:authority`, and a `host` beside it says the same.
#[tokio::test]
async fn over_http2_a_host_that_differs_from_the_authority_is_refused() {
    let server = TestServer::start().await;
    let stream = TcpStream::connect(server.address).await.unwrap();
    let (requests, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    for (uri, hosts, expected) in [
        ("http://localhost", &[][..], 200),
        ("https://localhost", &["localhost"], 200),
        ("http://localhost", &["LOCALHOST"], 200),
        ("http://localhost", &["evil.example"], 400),
        ("http://evil.example", &["localhost"], 400),
        ("http://localhost:1", &["localhost:2"], 400),
        ("http://localhost", &["localhost", "localhost"], 400),
        ("http://localhost", &["localhost", "evil.example"], 400),
        ("http://localhost", &[""], 400),
        ("http://evil.example", &[], 403),
    ] {
        let mut requests = requests.clone().ready().await.unwrap();
        let mut request = http::Request::get(format!("{uri}/compute/v1/images?folderId=f"));
        for host in hosts {
            request = request.header("host", *host);
        }
        let request = request.body(()).unwrap();
        let (reply, _) = requests.send_request(request, true).unwrap();
        let reply = within("a reply", reply).await.unwrap();
        assert_eq!(reply.status(), expected, "{uri} {hosts:?}");
    }
}
