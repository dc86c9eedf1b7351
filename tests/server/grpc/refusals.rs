//! Requests of gRPC that lead to no method.

use http::Request;
use serde_json::Value;
use test_support::TestServer;
use tonic::Code;

use super::{LIST, LIST_REQUEST, call, frame, send};

#[tokio::test]
async fn unimplemented_names_the_method() {
    let server = TestServer::start().await;
    for (path, words) in [
        ("/no.such.Service/Method", "no.such.Service/Method"),
        (
            "/yandex.cloud.compute.v1.ImageService/NoSuch",
            "yandex.cloud.compute.v1.ImageService/NoSuch",
        ),
        (
            "/yandex.cloud.compute.v1.ImageService/list",
            "yandex.cloud.compute.v1.ImageService/list",
        ),
        (
            "/yandex.cloud.compute.v1.ImageService/List/",
            "yandex.cloud.compute.v1.ImageService/List/",
        ),
        (
            "/grpc.health.v1.Health/NoSuch",
            "grpc.health.v1.Health/NoSuch",
        ),
        (
            "/desktopimages.v1.AuditService/NoSuch",
            "desktopimages.v1.AuditService/NoSuch",
        ),
        // Published, and not served here.
        (
            "/yandex.cloud.compute.v1.ImageService/ListAccessBindings",
            "yandex.cloud.compute.v1.ImageService/ListAccessBindings",
        ),
        (
            "/yandex.cloud.iam.v1.IamTokenService/CreateForServiceAccount",
            "yandex.cloud.iam.v1.IamTokenService/CreateForServiceAccount",
        ),
        ("/x", "x"),
        ("/", "/package.Service/Method"),
        ("/cloud-desktop/v1/images", "cloud-desktop/v1/images"),
    ] {
        let reply = call(server.address, path, &[], vec![frame(0, LIST_REQUEST)]).await;
        let told = reply.message();
        assert_eq!(
            (reply.http.as_u16(), reply.code()),
            (200, Code::Unimplemented),
            "{path}: {told}"
        );
        assert!(told.contains(words), "{path}: {told}");
        assert_eq!(reply.headers["content-type"], "application/grpc", "{path}");
        assert!(reply.headers.contains_key("x-request-id"), "{path}");
    }
    // Served, and not implemented: the desktop is another service's.
    let reply = call(
        server.address,
        "/yandex.cloud.clouddesktop.v1.api.DesktopImageService/CopyFromDesktop",
        &[],
        vec![frame(0, b"\x1a\x01f\x22\x01n\x42\x01d")],
    )
    .await;
    assert_eq!(reply.code(), Code::Unimplemented);
    assert!(
        reply.message().contains("CopyFromDesktop"),
        "{}",
        reply.message()
    );
    // A long path is not said again in full, nor what cannot stand in a header.
    let path = format!("/{}/%0d%0aя", "a".repeat(5000));
    let path = path.replace('я', "%D1%8F");
    let reply = call(server.address, &path, &[], vec![]).await;
    assert_eq!(reply.code(), Code::Unimplemented);
    assert!(reply.message().len() < 400);
}

#[tokio::test]
async fn messages_that_are_not_protobuf_are_refused_and_other_spellings_taken() {
    let server = TestServer::start().await;
    for content_type in [
        "application/grpc+json",
        "application/grpc+thrift",
        "application/grpc+flatbuffers",
        "application/grpc-web+json",
        "application/grpc-web+thrift",
        "application/grpc-web-text+json",
    ] {
        let headers = [("content-type", content_type)];
        let reply = call(server.address, LIST, &headers, vec![frame(0, b"{}")]).await;
        assert_eq!(reply.code(), Code::Unimplemented, "{content_type}");
        assert!(
            reply.message().contains(content_type),
            "{}",
            reply.message()
        );
        let kind = match content_type.contains("-web") {
            true => "application/grpc-web",
            false => "application/grpc",
        };
        let answered = reply.headers["content-type"].to_str().expect("ASCII");
        assert!(answered.starts_with(kind), "{content_type}: {answered}");
    }
    for content_type in ["application/grpcx", "application/grpc-websocket"] {
        let headers = [("content-type", content_type)];
        let reply = call(server.address, LIST, &headers, vec![frame(0, LIST_REQUEST)]).await;
        assert_eq!(reply.http, 415, "{content_type}");
        assert_eq!(reply.headers["content-type"], "application/json");
    }
    for content_type in [
        "application/grpc+proto",
        "application/grpc; charset=utf-8",
        "Application/gRPC",
        "application/grpc-web",
        "APPLICATION/GRPC-WEB+PROTO",
        "application/grpc-web+proto; charset=utf-8",
    ] {
        let headers = [("content-type", content_type)];
        let reply = call(server.address, LIST, &headers, vec![frame(0, LIST_REQUEST)]).await;
        assert_eq!(reply.http, 200, "{content_type}");
        match content_type.to_ascii_lowercase().contains("-web") {
            // Its trailers are a frame.
            true => assert_eq!(reply.messages()[1].0, 0x80, "{content_type}"),
            false => assert_eq!(reply.code(), Code::Ok, "{content_type}"),
        }
    }
}

