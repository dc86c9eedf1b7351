//! Where clients find the services.

use std::net::Ipv6Addr;

use desktop_images::app::Listen;
use desktop_images::contract::yandex::cloud::endpoint::{
    GetApiEndpointRequest, ListApiEndpointsRequest,
    api_endpoint_service_client::ApiEndpointServiceClient,
};
use serde_json::{Value, json};
use test_support::{TestServer, to_json};
use tonic::Code;

const IDS: [&str; 5] = ["clouddesktops", "compute", "endpoint", "iam", "operation"];

async fn over_rest(server: &TestServer, path: &str) -> (u16, Value) {
    let reply = server.http.get(server.url(path)).send().await.unwrap();
    let status = reply.status().as_u16();
    let body = reply.bytes().await.unwrap();
    (status, serde_json::from_slice(&body).unwrap())
}

#[tokio::test]
async fn every_service_is_found_once_over_grpc_and_rest() {
    let mut server = TestServer::start().await;
    for advertised in [None, Some("images.example:8443")] {
        let set = |config: &mut desktop_images::app::Config| {
            config.advertise = advertised.map(str::to_owned);
        };
        if advertised.is_some() {
            server = TestServer::start_with(set).await;
        }
        let own = server.address.to_string();
        let address = advertised.unwrap_or(&own);
        let expected = IDS.map(|id| json!({"id": id, "address": address}));
        let (status, listed) = over_rest(&server, "/endpoints").await;
        assert_eq!(status, 200);
        assert_eq!(listed, json!({"endpoints": expected, "nextPageToken": ""}));
        let mut client = ApiEndpointServiceClient::new(server.channel.clone());
        let reply = client.list(ListApiEndpointsRequest::default()).await;
        assert_eq!(to_json(reply.unwrap().get_ref()), listed);
        for endpoint in expected {
            let id = endpoint["id"].as_str().unwrap();
            let told = over_rest(&server, &format!("/endpoints/{id}")).await;
            assert_eq!(told, (200, endpoint.clone()));
            let request = GetApiEndpointRequest {
                api_endpoint_id: id.to_owned(),
            };
            let reply = client.get(request).await.unwrap();
            assert_eq!(to_json(reply.get_ref()), endpoint);
        }
    }
}

#[tokio::test]
async fn a_server_on_all_addresses_tells_the_one_that_it_was_reached_at() {
    let server = TestServer::start_with(|config| {
        let all = (Ipv6Addr::UNSPECIFIED, 0);
        config.listen = vec![Listen::Tcp(all.into())];
        config.insecure_plaintext = true;
        config.insecure_allow_anonymous = true;
        config.allow_hosts = vec!["images.example".parse().unwrap()];
    })
    .await;
    let port = server.address.port();
    for host in ["127.0.0.1", "[::1]"] {
        let url = format!("http://{host}:{port}/endpoints/compute");
        // Over plain HTTP anybody on the way can change the name.
        let request = server.http.get(url).header("host", "images.example");
        let told = request.send().await.unwrap().bytes().await.unwrap();
        let told: Value = serde_json::from_slice(&told).unwrap();
        assert_eq!(told["address"], format!("{host}:{port}"), "{told}");
    }
}

#[tokio::test]
async fn a_service_that_is_not_here_is_not_found() {
    let server = TestServer::start().await;
    let (status, told) = over_rest(&server, "/endpoints/storage").await;
    assert_eq!(status, 404);
    assert_eq!(told["message"], "Endpoint \"storage\" not found");
    let mut client = ApiEndpointServiceClient::new(server.channel.clone());
    let request = GetApiEndpointRequest {
        api_endpoint_id: "storage".to_owned(),
    };
    let refused = client.get(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
    assert_eq!(refused.message(), "Endpoint \"storage\" not found");
}
