//! One way to call every method over gRPC and over REST, with JSON in and out.

use desktop_images::contract::desktopimages::v1 as own;
use desktop_images::contract::yandex::cloud::{clouddesktop::v1::api, compute::v1, operation};
use http::HeaderName;
use serde_json::Value;
use tonic::Code;
use tonic::metadata::{AsciiMetadataKey, MetadataMap};

use crate::refusal::{Refusal, http_code};
use crate::server::Clients;
use crate::{from_json, to_json};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    Grpc,
    Rest,
}

/// The methods of the services that have HTTP rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    DesktopList,
    DesktopGet,
    Copy,
    CopyFromDesktop,
    DesktopUpdate,
    DesktopDelete,
    ComputeList,
    ComputeGet,
    LatestByFamily,
    Create,
    ComputeUpdate,
    ComputeDelete,
    ListOperations,
    OperationGet,
    OperationCancel,
    /// The same over REST by the other binding of the contract.
    OperationCancelByPost,
    QuotaList,
    QuotaSet,
}

impl Method {
    pub const ALL: [Self; 18] = [
        Self::DesktopList,
        Self::DesktopGet,
        Self::Copy,
        Self::CopyFromDesktop,
        Self::DesktopUpdate,
        Self::DesktopDelete,
        Self::ComputeList,
        Self::ComputeGet,
        Self::LatestByFamily,
        Self::Create,
        Self::ComputeUpdate,
        Self::ComputeDelete,
        Self::ListOperations,
        Self::OperationGet,
        Self::OperationCancel,
        Self::OperationCancelByPost,
        Self::QuotaList,
        Self::QuotaSet,
    ];

    /// HTTP method and path by the tables of the contract.
    fn rest(self) -> (http::Method, &'static str) {
        use http::Method as Http;
        match self {
            Self::DesktopList => (Http::GET, "/cloud-desktop/v1/images"),
            Self::DesktopGet => (Http::GET, "/cloud-desktop/v1/images/{imageId}"),
            Self::Copy => (Http::POST, "/cloud-desktop/v1/images:copy"),
            Self::CopyFromDesktop => (Http::POST, "/cloud-desktop/v1/images:copyFromDesktop"),
            Self::DesktopUpdate => (Http::PATCH, "/cloud-desktop/v1/images/{imageId}"),
            Self::DesktopDelete => (Http::DELETE, "/cloud-desktop/v1/images/{imageId}"),
            Self::ComputeList => (Http::GET, "/compute/v1/images"),
            Self::ComputeGet => (Http::GET, "/compute/v1/images/{imageId}"),
            Self::LatestByFamily => (Http::GET, "/compute/v1/images:latestByFamily"),
            Self::Create => (Http::POST, "/compute/v1/images"),
            Self::ComputeUpdate => (Http::PATCH, "/compute/v1/images/{imageId}"),
            Self::ComputeDelete => (Http::DELETE, "/compute/v1/images/{imageId}"),
            Self::ListOperations => (Http::GET, "/compute/v1/images/{imageId}/operations"),
            Self::OperationGet => (Http::GET, "/operations/{operationId}"),
            Self::OperationCancel => (Http::GET, "/operations/{operationId}:cancel"),
            Self::OperationCancelByPost => (Http::POST, "/operations/{operationId}:cancel"),
            Self::QuotaList => (Http::GET, "/desktop-images/v1/quotas"),
            Self::QuotaSet => (Http::PUT, "/desktop-images/v1/quotas"),
        }
    }

