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
