//! Proxies that are trusted, and peers that only say what proxies say.

use std::path::Path;

use desktop_images::app::{Listen, TrustedProxy};
use test_support::{ServerProcess, TestServer, eventually};

const QUOTAS: &str = "/desktop-images/v1/quotas";

/// Asks with headers; the status.
async fn ask(url: &str, headers: &[(&str, &str)]) -> u16 {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let mut request = client.get(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.send().await.expect("a reply").status().as_u16()
}

async fn logged(folder: &Path, words: &str) -> String {
    eventually(words, || async {
        let log = std::fs::read_to_string(folder.join("server.log")).unwrap();
        log.contains(words).then_some(log)
    })
    .await
}

#[tokio::test]
async fn the_log_has_the_client_that_a_trusted_proxy_tells_of() {
    for (proxy, trusted) in [("127.0.0.0/8", true), ("10.0.0.0/8", false)] {
        let folder = tempfile::tempdir().unwrap();
        let server = ServerProcess::start_with(folder.path(), &["--trusted-proxy", proxy]).await;
        let url = server.url(QUOTAS);
        let told = [
            ("x-forwarded-for", "192.0.2.99, 203.0.113.7, 127.0.0.1"),
            ("x-request-id", "the-request"),
        ];
        assert_eq!(ask(&url, &told).await, 200);
        assert_eq!(ask(&url, &[("x-request-id", "the-last")]).await, 200);
        let log = logged(folder.path(), "the-last").await;
        let line = log
            .lines()
            .find(|line| line.contains("the-request"))
            .unwrap();
        assert_eq!(line.contains("peer=\"203.0.113.7\""), trusted, "{line}");
        assert_eq!(line.contains("peer=\"127.0.0.1:"), !trusted, "{line}");
        assert!(!log.contains("192.0.2.99"), "{log}");
    }
}

#[tokio::test]
async fn forwarding_headers_are_read_in_one_way_and_of_trusted_peers_alone() {
    let trusting = |proxies: Vec<TrustedProxy>| {
        TestServer::start_with(move |config| {
            config.trusted_proxies = proxies;
            config.allow_hosts = vec!["images.example".parse().unwrap()];
        })
    };
    let trusted = trusting(vec!["127.0.0.1".parse().unwrap()]).await;
    let untrusted = trusting(vec!["10.0.0.1".parse().unwrap()]).await;
    for (headers, of_trusted, of_untrusted) in [
        (&[("x-forwarded-host", "images.example")][..], 200, 200),
        (&[("x-forwarded-host", "evil.example")], 403, 200),
        (
            &[("forwarded", "for=203.0.113.7;host=evil.example")],
            403,
            200,
        ),
        // The name that a page was opened by is the proxy's.
        (
            &[
                ("x-forwarded-host", "images.example"),
                ("origin", "https://images.example"),
            ],
            200,
            403,
        ),
        (
            &[
                ("forwarded", "for=1.1.1.1;host=images.example"),
                ("origin", "https://images.example"),
            ],
            200,
            403,
        ),
        (
            &[
                ("host", "evil.example"),
                ("x-forwarded-host", "images.example"),
            ],
            200,
            403,
        ),
        (
            &[("forwarded", "for=1.1.1.1"), ("x-forwarded-for", "1.1.1.1")],
            400,
            200,
        ),
        (
            &[
                ("forwarded", "for=1.1.1.1"),
                ("x-forwarded-host", "a.example"),
            ],
            400,
            200,
        ),
        (
            &[
                ("x-forwarded-host", "images.example"),
                ("x-forwarded-host", "images.example"),
            ],
            400,
            200,
        ),
        (&[("x-forwarded-proto", "https, http")], 400, 200),
        (
            &[
                ("x-forwarded-proto", "https"),
                ("x-forwarded-proto", "https"),
            ],
            400,
            200,
        ),
        (&[("forwarded", "host=a.example;host=b.example")], 400, 200),
        (&[("x-forwarded-proto", "https")], 200, 200),
    ] {
        let found = (
            ask(&trusted.url(QUOTAS), headers).await,
            ask(&untrusted.url(QUOTAS), headers).await,
        );
        assert_eq!(found, (of_trusted, of_untrusted), "{headers:?}");
    }
}

#[tokio::test]
async fn whoever_connects_to_the_socket_may_be_trusted() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("server.sock");
    let _server = TestServer::start_with(|config| {
        config.listen = vec![Listen::Unix(socket.clone())];
        config.trusted_proxies = vec![TrustedProxy::Unix];
    })
    .await;
    let client = reqwest::Client::builder().unix_socket(socket.as_path());
    let client = client.build().unwrap();
    for (host, status) in [("localhost", 200), ("evil.example", 403)] {
        let request = client.get(format!("http://localhost{QUOTAS}"));
        let reply = request.header("x-forwarded-host", host).send().await;
        assert_eq!(reply.unwrap().status(), status, "{host}");
    }
}
