//! The clients of a server: gRPC, and the HTTP of uploads and downloads, at one endpoint.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{HeaderMap, Uri, header};
use hyper_util::rt::TokioIo;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{RequestBuilder, Response, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;
use tonic::Code;
use tonic::body::Body;
use tonic::transport::Channel;
use tower::Service;

use super::connection::Connection;
use super::endpoint::Endpoint;
use super::errors::{Error, Result, root};
use crate::contract::desktopimages::v1::{
    access_service_client::AccessServiceClient, audit_service_client::AuditServiceClient,
    operation_watch_service_client::OperationWatchServiceClient,
    quota_service_client::QuotaServiceClient,
    service_account_service_client::ServiceAccountServiceClient,
    signed_url_service_client::SignedUrlServiceClient, token_service_client::TokenServiceClient,
};
use crate::contract::yandex::cloud::{
    clouddesktop::v1::api::desktop_image_service_client::DesktopImageServiceClient,
    compute::v1::image_service_client::ImageServiceClient,
    operation::operation_service_client::OperationServiceClient,
};
use crate::telemetry::chain;
use crate::tls;

const USER_AGENT: &str = concat!("desktop-images/", env!("CARGO_PKG_VERSION"));
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a silent server is asked whether it is there, and how long it may take to answer.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// The longest silence of an object storage.
const SILENCE: Duration = Duration::from_secs(60);
/// A full page of the largest images the contract allows, several times over.
const MAX_REPLY: usize = 64 << 20;
/// The most that is read of the body of an error.
const MAX_ERROR_BODY: usize = 64 << 10;
/// Bytes that HTTP/2 may send ahead of its reader.
const WINDOW: u32 = 8 << 20;

/// A gRPC connection.
pub(crate) struct Client {
    calls: Calls,
}

impl Client {
    pub(crate) async fn connect(connection: &Connection) -> Result<Self> {
        let endpoint = &connection.endpoint;
        let unreachable = |error: tonic::transport::Error| Error::Unreachable {
            endpoint: endpoint.to_string(),
            reason: advised(root(&error)),
        };
        // The scheme of requests is the origin's; the connector below knows whether there is TLS.
        let origin = endpoint.origin();
        let host = origin.replacen("https://", "http://", 1);
        let channel = Channel::from_shared(host)
            .map_err(|error| Error::failed("endpoint", &error))?
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE);
        let channel = match connector(connection)? {
            None => channel.connect().await,
            Some(connector) => {
                let origin = origin
                    .parse()
                    .map_err(|error: http::uri::InvalidUri| Error::failed("endpoint", &error))?;
                let connect = tower::service_fn(move |_: Uri| connector.clone().connect());
                channel.origin(origin).connect_with_connector(connect).await
            }
        };
        Ok(Self {
            calls: Calls {
                channel: channel.map_err(unreachable)?,
                headers: Arc::new(connection.headers.clone()),
            },
        })
    }

    pub(crate) fn desktop_images(&self) -> DesktopImageServiceClient<Calls> {
        DesktopImageServiceClient::new(self.calls.clone()).max_decoding_message_size(MAX_REPLY)
    }

    pub(crate) fn compute_images(&self) -> ImageServiceClient<Calls> {
        ImageServiceClient::new(self.calls.clone()).max_decoding_message_size(MAX_REPLY)
    }

    pub(crate) fn operations(&self) -> OperationServiceClient<Calls> {
        OperationServiceClient::new(self.calls.clone())
    }

    pub(crate) fn operation_watch(&self) -> OperationWatchServiceClient<Calls> {
        OperationWatchServiceClient::new(self.calls.clone())
    }

    pub(crate) fn quotas(&self) -> QuotaServiceClient<Calls> {
        QuotaServiceClient::new(self.calls.clone()).max_decoding_message_size(MAX_REPLY)
    }

    pub(crate) fn tokens(&self) -> TokenServiceClient<Calls> {
        TokenServiceClient::new(self.calls.clone()).max_decoding_message_size(MAX_REPLY)
    }

    pub(crate) fn access(&self) -> AccessServiceClient<Calls> {
        AccessServiceClient::new(self.calls.clone()).max_decoding_message_size(MAX_REPLY)
    }

    pub(crate) fn service_accounts(&self) -> ServiceAccountServiceClient<Calls> {
        ServiceAccountServiceClient::new(self.calls.clone()).max_decoding_message_size(MAX_REPLY)
    }

    pub(crate) fn signed_urls(&self) -> SignedUrlServiceClient<Calls> {
        SignedUrlServiceClient::new(self.calls.clone())
    }

    pub(crate) fn audit(&self) -> AuditServiceClient<Calls> {
        AuditServiceClient::new(self.calls.clone())
    }
}

