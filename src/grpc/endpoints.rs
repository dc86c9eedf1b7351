//! `yandex.cloud.endpoint.ApiEndpointService`: the address of each service, which is this server's for all of them.

use std::net::SocketAddr;
use std::sync::Arc;

use http::uri::Authority;
use tonic::{Request, Response, Status};

use super::request;
use crate::contract::texts;
use crate::contract::yandex::cloud::endpoint::{
    ApiEndpoint, GetApiEndpointRequest, ListApiEndpointsRequest, ListApiEndpointsResponse,
    api_endpoint_service_server::ApiEndpointService,
};

/// The ids that public clients look up, in their order. Each is listed once: a stock client throws on doubles.
const IDS: [&str; 5] = ["clouddesktops", "compute", "endpoint", "iam", "operation"];

/// The host and port that a request was sent to, in its extensions. They are those that it names where nobody could have
/// changed them on the way, else those of the socket.
#[derive(Debug, Clone)]
pub(crate) struct AskedHost(Arc<str>);

impl AskedHost {
    /// The host and port of an authority.
    pub(crate) fn new(authority: &Authority, default_port: u16) -> Self {
        let port = authority.port_u16().unwrap_or(default_port);
        Self(format!("{}:{port}", authority.host()).into())
    }
}

impl From<SocketAddr> for AskedHost {
    fn from(address: SocketAddr) -> Self {
        Self(address.to_string().into())
    }
}

/// The addresses that clients are told.
#[derive(Debug, Clone)]
pub(crate) struct Endpoints {
    advertised: Option<Arc<str>>,
    own: Arc<str>,
}

impl Endpoints {
    /// The address that is `advertised`, or that of the request, or the listener's `own` where a request has none.
    pub(crate) fn new(advertised: Option<&str>, own: &str) -> Self {
        Self {
            advertised: advertised.map(Arc::from),
            own: own.into(),
        }
    }

    fn address<T>(&self, request: &Request<T>) -> Arc<str> {
        let asked = || request.extensions().get().map(|AskedHost(host)| host);
        let address = self.advertised.as_ref().or_else(asked);
        Arc::clone(address.unwrap_or(&self.own))
    }
}

fn endpoint(id: &str, address: &str) -> ApiEndpoint {
    ApiEndpoint {
        id: id.to_owned(),
        address: address.to_owned(),
    }
}

/// Both methods are asked before a client knows how to authenticate, and need no context.
#[tonic::async_trait]
impl ApiEndpointService for Endpoints {
    async fn get(
        &self,
        request: Request<GetApiEndpointRequest>,
    ) -> Result<Response<ApiEndpoint>, Status> {
        let address = self.address(&request);
        let request = request.into_inner();
        request::check(&request)?;
        let id = request.api_endpoint_id;
        match IDS.contains(&id.as_str()) {
            true => Ok(Response::new(endpoint(&id, &address))),
            false => Err(Status::not_found(format!(
                "Endpoint \"{}\" not found",
                texts::shown(&id)
            ))),
        }
    }

    async fn list(
        &self,
        request: Request<ListApiEndpointsRequest>,
    ) -> Result<Response<ListApiEndpointsResponse>, Status> {
        let address = self.address(&request);
        Ok(Response::new(ListApiEndpointsResponse {
            endpoints: IDS.iter().map(|id| endpoint(id, &address)).collect(),
            next_page_token: String::new(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The address that a list names, where the request was sent to `asked`.
    async fn told(advertised: Option<&str>, asked: Option<&str>) -> String {
        let endpoints = Endpoints::new(advertised, "10.0.0.1:8080");
        let mut request = Request::new(ListApiEndpointsRequest::default());
        if let Some(asked) = asked {
            let host = AskedHost::new(&asked.parse().unwrap(), 443);
            request.extensions_mut().insert(host);
        }
        let reply = endpoints.list(request).await.unwrap().into_inner();
        let ids: Vec<_> = reply.endpoints.iter().map(|it| it.id.as_str()).collect();
        assert_eq!(ids, IDS);
        assert!(ids.is_sorted());
        let address = reply.endpoints[0].address.clone();
        assert!(reply.endpoints.iter().all(|it| it.address == address));
        address
    }

    #[tokio::test]
    async fn the_surest_address_is_told() {
        for (advertised, asked, expected) in [
            (None, None, "10.0.0.1:8080"),
            (None, Some("images.example"), "images.example:443"),
            (None, Some("images.example:8443"), "images.example:8443"),
            (None, Some("[::1]"), "[::1]:443"),
            (Some("a.example:1"), Some("b.example"), "a.example:1"),
        ] {
            let told = told(advertised, asked).await;
            assert_eq!(told, expected, "{advertised:?} {asked:?}");
        }
    }
}