    /// The full name of the request message.
    pub fn request(self) -> &'static str {
        match self {
            Self::DesktopList => "yandex.cloud.clouddesktop.v1.api.ListDesktopImagesRequest",
            Self::DesktopGet => "yandex.cloud.clouddesktop.v1.api.GetDesktopImageRequest",
            Self::Copy => "yandex.cloud.clouddesktop.v1.api.CopyDesktopImageRequest",
            Self::CopyFromDesktop => "yandex.cloud.clouddesktop.v1.api.CopyFromDesktopRequest",
            Self::DesktopUpdate => "yandex.cloud.clouddesktop.v1.api.UpdateDesktopImageRequest",
            Self::DesktopDelete => "yandex.cloud.clouddesktop.v1.api.DeleteDesktopImageRequest",
            Self::ComputeList => "yandex.cloud.compute.v1.ListImagesRequest",
            Self::ComputeGet => "yandex.cloud.compute.v1.GetImageRequest",
            Self::LatestByFamily => "yandex.cloud.compute.v1.GetImageLatestByFamilyRequest",
            Self::Create => "yandex.cloud.compute.v1.CreateImageRequest",
            Self::ComputeUpdate => "yandex.cloud.compute.v1.UpdateImageRequest",
            Self::ComputeDelete => "yandex.cloud.compute.v1.DeleteImageRequest",
            Self::ListOperations => "yandex.cloud.compute.v1.ListImageOperationsRequest",
            Self::OperationGet => "yandex.cloud.operation.GetOperationRequest",
            Self::OperationCancel | Self::OperationCancelByPost => {
                "yandex.cloud.operation.CancelOperationRequest"
            }
            Self::QuotaList => "desktopimages.v1.ListQuotasRequest",
            Self::QuotaSet => "desktopimages.v1.SetQuotaRequest",
        }
    }
}

/// Why no reply came, or not the whole of it.
#[derive(Debug)]
pub struct NoReply(pub String);

impl From<reqwest::Error> for NoReply {
    fn from(error: reqwest::Error) -> Self {
        Self(format!("{error:?}"))
    }
}

/// Calls methods over one transport.
#[derive(Clone)]
pub struct Caller {
    pub transport: Transport,
    pub clients: Clients,
}

impl Caller {
    pub async fn call(&self, method: Method, request: Value) -> Result<Value, Refusal> {
        self.call_with(method, request, &[]).await
    }

    /// A call with headers, which are metadata in gRPC.
    pub async fn call_with(
        &self,
        method: Method,
        request: Value,
        headers: &[(&str, &str)],
    ) -> Result<Value, Refusal> {
        let reply = self.attempt(method, request, headers).await;
        reply.unwrap_or_else(|NoReply(why)| {
            Err(Refusal {
                code: Code::Unavailable,
                message: why,
                fields: Vec::new(),
                quotas: Vec::new(),
            })
        })
    }

    /// A call to a server that may end meanwhile.
    pub async fn attempt(
        &self,
        method: Method,
        request: Value,
        headers: &[(&str, &str)],
    ) -> Result<Result<Value, Refusal>, NoReply> {
        match self.transport {
            Transport::Grpc => self.grpc(method, &request, headers).await,
            Transport::Rest => self.rest(method, request, headers).await,
        }
    }

