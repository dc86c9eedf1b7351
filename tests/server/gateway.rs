//! The work of the gateway for every message: content codings, deadlines, gRPC-Web, pages of other origins.

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use test_support::{Disk, Fill, TestServer};

use super::codings::{Codec, gzip, ungzip, unzstd, zstd};

use super::grpc;

const PAGE: &str = "https://app.example";

#[tokio::test]
async fn messages_are_encoded_as_the_client_likes() {
    let server = TestServer::start().await;
    server
        .compute_image("f", "", &Disk::mbr(1, Fill::Sparse(1)))
        .await;
    let url = server.url("/compute/v1/images?folderId=f");
    let plain = server.http.get(&url).send().await.expect("a reply");
    assert!(!plain.headers().contains_key("content-encoding"));
    let plain = plain.bytes().await.expect("a body");
    let cases: [(&str, Option<(&str, Codec)>); 6] = [
        ("gzip", Some(("gzip", ungzip))),
        ("zstd", Some(("zstd", unzstd))),
        ("br, gzip;q=0.5", Some(("gzip", ungzip))),
        ("gzip;q=0, *;q=0", None),
        ("br", None),
        ("identity", None),
    ];
    for (accepted, expected) in cases {
        let request = server.http.get(&url).header("accept-encoding", accepted);
        let reply = request.send().await.expect("a reply");
        let encoding = reply.headers().get("content-encoding").cloned();
        let encoding = encoding
            .as_ref()
            .map(|value| value.to_str().expect("ASCII"));
        assert_eq!(encoding, expected.map(|(name, _)| name), "{accepted}");
        let bytes = reply.bytes().await.expect("a body");
        match expected {
            Some((_, decode)) => {
                assert!(bytes.len() < plain.len(), "{accepted}");
                assert_eq!(decode(&bytes), plain, "{accepted}");
            }
            None => assert_eq!(bytes, plain, "{accepted}"),
        }
    }
    // HEAD promises no length that GET would not have.
    let request = server.http.head(&url).header("accept-encoding", "gzip");
    let reply = request.send().await.expect("a reply");
    assert_eq!(reply.status(), 200);
    assert!(!reply.headers().contains_key("content-length"));
}

#[tokio::test]
async fn messages_are_decoded_within_the_limit() {
    let server = TestServer::start().await;
    let url = server.url("/cloud-desktop/v1/images:copy");
    let body = json!({"folderId": "f", "name": "n", "imageId": "x"}).to_string();
    let bomb = vec![b' '; 64 << 20];
    for (encoding, encode) in [("gzip", gzip as Codec), ("zstd", zstd)] {
        for (bytes, status, message) in [
            (encode(body.as_bytes()), 404, "Image \"x\" not found"),
            (encode(&bomb), 413, "larger than the limit of 4194304 bytes"),
            (
                encode(body.as_bytes())[..20].to_vec(),
                400,
                "could not be read",
            ),
        ] {
            assert!(bytes.len() < 1 << 20, "small as it is sent");
            let request = server.http.post(&url).header("content-encoding", encoding);
            let reply = request.body(bytes).send().await.expect("a reply");
            assert_eq!(reply.status(), status, "{encoding}");
            let json: Value =
                serde_json::from_slice(&reply.bytes().await.expect("a body")).expect("JSON");
            let text = json["message"].as_str().expect("a message");
            assert!(text.contains(message), "{encoding}: {text}");
        }
    }
}

