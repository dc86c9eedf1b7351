//! Requests as HTTP sees them: malformed ones, paths and methods, and who may ask at all.

use http::HeaderMap;
use serde_json::{Value, json};
use test_support::{Disk, Fill, Method, Refusal, TestServer, Transport, from_json, text};
use tonic::Code;
use tonic::transport::Endpoint;

struct Reply {
    status: u16,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Reply {
    fn refusal(&self) -> Refusal {
        let body = String::from_utf8_lossy(&self.body);
        let json: Value = serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("{body}"));
        Refusal::from_json(&json)
    }
}

async fn send(request: reqwest::RequestBuilder) -> Reply {
    let reply = request.send().await.expect("a reply");
    Reply {
        status: reply.status().as_u16(),
        headers: reply.headers().clone(),
        body: reply.bytes().await.expect("a body").to_vec(),
    }
}

#[tokio::test]
async fn a_body_that_is_not_the_json_asked_for_is_refused_with_the_place() {
    let server = TestServer::start().await;
    let url = server.url("/cloud-desktop/v1/images:copy");
    let deep = format!("{}{}", "[".repeat(5000), "]".repeat(5000));
    for (body, fields) in [
        (&b""[..], None),
        (b"{", None),
        (b"[]", None),
        (b"null", None),
        (b"1", None),
        (b"\"text\"", None),
        (b"{} {}", None),
        (b"{\"folderId\": \"f\",}", None),
        (b"{'folderId': 'f'}", None),
        (b"{\"folderId\": \"\xff\"}", None),
        (b"{\"folderId\": \"\\ud800\"}", Some("folderId")),
        (b"{\"folderId\": 1}", Some("folderId")),
        (b"{\"folderId\": [\"f\"]}", Some("folderId")),
        (b"{\"folderId\": {\"a\": \"f\"}}", Some("folderId")),
        (b"{\"folderId\": true}", Some("folderId")),
        (b"{\"labels\": []}", Some("labels")),
        (b"{\"labels\": {\"a\": 1}}", Some("labels.a")),
        (
            b"{\"labels\": {\"a\": \"1\", \"a\": \"2\"}}",
            Some("labels.a"),
        ),
        (b"{\"unknown\": 1}", Some("unknown")),
        (b"{\"FolderId\": \"f\"}", Some("FolderId")),
        (b"{\"name\": \"a\", \"name\": \"a\"}", Some("name")),
        (
            b"{\"folderId\": \"a\", \"folder_id\": \"a\"}",
            Some("folder_id"),
        ),
        (deep.as_bytes(), None),
    ] {
        let reply = send(server.http.post(&url).body(body.to_vec())).await;
        let shown = String::from_utf8_lossy(&body[..body.len().min(60)]).into_owned();
        let refusal = reply.refusal();
        assert_eq!(
            (reply.status, refusal.code),
            (400, Code::InvalidArgument),
            "{shown}"
        );
        assert!(refusal.message.len() < 1000, "{shown}");
        if let Some(field) = fields {
            let named = refusal.fields[0].starts_with(field);
            assert!(named, "{shown}: {}", refusal.message);
        }
    }
    for (content_type, status) in [("text/xml", 415), ("application/json; charset=utf-8", 404)] {
        let body = json!({"folderId": "f", "name": "n", "imageId": "x"}).to_string();
        let request = server
            .http
            .post(&url)
            .header("content-type", content_type)
            .body(body);
        assert_eq!(send(request).await.status, status, "{content_type}");
    }
    for (encoding, status) in [("br", 415), ("gzip", 400), ("zstd", 400)] {
        let request = server.http.post(&url).header("content-encoding", encoding);
        assert_eq!(send(request.body("x")).await.status, status, "{encoding}");
    }
    let large = format!("{{\"description\": \"{}\"}}", "a".repeat(5 << 20));
    assert_eq!(send(server.http.post(&url).body(large)).await.status, 413);
}

