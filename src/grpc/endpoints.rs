//! `yandex.cloud.endpoint.ApiEndpointService`: the address of each service, which is this server's for all of them.

use std::fmt;
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

/// The host and port that a request was sent to, in its extensions. Text is made of them only where they are told: every
/// request has them.
#[derive(Debug, Clone)]
pub(crate) enum AskedHost {
    /// The authority that the request names, where nobody could have changed it on the way, and the port of its scheme.
    Named(Authority, u16),
    /// The address that its connection came to.
    Reached(SocketAddr),
}

impl fmt::Display for AskedHost {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(authority, default_port) => {
                let port = authority.port_u16().unwrap_or(*default_port);
                write!(formatter, "{}:{port}", authority.host())
            }
            Self::Reached(address) => address.fmt(formatter),
        }
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
        let asked = || {
            let host: Option<&AskedHost> = request.extensions().get();
            host.map(|host| host.to_string().into())
        };
        let address = self.advertised.clone().or_else(asked);
        address.unwrap_or_else(|| Arc::clone(&self.own))
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
            let host = AskedHost::Named(asked.parse().unwrap(), 443);
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
