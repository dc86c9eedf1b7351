//! Limits of each subject.

use std::num::NonZeroU32;

use bytes::Bytes;
use futures_util::stream;
use http::Method;
use serde_json::Value;
use test_support::{Disk, Fill, eventually};

use super::identity::Guarded;

const GET: &str = "/operations/e3v00000000000000000";

#[tokio::test]
async fn a_subject_that_asks_too_often_waits_and_others_do_not() {
    let guarded = Guarded::start_with(|config| {
        config.subjects.requests_per_second = NonZeroU32::new(20);
    })
    .await;
    let other = guarded.token_with("f", "viewer").await;
    let mut refused = None;
    for _ in 0..200 {
        let request = guarded.server.http.get(guarded.server.url(GET));
        let reply = request.bearer_auth(&guarded.admin).send().await.unwrap();
        if reply.status() == 429 {
            refused = Some(reply);
            break;
        }
    }
    let refused = refused.expect("a refusal");
    assert_eq!(refused.headers()["retry-after"], "1");
    let body: Value = serde_json::from_slice(&refused.bytes().await.unwrap()).unwrap();
    assert_eq!(body["code"], 8, "{body}");
    assert!(body.to_string().contains("google.rpc.RetryInfo"), "{body}");
    let (status, _) = guarded.send(&other, Method::GET, GET, &Value::Null).await;
    assert_eq!(status, 404);
    eventually("the first may ask again", || async {
        let (status, _) = guarded
            .send(&guarded.admin, Method::GET, GET, &Value::Null)
            .await;
        (status == 404).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_subject_has_so_many_uploads_under_way_on_all_its_connections() {
    let guarded = Guarded::start_with(|config| config.subjects.transfers = Some(1)).await;
    let other = guarded.token_with("f", "editor").await;
    // Its body has no end.
    let pieces = stream::unfold((), |()| async {
        tokio::task::yield_now().await;
        std::future::pending::<Option<(Result<Bytes, std::io::Error>, ())>>().await
    });
    let first = guarded
        .server
        .upload("f", "first")
        .bearer_auth(&guarded.admin);
    let first = first.body(reqwest::Body::wrap_stream(pieces));
    let first = tokio::spawn(first.send());
    let upload = async |token: &str, name: String| {
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let path = format!("/compute/v1/images:upload?folderId=f&name={name}");
        let request = http.post(guarded.server.url(&path)).bearer_auth(token);
        let disk = Disk::mbr(1, Fill::Sparse(1));
        request.body(disk).send().await.unwrap().status().as_u16()
    };
    // An upload that came before it would have its permit.
    eventually("the first upload is under way", || async {
        let list = "/compute/v1/images?folderId=f";
        let listed = guarded.ask(Method::GET, list, Value::Null).await;
        listed["images"].get(0).map(|_| ())
    })
    .await;
    assert_eq!(upload(&guarded.admin, "second".to_owned()).await, 429);
    assert_eq!(upload(&other, "other".to_owned()).await, 200);
    first.abort();
    let mut number = 0;
    eventually("the first upload makes room", || {
        number += 1;
        let status = upload(&guarded.admin, format!("n{number}"));
        async { (status.await == 200).then_some(()) }
    })
    .await;
}

#[tokio::test]
async fn unknown_callers_have_so_many_requests_under_way() {
    let guarded = Guarded::start().await;
    let watch = || {
        let request = guarded
            .server
            .http
            .post(guarded.server.url("/grpc.health.v1.Health/Watch"));
        let request = request.header("accept", "application/x-ndjson").body("{}");
        async { request.send().await.unwrap() }
    };
    let mut streams = Vec::new();
    for _ in 0..64 {
        let stream = watch().await;
        assert_eq!(stream.status(), 200);
        streams.push(stream);
    }
    assert_eq!(watch().await.status(), 429);
    let (status, _) = guarded
        .send(&guarded.admin, Method::GET, GET, &Value::Null)
        .await;
    assert_eq!(status, 404, "those who are known are not concerned");
    streams.clear();
    eventually("there is room again", || async {
        (watch().await.status() == 200).then_some(())
    })
    .await;
}