#[tokio::test]
async fn grpc_is_post_only() {
    let server = TestServer::start().await;
    for method in ["GET", "PUT", "HEAD", "DELETE"] {
        let request = Request::builder().method(method);
        let request = request.uri(format!("http://{}{LIST}", server.address));
        for content_type in ["application/grpc", "application/grpc-web"] {
            let request = Request::builder()
                .method(request.method_ref().expect("a method"))
                .uri(request.uri_ref().expect("a uri"));
            let headers = [("content-type", content_type)];
            let reply = send(server.address, request, &headers, vec![]).await;
            assert_eq!(reply.http, 405, "{method} {content_type}");
            assert_eq!(reply.headers["allow"], "POST", "{method} {content_type}");
        }
    }
}

/// Proxies that speak HTTP/1.1 to a server of gRPC are the usual cause.
#[tokio::test]
async fn grpc_over_http_1_is_told_what_it_needs() {
    let server = TestServer::start().await;
    for path in [LIST, "/no.such.Service/Method", "/"] {
        for content_type in [
            "application/grpc",
            "application/grpc+proto",
            "application/grpc+json",
        ] {
            let request = server
                .http
                .post(server.url(path))
                .header("content-type", content_type)
                .header("te", "trailers")
                .body(frame(0, LIST_REQUEST));
            let reply = request.send().await.expect("a reply");
            assert_eq!(reply.status(), 505, "{path} {content_type}");
            assert_eq!(reply.headers()["grpc-status"], "12");
            let words = reply.headers()["grpc-message"]
                .to_str()
                .expect("ASCII")
                .to_owned();
            assert!(words.contains("HTTP/2"), "{words}");
            let body = reply.bytes().await.expect("a body");
            let body: Value = serde_json::from_slice(&body).expect("JSON");
            let words = body["message"].as_str().expect("words");
            assert!(words.contains("gRPC needs HTTP/2"), "{words}");
        }
    }
    // gRPC-Web is made for it.
    let request = server
        .http
        .post(server.url(LIST))
        .header("content-type", "application/grpc-web")
        .body(frame(0, LIST_REQUEST));
    assert_eq!(request.send().await.expect("a reply").status(), 200);
}

/// Clients in Go take a failure in headers alone for trailers, and the public SDKs look for the ids in headers.
#[tokio::test]
async fn a_failure_has_its_ids_in_headers_and_its_status_in_trailers() {
    let server = TestServer::start().await;
    for (path, code) in [
        (LIST, Code::InvalidArgument),
        ("/no.such.Service/Method", Code::Unimplemented),
    ] {
        let headers = [("x-request-id", "mine")];
        let reply = call(server.address, path, &headers, vec![frame(0, b"")]).await;
        assert_eq!(reply.code(), code, "{path}");
        assert_eq!(reply.headers["content-type"], "application/grpc");
        assert!(!reply.headers.contains_key("grpc-status"), "{path}");
        assert_eq!(reply.trailers["grpc-status"], (code as i32).to_string());
        for name in ["x-request-id", "x-server-request-id", "x-server-trace-id"] {
            assert_eq!(reply.headers[name], reply.trailers[name], "{path}");
        }
        assert_eq!(reply.headers["x-request-id"], "mine");
    }
    // Clients learn that a stream failed before they ask for its first message.
    let watch = "/desktopimages.v1.OperationWatchService/Watch";
    let reply = call(server.address, watch, &[], vec![frame(0, b"")]).await;
    assert_eq!(reply.headers["grpc-status"], "3");
}
