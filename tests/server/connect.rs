//! The Connect protocol, as its clients speak it to a whole server.

use base64::{Engine, prelude::BASE64_STANDARD_NO_PAD};
use desktop_images::contract::yandex::cloud::compute::v1::{ListImagesRequest, ListImagesResponse};
use prost::Message;
use serde_json::{Value, json};
use test_support::{Disk, Fill, Method, TestServer, Transport, to_json};
use tonic_types::pb;

const LIST: &str = "/yandex.cloud.compute.v1.ImageService/List";
const GET: &str = "/yandex.cloud.compute.v1.ImageService/Get";
const WATCH: &str = "/desktopimages.v1.OperationWatchService/Watch";

/// Every dialect gives the same message.
#[tokio::test]
async fn all_ways_to_list_say_the_same() {
    let server = TestServer::start().await;
    let disk = Disk::mbr(2, Fill::Sparse(1));
    // So many that their list is worth compressing.
    for name in ["one", "two", "three", "four", "five"] {
        server.compute_image("f", name, &disk).await;
    }
    let grpc = server.caller(Transport::Grpc);
    let expected = grpc
        .call(Method::ComputeList, json!({"folderId": "f"}))
        .await
        .unwrap();
    let message = ListImagesRequest {
        folder_id: "f".to_owned(),
        ..Default::default()
    };
    let wire = message.encode_to_vec();
    let encoded = BASE64_STANDARD_NO_PAD.encode(&wire);
    let url = server.url(LIST);
    let of_json = |body: &[u8]| serde_json::from_slice::<Value>(body).unwrap();
    let of_wire = |body: &[u8]| to_json(&ListImagesResponse::decode(body).unwrap());
    for coding in ["identity", "gzip"] {
        let http = &server.http;
        let post = |content_type| http.post(&url).header("content-type", content_type);
        let answers = [
            (post("application/json").body(r#"{"folderId": "f"}"#), true),
            (post("application/proto").body(wire.clone()), false),
            (
                http.get(format!(
                    "{url}?connect=v1&encoding=json&message=%7B%22folderId%22:%22f%22%7D"
                )),
                true,
            ),
            (
                http.get(format!(
                    "{url}?connect=v1&encoding=proto&base64=1&message={encoded}"
                )),
                false,
            ),
        ];
        for (request, is_json) in answers {
            let request = request
                .header("connect-protocol-version", "1")
                .header("accept-encoding", coding);
            let reply = request.send().await.unwrap();
            assert_eq!(reply.status(), 200);
            let content_type = reply.headers()["content-type"].to_str().unwrap().to_owned();
            assert_eq!(content_type == "application/json", is_json);
            let got = reply
                .headers()
                .get("content-encoding")
                .map(|it| it.to_str().unwrap());
            assert_eq!(got, (coding == "gzip").then_some("gzip"), "{content_type}");
            if got.is_some() {
                continue;
            }
            let body = reply.bytes().await.unwrap();
            let body = if is_json {
                of_json(&body)
            } else {
                of_wire(&body)
            };
            assert_eq!(body, expected);
        }
    }
}

#[tokio::test]
async fn refusals_have_the_details_of_grpc() {
    let server = TestServer::start().await;
    let message = json!({"folderId": "", "pageSize": "-1"});
    let grpc = server.caller(Transport::Grpc);
    let refusal = grpc
        .call(Method::ComputeList, message.clone())
        .await
        .unwrap_err();
    let request = server
        .http
        .post(server.url(LIST))
        .header("content-type", "application/json");
    let reply = request.body(message.to_string()).send().await.unwrap();
    assert_eq!(reply.status(), 400);
    let told: Value = serde_json::from_slice(&reply.bytes().await.unwrap()).unwrap();
    assert_eq!(told["code"], "invalid_argument");
    assert_eq!(told["message"], refusal.message.as_str());
    let detail = &told["details"][0];
    assert_eq!(detail["type"], "google.rpc.BadRequest");
    let value = BASE64_STANDARD_NO_PAD
        .decode(detail["value"].as_str().unwrap())
        .unwrap();
    let bad_request = pb::BadRequest::decode(&value[..]).unwrap();
    let fields: Vec<_> = bad_request
        .field_violations
        .iter()
        .map(|it| &it.field)
        .collect();
    assert_eq!(fields, ["folder_id", "page_size"]);
    let reply = server
        .http
        .post(server.url(GET))
        .header("content-type", "application/json");
    let reply = reply.body(r#"{"imageId": "none"}"#).send().await.unwrap();
    assert_eq!(reply.status(), 404);
}

/// The envelopes of a body: flags and message.
fn opened(mut body: &[u8]) -> Vec<(u8, Value)> {
    let mut envelopes = Vec::new();
    while let Some((&[flags, length @ ..], rest)) = body.split_first_chunk::<5>() {
        let (message, rest) = rest.split_at(u32::from_be_bytes(length) as usize);
        envelopes.push((flags, serde_json::from_slice(message).unwrap()));
        body = rest;
    }
    envelopes
}

#[tokio::test]
async fn a_stream_ends_with_how_it_ended() {
    let server = TestServer::start().await;
    let disk = Disk::mbr(2, Fill::Sparse(1));
    let operation = server.uploaded("f", "one", &disk).await;
    let asked = |id: &Value| {
        let message = json!({"operationId": id}).to_string();
        let mut body = vec![0];
        body.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
        body.extend(message.bytes());
        let request = server.http.post(server.url(WATCH)).body(body);
        request.header("content-type", "application/connect+json")
    };
    let reply = asked(&operation["id"]).send().await.unwrap();
    assert_eq!(reply.headers()["content-type"], "application/connect+json");
    let envelopes = opened(&reply.bytes().await.unwrap());
    assert_eq!(envelopes.len(), 2, "{envelopes:?}");
    assert_eq!((envelopes[0].0, &envelopes[0].1["done"]), (0, &json!(true)));
    assert_eq!(envelopes[1].0, 2);
    assert_eq!(envelopes[1].1.get("error"), None);

    let reply = asked(&json!("none")).send().await.unwrap();
    assert_eq!(reply.status(), 200);
    let envelopes = opened(&reply.bytes().await.unwrap());
    assert_eq!(envelopes.len(), 1, "{envelopes:?}");
    assert_eq!(envelopes[0].1["error"]["code"], "not_found");
}

/// Layers in front of the services refuse in the protocol, too.
#[tokio::test]
async fn pages_of_other_sites_are_refused_in_the_protocol() {
    let server = TestServer::start().await;
    for (content_type, status) in [
        ("application/proto", 403),
        ("application/connect+proto", 200),
    ] {
        let request = server
            .http
            .post(server.url(LIST))
            .header("content-type", content_type);
        let reply = request
            .header("origin", "https://evil.example")
            .send()
            .await
            .unwrap();
        assert_eq!(reply.status(), status);
        let body = reply.bytes().await.unwrap();
        let start = if status == 200 { 5 } else { 0 };
        let told: Value = serde_json::from_slice(&body[start..]).unwrap();
        let error = if status == 200 { &told["error"] } else { &told };
        assert_eq!(error["code"], "permission_denied", "{told}");
    }
}
