//! The layer in front of a server that tonic generated, with an interceptor, as it stands in a program.

use std::convert::Infallible;

use http::Request;
use http_body_util::{BodyExt, Empty};
use tonic::{
    Status,
    body::Body,
    service::{Routes, interceptor::InterceptedService},
};
use tonic_health::{ServingStatus, pb::health_server::HealthServer, server::HealthService};
use tower::{Service, ServiceExt};

use super::{
    super::{Settings, Transcoder},
    pool,
};

async fn health() -> Transcoder<Routes> {
    let (reporter, _) = tonic_health::server::health_reporter();
    reporter
        .set_service_status("good one", ServingStatus::Serving)
        .await;
    reporter
        .set_service_status("bad", ServingStatus::NotServing)
        .await;
    let service = HealthServer::new(HealthService::from_health_reporter(reporter));
    let guarded = InterceptedService::new(service, |call: tonic::Request<()>| {
        match call.metadata().get("authorization") {
            Some(token) if token == "Bearer t" => Ok(call),
            _ => Err(Status::unauthenticated("Token is invalid or has expired.")),
        }
    });
    let routes = Routes::new(guarded);
    Transcoder::new(
        pool(),
        ["grpc.health.v1.Health"],
        routes,
        Settings::default(),
    )
    .expect("the rules are right")
}

async fn get(uri: &str, token: &str) -> (u16, serde_json::Value) {
    let request = Request::get(uri)
        .header("authorization", format!("Bearer {token}"))
        .body(Empty::<bytes::Bytes>::new())
        .expect("a request");
    let Ok(response) = health().await.oneshot(request).await;
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.expect("a whole body");
    let json = serde_json::from_slice(&body.to_bytes()).expect("JSON");
    (status, json)
}

#[tokio::test]
async fn calls_reach_the_server_through_its_interceptor() {
    let cases = [
        ("/health", "t", 200, "status", "SERVING"),
        ("/health/good%20one", "t", 200, "status", "SERVING"),
        ("/health?service=bad", "t", 200, "status", "NOT_SERVING"),
        (
            "/health/none",
            "t",
            404,
            "message",
            "service not registered",
        ),
        (
            "/health",
            "x",
            401,
            "message",
            "Token is invalid or has expired.",
        ),
    ];
    for (uri, token, status, field, expected) in cases {
        let (got, json) = get(uri, token).await;
        assert_eq!(
            (got, &json[field]),
            (status, &expected.into()),
            "{uri}: {json}"
        );
    }
}

/// Layers around a service see REST calls as they see gRPC calls, and may answer them themselves.
#[tokio::test]
async fn layers_run_for_rest_calls() {
    use std::sync::{Arc, Mutex};
    use tower::Layer;

    let seen = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&seen);
    let layer = tower::layer::layer_fn(move |inner: Routes| {
        let noted = Arc::clone(&noted);
        tower::service_fn(move |request: Request<Body>| {
            let path = request.uri().path().to_owned();
            noted.lock().expect("no panic").push(path);
            let stop = request.headers().contains_key("x-stop");
            let call = inner.clone().call(request);
            async move {
                match stop {
                    true => Ok(Status::resource_exhausted("by the layer").into_http()),
                    false => call.await,
                }
            }
        })
    });
    let (_, service) = tonic_health::server::health_reporter();
    let service = layer.layer(Routes::new(service));
    let transcoder = Transcoder::new(
        pool(),
        ["grpc.health.v1.Health"],
        service,
        Settings::default(),
    )
    .expect("the rules are right");
    for (header, status) in [("x-go", 200), ("x-stop", 429)] {
        let request = Request::get("/health")
            .header(header, "1")
            .body(Empty::<bytes::Bytes>::new())
            .expect("a request");
        let Ok(response) = transcoder.clone().oneshot(request).await;
        assert_eq!(response.status(), status);
    }
    assert_eq!(
        *seen.lock().expect("no panic"),
        ["/grpc.health.v1.Health/Check"; 2]
    );
}

#[tokio::test]
async fn a_stream_of_the_server_arrives_as_it_is_sent() {
    let (reporter, service) = tonic_health::server::health_reporter();
    reporter
        .set_service_status("s", ServingStatus::NotServing)
        .await;
    let transcoder = Transcoder::new(
        pool(),
        ["grpc.health.v1.Health"],
        Routes::new(service),
        Settings::default(),
    )
    .expect("the rules are right");
    let request = Request::get("/health/s:watch")
        .header("accept", "text/event-stream")
        .body(Empty::<bytes::Bytes>::new())
        .expect("a request");
    let Ok(response) = transcoder.oneshot(request).await;
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut body = response.into_body();
    for (status, next) in [
        ("NOT_SERVING", ServingStatus::Serving),
        ("SERVING", ServingStatus::Unknown),
        ("UNKNOWN", ServingStatus::Serving),
    ] {
        let frame = body.frame().await.expect("a frame").expect("a frame");
        let event = frame.into_data().expect("data");
        assert_eq!(event, format!("data: {{\"status\":\"{status}\"}}\n\n"));
        reporter.set_service_status("s", next).await;
    }
}

#[tokio::test]
async fn it_fits_behind_axum() {
    fn fits<S, B>(_: &S)
    where
        S: Service<Request<B>, Error = Infallible> + Clone + Send + Sync + 'static,
        S::Future: Send,
    {
    }
    fits::<_, Body>(&health().await);
}