#[tokio::test]
async fn numbers_masks_and_names_are_taken_in_each_form_of_the_json_mapping() {
    let server = TestServer::start().await;
    let source = server
        .compute_image("f", "", &Disk::mbr(4, Fill::Sparse(1)))
        .await;
    let url = server.url("/compute/v1/images");
    for (size, status) in [
        (json!("4194304"), 200),
        (json!(4194304), 200),
        (json!(4194304.0), 200),
        (json!("x"), 400),
        (json!("4194304.5"), 400),
        (json!("9223372036854775808"), 400),
        (json!({}), 400),
    ] {
        for name in ["minDiskSize", "min_disk_size"] {
            let body = json!({"folderId": "f", "imageId": source, name: size}).to_string();
            let reply = send(server.http.post(&url).body(body)).await;
            assert_eq!(reply.status, status, "{name} {size}");
        }
    }
    for (query, status) in [
        ("folderId=f&pageSize=1", 200),
        ("folder_id=f&page_size=1", 200),
        ("folderId=f&pageSize=x", 400),
        ("folderId=f&pageSize=", 400),
        ("folderId=f&pageSize=99999999999999999999", 400),
        ("folderId=f&unknown=1", 400),
        ("folderId=f&folderId=g", 400),
        ("folderId=f&folder_id=g", 400),
        ("folderId=%ff", 400),
        ("folderId=%4", 400),
    ] {
        let reply = send(server.http.get(format!("{url}?{query}"))).await;
        assert_eq!(reply.status, status, "{query}");
    }
}

#[tokio::test]
async fn paths_and_methods_that_are_not_served_are_told_apart() {
    let server = TestServer::start().await;
    let source = server
        .compute_image("f", "", &Disk::mbr(1, Fill::Sparse(1)))
        .await;
    for path in [
        "/",
        "/x",
        "/cloud-desktop/v1",
        "/cloud-desktop/v1/images/",
        "/cloud-desktop/v1/images/a/b",
        "/cloud-desktop/v1/images:unknown",
        "/cloud-desktop/v2/images",
        "/compute/v1/images/x:upload",
        "/operations",
        "/operations/x:y:cancel/z",
        "/cloud-desktop/v1/images/x/y:download",
    ] {
        let reply = send(server.http.get(server.url(path))).await;
        assert_eq!(
            (reply.status, reply.refusal().code),
            (404, Code::NotFound),
            "{path}"
        );
    }
    let reply = send(server.http.get(server.url("/cloud-desktop/v1/images/%zz"))).await;
    assert_eq!(reply.status, 400);
    let one = format!("/compute/v1/images/{source}");
    for (method, path, allow) in [
        ("DELETE", "/cloud-desktop/v1/images", "GET, HEAD"),
        ("POST", "/cloud-desktop/v1/images", "GET, HEAD"),
        (
            "PUT",
            "/cloud-desktop/v1/images/x",
            "DELETE, GET, HEAD, PATCH",
        ),
        ("GET", "/cloud-desktop/v1/images:copy", "POST"),
        ("HEAD", "/cloud-desktop/v1/images:copy", "POST"),
        ("DELETE", "/compute/v1/images", "GET, HEAD, POST"),
        ("POST", &one, "DELETE, GET, HEAD, PATCH"),
        ("GET", "/compute/v1/images:upload", "POST"),
        ("PUT", "/compute/v1/images:upload", "POST"),
        ("POST", "/cloud-desktop/v1/images/x:download", "GET, HEAD"),
        ("DELETE", "/operations/x:cancel", "GET, POST"),
        ("BREW", "/operations/x", "GET, HEAD"),
    ] {
        let method: http::Method = method.parse().unwrap();
        for asked in [method, http::Method::OPTIONS] {
            let reply = send(server.http.request(asked.clone(), server.url(path))).await;
            let expected = if asked == http::Method::OPTIONS {
                204
            } else {
                405
            };
            assert_eq!(reply.status, expected, "{asked} {path}");
            let mut found: Vec<&str> = reply.headers["allow"]
                .to_str()
                .unwrap()
                .split(',')
                .map(str::trim)
                .filter(|method| *method != "OPTIONS")
                .collect();
            found.sort();
            assert_eq!(found.join(", "), allow, "{asked} {path}");
        }
    }
    // HEAD answers like GET, without the body.
    for path in [one.as_str(), "/compute/v1/images?folderId=f"] {
        let get = send(server.http.get(server.url(path))).await;
        let head = send(server.http.head(server.url(path))).await;
        assert_eq!((head.status, head.body.len()), (200, 0), "{path}");
        assert_eq!(
            head.headers["content-length"],
            get.body.len().to_string(),
            "{path}"
        );
        assert_eq!(head.headers["content-type"], "application/json");
    }
    // Cancel is bound to GET and changes things: HEAD must not.
    assert_eq!(
        send(server.http.head(server.url("/operations/x:cancel")))
            .await
            .status,
        405
    );
}