#[tokio::test]
async fn codings_are_read_as_they_may_be_written() {
    let server = TestServer::start().await;
    let url = server.url("/cloud-desktop/v1/images:copy");
    let body = json!({"folderId": "f", "name": "n", "imageId": "x"}).to_string();
    let (front, back) = body.as_bytes().split_at(9);
    for (encoding, bytes, status) in [
        // Frames one behind another are one text.
        ("zstd", [zstd(front), zstd(back)].concat(), 404),
        (
            "zstd",
            [&zstd(body.as_bytes())[..], b"garbage"].concat(),
            400,
        ),
        ("gzip", [gzip(front), gzip(back)].concat(), 404),
        (
            "gzip",
            [&gzip(body.as_bytes())[..], b"garbage"].concat(),
            400,
        ),
        ("gzip", body.clone().into_bytes(), 400),
        ("zstd", gzip(body.as_bytes()), 400),
        ("GZip", gzip(body.as_bytes()), 404),
        ("x-gzip", gzip(body.as_bytes()), 404),
        ("ZSTD", zstd(body.as_bytes()), 404),
        ("identity", body.clone().into_bytes(), 404),
        // Not decoded here: a coding that is not taken, and one within another.
        ("br", body.clone().into_bytes(), 415),
        ("deflate", body.clone().into_bytes(), 415),
        ("gzip, gzip", gzip(&gzip(body.as_bytes())), 415),
        // A bomb in a bomb is a bomb.
        ("gzip", gzip(&gzip(&vec![b' '; 64 << 20])), 400),
    ] {
        let request = server.http.post(&url).header("content-encoding", encoding);
        let reply = request.body(bytes).send().await.expect("a reply");
        let code = reply.status();
        let json: Value =
            serde_json::from_slice(&reply.bytes().await.expect("a body")).expect("JSON");
        assert_eq!(code, status, "{encoding}: {json}");
    }
}

#[tokio::test]
async fn image_bytes_are_never_encoded() {
    let server = TestServer::start().await;
    let disk = Disk::mbr(3, Fill::Sparse(1));
    let source = server.compute_image("f", "", &disk).await;
    let id = server.copied("f", "n", &source).await;
    let request = server
        .http
        .get(server.url(&format!("/cloud-desktop/v1/images/{id}:download")))
        .header("accept-encoding", "gzip, zstd")
        .header("range", "bytes=0-99");
    let reply = request.send().await.expect("a reply");
    assert_eq!(reply.status(), 206);
    assert!(!reply.headers().contains_key("content-encoding"));
    assert_eq!(reply.bytes().await.expect("a body").len(), 100);
}

/// A message in a gRPC frame.
fn frame(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).expect("small");
    [&[0][..], &length.to_be_bytes(), message].concat()
}

#[tokio::test]
async fn deadlines_hold_for_rest_and_for_grpc() {
    let server = TestServer::start().await;
    let url = server.url("/compute/v1/images?folderId=f");
    for (timeout, status, code) in [
        ("1n", 504, 4),
        ("0S", 504, 4),
        ("x", 400, 3),
        ("60S", 200, 0),
    ] {
        let request = server.http.get(&url).header("grpc-timeout", timeout);
        let reply = request.send().await.expect("a reply");
        assert_eq!(reply.status(), status, "{timeout}");
        let json: Value =
            serde_json::from_slice(&reply.bytes().await.expect("a body")).expect("JSON");
        assert_eq!(
            json["code"].as_i64().unwrap_or_default(),
            code,
            "{timeout}: {json}"
        );

        let headers = [("grpc-timeout", timeout)];
        let reply = grpc::call(
            server.address,
            grpc::LIST,
            &headers,
            vec![frame(b"\x0a\x01f")],
        );
        assert_eq!(i64::from(reply.await.code() as i32), code, "{timeout}");
    }
}

#[tokio::test]
async fn grpc_web_is_served_on_the_same_port() {
    let server = TestServer::start().await;
    let url = server.url("/yandex.cloud.operation.OperationService/Get");
    let list = server.url("/yandex.cloud.compute.v1.ImageService/List");
    let post = |url: &str, message: &[u8]| {
        let request = server
            .http
            .post(url)
            .header("content-type", "application/grpc-web+proto")
            .header("accept", "application/grpc-web+proto")
            .header("x-grpc-web", "1")
            .header("origin", PAGE);
        request.body(frame(message)).send()
    };
    let reply = post(&list, b"\x0a\x01f").await.expect("a reply");
    assert_eq!(reply.status(), 200);
    assert_eq!(
        reply.headers()["content-type"],
        "application/grpc-web+proto"
    );
    assert_eq!(reply.headers()["access-control-allow-origin"], PAGE);
    let body = reply.bytes().await.expect("a body");
    // An empty message, then trailers in a frame of their own.
    assert_eq!(body[..6], [0, 0, 0, 0, 0, 0x80]);
    assert!(String::from_utf8_lossy(&body[10..]).contains("grpc-status:0"));

    let reply = post(&url, b"\x0a\x01x").await.expect("a reply");
    assert_eq!(reply.headers()["grpc-status"], "5");

    // The same in base64, for clients that read text only.
    let request = server
        .http
        .post(&list)
        .header("content-type", "application/grpc-web-text")
        .header("accept", "application/grpc-web-text")
        .body(BASE64_STANDARD.encode(frame(b"\x0a\x01f")));
    let reply = request.send().await.expect("a reply");
    assert_eq!(reply.status(), 200);
    let text = reply.text().await.expect("a body");
    // Each frame may be encoded by itself, with padding.
    let decoded = text.as_bytes().chunks(4).map(|four| {
        let bytes = BASE64_STANDARD.decode(four);
        bytes.unwrap_or_else(|error| panic!("{error}: {text}"))
    });
    let frames = decoded.collect::<Vec<_>>().concat();
    assert_eq!(frames[..6], [0, 0, 0, 0, 0, 0x80], "{text}");
    assert!(String::from_utf8_lossy(&frames[10..]).contains("grpc-status:0"));
}

