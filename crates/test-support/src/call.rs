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

/// Declares [`Method`] by a table: the verb and path of each method over REST, as the tables of the contract have
/// them, and over gRPC its client (of [`Clients`]), the client's method, and the request.
macro_rules! methods {
    ($(
        $(#[$doc:meta])*
        $name:ident: $verb:ident $path:literal, $client:ident.$method:ident($request:ty);
    )+) => {
        /// The methods of the services that have HTTP rules and no streams.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Method {
            $($(#[$doc])* $name,)+
        }

        impl Method {
            pub const ALL: [Self; [$(Self::$name),+].len()] = [$(Self::$name),+];

            /// HTTP method and path by the tables of the contract.
            fn rest(self) -> (http::Method, &'static str) {
                match self {
                    $(Self::$name => (http::Method::$verb, $path),)+
                }
            }

            /// The full name of the request message.
            pub fn request(self) -> String {
                match self {
                    $(Self::$name => <$request as prost::Name>::full_name(),)+
                }
            }
        }

        impl Caller {
            async fn grpc(
                &self,
                method: Method,
                request: &Value,
                headers: &[(&str, &str)],
            ) -> Result<Result<Value, Refusal>, NoReply> {
                match method {
                    $(Method::$name => {
                        let mut message = tonic::Request::new(from_json::<$request>(request));
                        *message.metadata_mut() = metadata(headers);
                        answered(self.clients.$client().$method(message).await)
                    })+
                }
            }
        }
    };
}

methods! {
    DesktopList: GET "/cloud-desktop/v1/images",
        desktop.list(api::ListDesktopImagesRequest);
    DesktopGet: GET "/cloud-desktop/v1/images/{imageId}",
        desktop.get(api::GetDesktopImageRequest);
    Copy: POST "/cloud-desktop/v1/images:copy",
        desktop.copy(api::CopyDesktopImageRequest);
    CopyFromDesktop: POST "/cloud-desktop/v1/images:copyFromDesktop",
        desktop.copy_from_desktop(api::CopyFromDesktopRequest);
    DesktopUpdate: PATCH "/cloud-desktop/v1/images/{imageId}",
        desktop.update(api::UpdateDesktopImageRequest);
    DesktopDelete: DELETE "/cloud-desktop/v1/images/{imageId}",
        desktop.delete(api::DeleteDesktopImageRequest);
    ComputeList: GET "/compute/v1/images",
        compute.list(v1::ListImagesRequest);
    ComputeGet: GET "/compute/v1/images/{imageId}",
        compute.get(v1::GetImageRequest);
    LatestByFamily: GET "/compute/v1/images:latestByFamily",
        compute.get_latest_by_family(v1::GetImageLatestByFamilyRequest);
    Create: POST "/compute/v1/images",
        compute.create(v1::CreateImageRequest);
    ComputeUpdate: PATCH "/compute/v1/images/{imageId}",
        compute.update(v1::UpdateImageRequest);
    ComputeDelete: DELETE "/compute/v1/images/{imageId}",
        compute.delete(v1::DeleteImageRequest);
    ListOperations: GET "/compute/v1/images/{imageId}/operations",
        compute.list_operations(v1::ListImageOperationsRequest);
    OperationGet: GET "/operations/{operationId}",
        operation.get(operation::GetOperationRequest);
    OperationCancel: GET "/operations/{operationId}:cancel",
        operation.cancel(operation::CancelOperationRequest);
    /// The same over REST by the other binding of the contract.
    OperationCancelByPost: POST "/operations/{operationId}:cancel",
        operation.cancel(operation::CancelOperationRequest);
    QuotaList: GET "/desktop-images/v1/quotas",
        quota.list(own::ListQuotasRequest);
    QuotaSet: PUT "/desktop-images/v1/quotas",
        quota.set(own::SetQuotaRequest);
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

/// The reply of a server, its refusal, or none.
fn answered<M: prost::Message + prost::Name>(
    reply: Result<tonic::Response<M>, tonic::Status>,
) -> Result<Result<Value, Refusal>, NoReply> {
    match reply {
        Ok(reply) => Ok(Ok(to_json(reply.get_ref()))),
        // A refusal of the server has no cause in the client.
        Err(status) => match std::error::Error::source(&status) {
            Some(_) => Err(NoReply(status.to_string())),
            None => Ok(Err(Refusal::from_status(&status))),
        },
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