/// The services that every gRPC server has beside its own are served like methods without a rule.
#[tokio::test]
async fn health_and_reflection_are_methods_like_any_other() {
    let server = TestServer::start().await;
    let check = "/grpc.health.v1.Health/Check";
    let reflect = "ServerReflection/ServerReflectionInfo";
    for (path, body, status, field, value) in [
        (check, json!({}), 200, "status", json!("SERVING")),
        (
            check,
            json!({"service": "yandex.cloud.compute.v1.ImageService"}),
            200,
            "status",
            json!("SERVING"),
        ),
        (check, json!({"service": "x"}), 404, "code", json!(5)),
        (check, json!({"unknown": "x"}), 400, "code", json!(3)),
        // It takes a stream.
        (
            &format!("/grpc.reflection.v1.{reflect}"),
            json!({}),
            501,
            "code",
            json!(12),
        ),
        (
            &format!("/grpc.reflection.v1alpha.{reflect}"),
            json!({}),
            501,
            "code",
            json!(12),
        ),
    ] {
        let reply = send(server.http.post(server.url(path)).body(body.to_string())).await;
        let text = String::from_utf8_lossy(&reply.body);
        assert_eq!(reply.status, status, "{path} {body}: {text}");
        let json: Value = serde_json::from_slice(&reply.body).unwrap();
        assert_eq!(json[field], value, "{path} {body}: {text}");
    }
}

#[tokio::test]
async fn every_reply_has_request_ids() {
    let server = TestServer::start().await;
    for path in [
        "/compute/v1/images?folderId=f",
        "/operations/x",
        "/nowhere",
        "/compute/v1/images:upload",
    ] {
        let url = server.url(path);
        let reply = send(server.http.get(&url).header("x-request-id", "mine")).await;
        assert_eq!(reply.headers["x-request-id"], "mine", "{path}");
        assert_eq!(reply.headers["x-server-request-id"], "mine", "{path}");
        assert!(!reply.headers["x-server-trace-id"].is_empty(), "{path}");
        let (first, second) = (
            send(server.http.get(&url)).await,
            send(server.http.get(&url)).await,
        );
        assert_ne!(
            first.headers["x-request-id"], second.headers["x-request-id"],
            "{path}"
        );
    }
    let mut request = tonic::Request::new(from_json(&json!({"folderId": "f"})));
    request
        .metadata_mut()
        .insert("x-request-id", "mine".parse().unwrap());
    let reply = server.compute().list(request).await.unwrap();
    assert_eq!(reply.metadata().get("x-request-id").unwrap(), "mine");
}