#[tokio::test]
async fn the_api_describes_itself_without_asking_anybody() {
    let server = TestServer::start().await;
    let get = async |path: &str, accept_encoding: &str| {
        let request = server.http.get(server.url(path));
        let request = request.header("accept-encoding", accept_encoding);
        request.send().await.expect("a reply")
    };
    let reply = get("/openapi.json", "identity").await;
    assert_eq!(reply.headers()["content-type"], "application/json");
    let document: Value =
        serde_json::from_slice(&reply.bytes().await.expect("a body")).expect("JSON");
    assert_eq!(document["openapi"], "3.1.0");
    for (path, method) in [
        ("/compute/v1/images", "post"),
        ("/compute/v1/images:upload", "post"),
        ("/cloud-desktop/v1/images/{image_id}", "patch"),
        ("/cloud-desktop/v1/images/{image_id}:download", "get"),
        ("/operations/{operation_id}:cancel", "post"),
        ("/operations/{operation_id}:watch", "get"),
        ("/desktop-images/v1/auditEvents", "get"),
    ] {
        let operation = &document["paths"][path][method];
        assert!(operation["operationId"].is_string(), "{method} {path}");
        assert!(operation["summary"].is_string(), "{method} {path}");
    }
    // Fields have the limits of their options.
    let parameters = &document["paths"]["/cloud-desktop/v1/images"]["get"]["parameters"];
    let parameter = |name: &str| {
        let mut all = parameters.as_array().expect("parameters").iter();
        all.find(|own| own["name"] == name).expect("a parameter")
    };
    let folder = parameter("folderId");
    assert_eq!(folder["required"], true);
    let text = json!({"type": "string", "minLength": 1, "maxLength": 50});
    assert_eq!(folder["schema"], text);
    assert_eq!(
        parameter("pageSize")["schema"],
        json!({"type": "integer", "format": "int64", "minimum": 0, "maximum": 1000})
    );
    let schemas = &document["components"]["schemas"];
    let create = &schemas["yandex.cloud.compute.v1.CreateImageRequest"];
    assert_eq!(create["required"], json!(["folderId"]));
    let size = &create["properties"]["minDiskSize"];
    assert_eq!(
        (&size["type"], &size["format"]),
        (&json!("string"), &json!("int64"))
    );
    assert_eq!(
        (&size["minimum"], &size["maximum"]),
        (&json!(1 << 22), &json!(1u64 << 42))
    );
    assert_eq!(create["properties"]["uri"]["minLength"], 1);
    let labels = &create["properties"]["labels"];
    assert_eq!(labels["maxProperties"], 64);
    assert_eq!(labels["propertyNames"]["minLength"], 1);
    assert_eq!(labels["additionalProperties"]["maxLength"], 63);
    let copy = &schemas["yandex.cloud.clouddesktop.v1.api.CopyDesktopImageRequest"];
    assert_eq!(copy["required"], json!(["folderId", "name", "imageId"]));
    let update = &document["paths"]["/cloud-desktop/v1/images/{image_id}"]["patch"]["requestBody"];
    let update = &update["content"]["application/json"]["schema"];
    assert!(update["properties"]["name"].is_object(), "{update}");
    assert!(update["properties"].get("imageId").is_none(), "{update}");

    let reply = get("/docs", "identity").await;
    assert_eq!(reply.url().path(), "/docs/");
    let policy = reply.headers()["content-security-policy"]
        .to_str()
        .expect("ASCII");
    assert!(policy.starts_with("default-src 'self';"), "{policy}");
    let page = reply.text().await.expect("a page");
    let files: Vec<_> = page
        .split(['"', '\''])
        .filter(|text| text.ends_with(".js") || text.ends_with(".css") || text.ends_with(".png"))
        .collect();
    assert!(files.len() > 3, "{page}");
    for file in files {
        assert!(!file.contains("//"), "{file} comes from elsewhere");
        let path = format!("/docs/{}", file.trim_start_matches("./"));
        let plain = get(&path, "identity").await;
        assert_eq!(plain.status(), 200, "{path}");
        assert!(!plain.headers().contains_key("content-encoding"), "{path}");
        let plain = plain.bytes().await.expect("a file");
        let encoded = get(&path, "gzip, br").await;
        let is_gzip = encoded.headers().contains_key("content-encoding");
        let encoded = encoded.bytes().await.expect("a file");
        match is_gzip {
            true => assert_eq!(ungzip(&encoded), plain, "{path}"),
            false => assert_eq!(encoded, plain, "{path}"),
        }
    }
    let start = get("/docs/swagger-initializer.js", "identity").await;
    let start = start.text().await.expect("a script");
    assert!(start.contains("/openapi.json"), "{start}");
    assert!(start.contains("\"validatorUrl\": \"none\""), "{start}");
    assert_eq!(get("/docs/nothing", "identity").await.status(), 404);
    for path in ["/openapi.json", "/docs"] {
        let reply = server
            .http
            .post(server.url(path))
            .send()
            .await
            .expect("a reply");
        assert_eq!(reply.status(), 405, "{path}");
    }
}

