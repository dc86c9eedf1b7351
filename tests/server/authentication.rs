//! Callers that nobody knows: everything that is served is asked for with an authenticator that refuses. The lists
//! are made of the descriptors and of the OpenAPI document, so that a new method cannot be left out.

use std::sync::Arc;

use desktop_images::app::{Authentication, Authenticator, Credentials, NotAuthenticated, OPEN};
use desktop_images::contract;
use http::Method;
use serde_json::Value;
use test_support::TestServer;
use tonic::Code;

use super::grpc::{call, frame};

const REFUSED: &str = "Authorization: this server knows nobody";

/// Knows nobody.
#[derive(Debug)]
struct Refusing;

impl Authenticator for Refusing {
    fn authenticate(&self, _: &Credentials<'_>) -> Authentication {
        let refused = NotAuthenticated::Unauthenticated(REFUSED.to_owned());
        Authentication::Known(Err(refused))
    }
}

async fn refusing() -> TestServer {
    let refuse = |config: &mut desktop_images::app::Config| {
        config.authenticator = Some(Arc::new(Refusing));
    };
    TestServer::start_with(refuse).await
}

/// Whether a path is open to callers that nobody knows.
fn is_open(path: &str) -> bool {
    let at = |open: &str| path == open || open.ends_with('/') && path.starts_with(open);
    OPEN.iter().any(|open| at(open.path))
}

/// The paths of all methods that are served.
fn methods() -> Vec<String> {
    let pool = contract::descriptor_pool();
    let services = contract::services().filter_map(|name| pool.get_service_by_name(name));
    let paths = services.flat_map(|service| {
        let name = service.full_name().to_owned();
        let methods: Vec<_> = service.methods().collect();
        let paths = methods.into_iter();
        paths.map(move |method| format!("/{name}/{}", method.name()))
    });
    paths.collect()
}

#[tokio::test]
async fn every_method_of_the_contract_is_served() {
    let server = TestServer::start().await;
    for path in methods() {
        let reply = call(server.address, &path, &[], vec![frame(0, b"")]).await;
        // A method of which there is no service says nothing.
        let is_missing = reply.code() == Code::Unimplemented && reply.message().is_empty();
        assert!(!is_missing, "{path}");
    }
}

#[tokio::test]
async fn every_grpc_method_asks_who_calls() {
    let server = refusing().await;
    let asked = methods();
    assert!(asked.len() > 15, "{asked:?}");
    let strange = "/no.such.Service/Method".to_owned();
    let closed = asked.into_iter().filter(|path| !is_open(path));
    for path in closed.chain([strange]) {
        for content_type in ["application/grpc", "application/grpc-web+proto"] {
            let headers = [("content-type", content_type)];
            let reply = call(server.address, &path, &headers, vec![frame(0, b"")]).await;
            assert_eq!(reply.code(), Code::Unauthenticated, "{path}");
            assert_eq!(reply.message(), REFUSED, "{path}");
        }
    }
}

#[tokio::test]
async fn every_method_over_connect_asks_who_calls() {
    let server = refusing().await;
    let closed = methods().into_iter().filter(|path| !is_open(path));
    for path in closed {
        for (content_type, status) in [
            ("application/json", 401),
            ("application/proto", 401),
            ("application/connect+json", 200),
        ] {
            let request = server.http.post(server.url(&path)).body("{}");
            let request = request.header("connect-protocol-version", "1");
            let reply = request.header("content-type", content_type).send();
            let reply = reply.await.unwrap();
            assert_eq!(reply.status(), status, "{path}");
            let body = reply.bytes().await.unwrap();
            let start = if status == 200 { 5 } else { 0 };
            let told: Value = serde_json::from_slice(&body[start..]).unwrap();
            let error = told.get("error").unwrap_or(&told);
            assert_eq!(error["code"], "unauthenticated", "{path}");
            assert_eq!(error["message"], REFUSED, "{path}");
        }
    }
}

#[tokio::test]
async fn every_http_path_asks_who_calls() {
    let server = refusing().await;
    let http = reqwest::Client::new();
    let url = |path: &str| format!("http://{}{path}", server.address);
    let document = http.get(url("/openapi.json")).send().await.unwrap();
    let document = document.text().await.unwrap();
    let document: Value = serde_json::from_str(&document).unwrap();
    let paths = document["paths"].as_object().unwrap();
    assert!(paths.len() > 12, "{paths:?}");
    let mut asked: Vec<(Method, String)> = paths
        .iter()
        .flat_map(|(path, methods)| {
            let path = path.replace("{", "").replace("}", "");
            let methods = methods.as_object().unwrap().keys();
            methods.map(move |method| (method.to_uppercase().parse().unwrap(), path.clone()))
        })
        .collect();
    for path in ["/", "/no/such/path", "/docsx", "/openapi.json/"] {
        asked.push((Method::GET, path.to_owned()));
    }
    asked.push((Method::DELETE, "/compute/v1/images:upload".to_owned()));
    for (method, path) in asked {
        if is_open(&path) {
            continue;
        }
        let request = http.request(method.clone(), url(&path)).body("{}");
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 401, "{method} {path}");
        assert_eq!(answer.headers()["www-authenticate"], "Bearer");
        let status: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
        assert_eq!(status["code"], 16, "{method} {path}");
        assert_eq!(status["message"], REFUSED, "{method} {path}");
    }
}

#[tokio::test]
async fn what_is_open_has_a_reason_and_answers_whoever_asks() {
    let server = refusing().await;
    for open in OPEN {
        assert!(!open.reason.is_empty(), "{open:?}");
    }
    let open: Vec<_> = methods().into_iter().filter(|path| is_open(path)).collect();
    assert_eq!(open.len(), 4, "{open:?}");
    let http = reqwest::Client::new();
    let url = |path: &str| format!("http://{}{path}", server.address);
    for path in [
        "/openapi.json",
        "/docs",
        "/docs/",
        "/endpoints",
        "/endpoints/iam",
        "/livez",
        "/readyz",
    ] {
        assert!(is_open(path));
        let answer = http.get(url(path)).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
    }
    for path in [
        "/grpc.health.v1.Health/Check",
        "/yandex.cloud.endpoint.ApiEndpointService/List",
        "/yandex.cloud.endpoint.ApiEndpointService/Get",
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    ] {
        assert!(is_open(path));
        let reply = call(server.address, path, &[], vec![frame(0, b"")]).await;
        assert_ne!(reply.code(), Code::Unauthenticated, "{path}");
    }
    let preflight = http
        .request(Method::OPTIONS, url("/compute/v1/images"))
        .header("origin", "https://app.example")
        .header("access-control-request-method", "POST")
        .send();
    let preflight = preflight.await.unwrap();
    assert_eq!(preflight.status(), 200);
    let origin = &preflight.headers()["access-control-allow-origin"];
    assert_eq!(origin, "https://app.example");
}