#[tokio::test]
async fn pages_of_other_sites_get_nothing() {
    let server = TestServer::start().await;
    let own = server.address.to_string();
    let localhost = format!("localhost:{}", server.address.port());
    let foreign = "http://evil.example";
    for (name, value, let_in) in [
        ("host", own.as_str(), true),
        ("host", &localhost, true),
        ("host", "LOCALHOST", true),
        ("host", "evil.example", false),
        (
            "host",
            &format!("evil.example:{}", server.address.port()),
            false,
        ),
        ("host", "127.0.0.1.evil.example", false),
        ("host", "0.0.0.0", false),
        ("origin", &format!("http://{own}"), true),
        ("origin", foreign, false),
        ("origin", "null", false),
        ("origin", "http://127.0.0.1:1", false),
        ("sec-fetch-site", "same-origin", true),
        ("sec-fetch-site", "none", true),
        ("sec-fetch-site", "cross-site", false),
        ("sec-fetch-site", "same-site", false),
    ] {
        for (method, path) in [
            ("GET", "/compute/v1/images?folderId=f"),
            ("GET", "/operations/x:cancel"),
            ("POST", "/cloud-desktop/v1/images:copy"),
            ("POST", "/compute/v1/images:upload?folderId=f&name=evil"),
            ("GET", "/cloud-desktop/v1/images/x:download"),
            ("OPTIONS", "/compute/v1/images"),
        ] {
            let method: http::Method = method.parse().unwrap();
            let request = server
                .http
                .request(method.clone(), server.url(path))
                .header(name, value);
            let reply = send(request).await;
            assert_eq!(
                reply.status != 403,
                let_in,
                "{method} {path} with {name}: {value}"
            );
            if !let_in && method != http::Method::OPTIONS {
                assert_eq!(reply.refusal().code, Code::PermissionDenied);
            }
        }
        if name != "host" {
            let caller = server.caller(Transport::Grpc);
            let request = json!({"folderId": "f"});
            let granted = caller
                .call_with(Method::ComputeList, request, &[(name, value)])
                .await;
            assert_eq!(granted.is_ok(), let_in, "{name}: {value}");
            if let Err(refusal) = granted {
                assert_eq!(refusal.code, Code::PermissionDenied);
            }
        }
    }
    for (authority, let_in) in [
        (own.as_str(), true),
        (&localhost, true),
        ("evil.example", false),
    ] {
        let endpoint = Endpoint::from_shared(server.url("")).unwrap();
        let origin = format!("http://{authority}").parse().unwrap();
        let mut clients = server.clients.clone();
        clients.channel = endpoint.origin(origin).connect_lazy();
        let listed = clients
            .compute()
            .list(tonic::Request::new(from_json(&json!({"folderId": "f"}))))
            .await;
        match listed {
            Ok(_) => assert!(let_in, "{authority}"),
            Err(status) => assert_eq!(
                (status.code(), let_in),
                (Code::PermissionDenied, false),
                "{authority}"
            ),
        }
    }
    // Nothing was made on the way: the uploads that were let in had no disk.
    assert_eq!(server.compute_images("f").await, 0);
    server.has_blobs(0).await;
}

#[tokio::test]
async fn http2_carries_rest_too() {
    let server = TestServer::start().await;
    let http2 = reqwest::Client::builder()
        .no_proxy()
        .http2_prior_knowledge()
        .build()
        .unwrap();
    let disk = Disk::mbr(3, Fill::Random(1));
    let url = server.url("/compute/v1/images:upload?folderId=f");
    let uploaded = send(http2.post(url).body(disk.clone())).await;
    assert_eq!(uploaded.status, 200);
    let source = server
        .ask(Method::ComputeList, json!({"folderId": "f"}))
        .await;
    let source = text(&source["images"][0], "id").to_owned();
    let id = server.copied("f", "n", &source).await;
    let url = server.url(&format!("/cloud-desktop/v1/images/{id}:download"));
    let downloaded = send(http2.get(url)).await;
    assert!(downloaded.body == disk);
    let missing = send(http2.get(server.url("/operations/x"))).await;
    assert_eq!(
        (missing.status, missing.refusal().code),
        (404, Code::NotFound)
    );
}