/// A channel that sends the headers of its connection with each call.
#[derive(Clone)]
pub(crate) struct Calls {
    channel: Channel,
    headers: Arc<HeaderMap>,
}

impl Service<http::Request<Body>> for Calls {
    type Response = http::Response<Body>;
    type Error = tonic::transport::Error;
    type Future = <Channel as Service<http::Request<Body>>>::Future;

    fn poll_ready(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<std::result::Result<(), Self::Error>> {
        Service::poll_ready(&mut self.channel, context)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        for (name, value) in &*self.headers {
            request.headers_mut().append(name, value.clone());
        }
        self.channel.call(request)
    }
}

/// Connects where the usual way does not: by TLS, or to a Unix socket.
#[derive(Clone)]
enum Connector {
    Tls {
        config: Arc<ClientConfig>,
        host: String,
        port: u16,
    },
    Unix(PathBuf),
}

/// A byte stream of a kind that only the connector knows.
trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

impl Connector {
    async fn connect(self) -> io::Result<TokioIo<Box<dyn Io>>> {
        let stream: Box<dyn Io> = match self {
            Self::Tls { config, host, port } => {
                let stream = TcpStream::connect((host.as_str(), port)).await?;
                stream.set_nodelay(true)?;
                let name = ServerName::try_from(host).map_err(io::Error::other)?;
                Box::new(TlsConnector::from(config).connect(name, stream).await?)
            }
            Self::Unix(path) => Box::new(UnixStream::connect(path).await?),
        };
        Ok(TokioIo::new(stream))
    }
}

/// The way to connect, where it is not the usual one.
fn connector(connection: &Connection) -> Result<Option<Connector>> {
    let endpoint = &connection.endpoint;
    if let Some(path) = endpoint.socket() {
        return Ok(Some(Connector::Unix(path.clone())));
    }
    if !endpoint.is_https() {
        return Ok(None);
    }
    Ok(Some(Connector::Tls {
        config: tls_config(connection)?,
        host: endpoint.host().to_owned(),
        port: endpoint.port(),
    }))
}

fn tls_config(connection: &Connection) -> Result<Arc<ClientConfig>> {
    let config = tls::client(connection.ca_file.as_deref());
    config.map_err(|error| Error::failed("cannot set up TLS", &error))
}

/// The reason of a failure to connect, with what may help.
fn advised(reason: String) -> String {
    match reason {
        _ if reason.contains("UnknownIssuer") => {
            format!(
                "{reason}; --ca-file FILE names the authority that its certificate is trusted by"
            )
        }
        _ if reason.contains("InvalidContentType") => {
            format!("{reason}; does the server speak TLS? without it the address is http://")
        }
        reason => reason,
    }
}

/// HTTP to the same endpoint. HTTP/2, as gRPC has it: an answer that comes before the end of an
/// upload arrives there whole.
pub(crate) struct Http {
    endpoint: Endpoint,
    client: reqwest::Client,
    ca_file: Option<PathBuf>,
}

/// A reply with bytes that may come from elsewhere.
pub(crate) struct Sent {
    /// Those of the server itself.
    pub headers: HeaderMap,
    /// The response that has the bytes.
    pub response: Response,
}

impl Http {
    pub(crate) fn new(connection: &Connection) -> Result<Self> {
        let endpoint = &connection.endpoint;
        let mut client = reqwest::Client::builder()
            // The gRPC connection knows of no proxies either.
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(USER_AGENT)
            .default_headers(connection.headers.clone())
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_prior_knowledge()
            .http2_initial_stream_window_size(WINDOW)
            .http2_initial_connection_window_size(WINDOW)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .http2_keep_alive_timeout(KEEP_ALIVE);
        if endpoint.is_https() {
            let config = tls_config(connection)?;
            client = client.tls_backend_preconfigured((*config).clone());
        }
        if let Some(path) = endpoint.socket() {
            client = client.unix_socket(path.as_path());
        }
        let client = client
            .build()
            .map_err(|error| Error::failed("cannot set up HTTP", &error))?;
        Ok(Self {
            endpoint: endpoint.clone(),
            client,
            ca_file: connection.ca_file.clone(),
        })
    }

    pub(crate) fn get(&self, path: &str) -> RequestBuilder {
        self.client.get(self.endpoint.url(path))
    }

    pub(crate) fn post(&self, path: &str) -> RequestBuilder {
        self.client.post(self.endpoint.url(path))
    }

    /// Sends a request; an answer other than 200 is the error that its body states.
    pub(crate) async fn send(&self, request: RequestBuilder) -> Result<Response> {
        let response = request.send().await.map_err(|error| self.broken(error))?;
        match response.status() {
            StatusCode::OK => Ok(response),
            status => Err(refusal(status, &error_body(response).await)),
        }
    }