#[tokio::test]
async fn pages_of_allowed_origins_may_call() {
    let server = TestServer::start().await;
    let paths = [
        ("/compute/v1/images?folderId=f", "GET", 200),
        ("/compute/v1/images/x", "PATCH", 404),
        ("/cloud-desktop/v1/images/x:download", "GET", 404),
        ("/compute/v1/images:upload", "POST", 400),
    ];
    for (path, method, status) in paths {
        for (origin, let_in) in [(PAGE, true), ("https://evil.example", false)] {
            let preflight = server
                .http
                .request(http::Method::OPTIONS, server.url(path))
                .header("origin", origin)
                .header("sec-fetch-site", "cross-site")
                .header("access-control-request-method", method)
                .header("access-control-request-headers", "authorization, x-a");
            let reply = preflight.send().await.expect("a reply");
            let headers = reply.headers();
            let allowed = headers.get("access-control-allow-origin");
            assert_eq!(allowed.is_some(), let_in, "{path}");
            if let_in {
                assert_eq!(reply.status(), 200, "{path}");
                assert_eq!(headers["access-control-allow-methods"], method);
                assert_eq!(
                    headers["access-control-allow-headers"],
                    "authorization, x-a"
                );
            } else {
                assert_eq!(reply.status(), 403, "{path}");
            }
            let request = server
                .http
                .request(method.parse().expect("a method"), server.url(path))
                .header("origin", origin)
                .header("sec-fetch-site", "cross-site");
            let reply = request.send().await.expect("a reply");
            let allowed = reply.headers().get("access-control-allow-origin");
            assert_eq!(allowed.is_some(), let_in, "{path}");
            let expected = if let_in { status } else { 403 };
            assert_eq!(reply.status(), expected, "{method} {path}");
        }
    }
    // Who is no page asks for the methods as before.
    let request = server
        .http
        .request(http::Method::OPTIONS, server.url("/compute/v1/images"));
    let reply = request.send().await.expect("a reply");
    assert_eq!(reply.status(), 204);
    assert_eq!(reply.headers()["allow"], "GET, HEAD, OPTIONS, POST");
}

/// Clients of gRPC-Web read headers where there is no message, and no trailers of HTTP.
#[tokio::test]
async fn a_refusal_over_grpc_web_is_in_headers() {
    let server = TestServer::start().await;
    for content_type in [
        "application/grpc-web+proto",
        "application/grpc-web-text+proto",
    ] {
        let request = server.http.post(server.url(grpc::LIST)).body(frame(b""));
        let request = request.header("content-type", content_type);
        let request = request.header("origin", "https://evil.example");
        let reply = request.send().await.expect("a reply");
        assert_eq!(reply.status(), 200);
        assert_eq!(reply.headers()["content-type"], content_type);
        assert_eq!(reply.headers()["grpc-status"], "7");
    }
}