    async fn grpc(
        &self,
        method: Method,
        request: &Value,
        headers: &[(&str, &str)],
    ) -> Result<Result<Value, Refusal>, NoReply> {
        macro_rules! ask {
            ($client:ident, $method:ident, $request:ty) => {{
                let mut message = tonic::Request::new(from_json::<$request>(request));
                *message.metadata_mut() = metadata(headers);
                match self.clients.$client().$method(message).await {
                    Ok(reply) => Ok(Ok(to_json(reply.get_ref()))),
                    // What the server said itself has no cause in the client.
                    Err(status) => match std::error::Error::source(&status) {
                        Some(_) => Err(NoReply(status.to_string())),
                        None => Ok(Err(Refusal::from_status(&status))),
                    },
                }
            }};
        }
        match method {
            Method::DesktopList => ask!(desktop, list, api::ListDesktopImagesRequest),
            Method::DesktopGet => ask!(desktop, get, api::GetDesktopImageRequest),
            Method::Copy => ask!(desktop, copy, api::CopyDesktopImageRequest),
            Method::CopyFromDesktop => {
                ask!(desktop, copy_from_desktop, api::CopyFromDesktopRequest)
            }
            Method::DesktopUpdate => ask!(desktop, update, api::UpdateDesktopImageRequest),
            Method::DesktopDelete => ask!(desktop, delete, api::DeleteDesktopImageRequest),
            Method::ComputeList => ask!(compute, list, v1::ListImagesRequest),
            Method::ComputeGet => ask!(compute, get, v1::GetImageRequest),
            Method::LatestByFamily => {
                ask!(
                    compute,
                    get_latest_by_family,
                    v1::GetImageLatestByFamilyRequest
                )
            }
            Method::Create => ask!(compute, create, v1::CreateImageRequest),
            Method::ComputeUpdate => ask!(compute, update, v1::UpdateImageRequest),
            Method::ComputeDelete => ask!(compute, delete, v1::DeleteImageRequest),
            Method::ListOperations => {
                ask!(compute, list_operations, v1::ListImageOperationsRequest)
            }
            Method::OperationGet => ask!(operation, get, operation::GetOperationRequest),
            Method::OperationCancel | Method::OperationCancelByPost => {
                ask!(operation, cancel, operation::CancelOperationRequest)
            }
            Method::QuotaList => ask!(quota, list, own::ListQuotasRequest),
            Method::QuotaSet => ask!(quota, set, own::SetQuotaRequest),
        }
    }

    async fn rest(
        &self,
        method: Method,
        request: Value,
        headers: &[(&str, &str)],
    ) -> Result<Result<Value, Refusal>, NoReply> {
        let (http_method, template) = method.rest();
        let mut fields = request.as_object().expect("an object").clone();
        let mut path = template.to_owned();
        if let Some((before, rest)) = template.split_once('{') {
            let (name, after) = rest.split_once('}').expect("a closed brace");
            let value = fields.remove(name).unwrap_or_default();
            let value = value.as_str().expect("a path variable is text");
            path = format!("{before}{}{after}", escaped(value));
        }
        let mut body = None;
        if matches!(http_method, http::Method::GET | http::Method::DELETE) {
            let pairs: Vec<String> = fields
                .iter()
                .map(|(name, value)| match value {
                    Value::String(text) => format!("{name}={}", escaped(text)),
                    other => format!("{name}={other}"),
                })
                .collect();
            path = format!("{path}?{}", pairs.join("&"));
        } else if method != Method::OperationCancelByPost {
            body = Some(Value::Object(fields).to_string());
        }
        let mut request = self
            .clients
            .http
            .request(http_method, self.clients.url(&path));
        if let Some(body) = body {
            request = request
                .header("content-type", "application/json")
                .body(body);
        }
        for (name, value) in headers {
            let name: HeaderName = name.parse().expect("a header name");
            request = request.header(name, *value);
        }
        let reply = request.send().await?;
        let status = reply.status().as_u16();
        let id = reply.headers()["x-request-id"]
            .to_str()
            .expect("ASCII")
            .to_owned();
        assert_eq!(reply.headers()["content-type"], "application/json");
        let body = reply.bytes().await?;
        let body: Value = serde_json::from_slice(&body).expect("JSON");
        if status == 200 {
            return Ok(Ok(body));
        }
        let refusal = Refusal::from_json(&body);
        assert_eq!(status, http_code(refusal.code), "{body}");
        let has_id = body["details"]
            .as_array()
            .into_iter()
            .flatten()
            .any(|detail| {
                detail["@type"] == "type.googleapis.com/google.rpc.RequestInfo"
                    && detail["requestId"] == id.as_str()
            });
        assert!(has_id, "no RequestInfo: {body}");
        Ok(Err(refusal))
    }
}

fn metadata(headers: &[(&str, &str)]) -> MetadataMap {
    let mut metadata = MetadataMap::new();
    for (name, value) in headers {
        let name: AsciiMetadataKey = name.to_ascii_lowercase().parse().expect("a metadata key");
        metadata.insert(name, value.parse().expect("a metadata value"));
    }
    metadata
}

/// Everything but letters and digits as percent escapes.
pub(crate) fn escaped(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}