    /// Sends a request for bytes, and follows one redirect to another host, which learns nothing of the caller.
    pub(crate) async fn send_for_bytes(&self, request: RequestBuilder) -> Result<Sent> {
        let response = request.send().await.map_err(|error| self.broken(error))?;
        let headers = response.headers().clone();
        let response = match response.status() {
            StatusCode::OK => response,
            StatusCode::FOUND | StatusCode::TEMPORARY_REDIRECT => self.elsewhere(&headers).await?,
            status => return Err(refusal(status, &error_body(response).await)),
        };
        Ok(Sent { headers, response })
    }

    /// Gets what a redirect leads to.
    async fn elsewhere(&self, headers: &HeaderMap) -> Result<Response> {
        let location = headers
            .get(header::LOCATION)
            .and_then(|it| it.to_str().ok())
            .and_then(|it| reqwest::Url::parse(it).ok())
            .ok_or_else(|| Error::Failed("the server redirects to no URL".to_owned()))?;
        let host = location.authority().to_owned();
        let failed = |reason: String| Error::Unreachable {
            endpoint: format!("{host}, where the server redirects to"),
            reason,
        };
        let mut client = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(USER_AGENT)
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(SILENCE);
        if location.scheme() == "https" {
            let config = tls::client_of_others(self.ca_file.as_deref());
            let config = config.map_err(|error| Error::failed("cannot set up TLS", &error))?;
            client = client.tls_backend_preconfigured((*config).clone());
        }
        let client = client
            .build()
            .map_err(|error| Error::failed("cannot set up HTTP", &error))?;
        let response = client.get(location).send().await;
        // The URL is a secret.
        let response = response.map_err(|error| failed(advised(root(&error.without_url()))))?;
        match response.status() {
            StatusCode::OK => Ok(response),
            status => Err(failed(format!("it answered {status}"))),
        }
    }

    /// The error of a connection that could not be made or did not hold.
    pub(crate) fn broken(&self, error: reqwest::Error) -> Error {
        match error.is_connect() {
            true => Error::Unreachable {
                endpoint: self.endpoint.to_string(),
                reason: advised(root(&error)),
            },
            false => Error::Refused {
                code: Code::Unavailable,
                message: chain(&error.without_url()),
            },
        }
    }
}

/// One segment of a path, or one name or value of a query, so that it says what it is.
pub(crate) fn escaped(text: &str) -> String {
    const KEPT: &AsciiSet = &NON_ALPHANUMERIC
        .remove(b'-')
        .remove(b'_')
        .remove(b'.')
        .remove(b'~');
    utf8_percent_encode(text, KEPT).to_string()
}

async fn error_body(mut response: Response) -> Vec<u8> {
    let mut body = Vec::new();
    // What came of a body that breaks off may still tell what is wrong.
    while let Ok(Some(chunk)) = response.chunk().await {
        body.extend_from_slice(&chunk);
        if body.len() > MAX_ERROR_BODY {
            break;
        }
    }
    body
}

/// The error that a reply states: a google.rpc.Status, or what its HTTP status means.
fn refusal(status: StatusCode, body: &[u8]) -> Error {
    #[derive(serde::Deserialize)]
    struct Stated {
        code: i32,
        message: String,
    }
    match serde_json::from_slice::<Stated>(body) {
        Ok(stated) => Error::Refused {
            code: Code::from_i32(stated.code),
            message: stated.message,
        },
        Err(_) => Error::Refused {
            code: match status.as_u16() {
                400 => Code::InvalidArgument,
                401 => Code::Unauthenticated,
                403 => Code::PermissionDenied,
                404 => Code::NotFound,
                429 => Code::ResourceExhausted,
                502..=504 => Code::Unavailable,
                _ => Code::Unknown,
            },
            message: format!("the server answered {status}"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_has_the_words_of_the_server() {
        let body =
            br#"{"code": 5, "message": "Image \"x\" not found", "details": [{"@type": "x"}]}"#;
        let error = refusal(StatusCode::NOT_FOUND, body);
        assert_eq!(error.to_string(), "Image \"x\" not found");
        assert_eq!(error.exit_code(), 4);
        let error = refusal(StatusCode::BAD_GATEWAY, b"<html>");
        assert_eq!(error.to_string(), "the server answered 502 Bad Gateway");
        assert_eq!(error.exit_code(), 7);
    }

    #[test]
    fn escaped_text_stays_one_segment() {
        assert_eq!(escaped("a-b_c.d~e"), "a-b_c.d~e");
        assert_eq!(escaped("a/b?c&d=e ф"), "a%2Fb%3Fc%26d%3De%20%D1%84");
        assert_eq!(escaped("labels[k]"), "labels%5Bk%5D");
    }
}
