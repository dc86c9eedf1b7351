//! The connection to a server: one endpoint for gRPC, and for the HTTP of uploads and downloads.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use http::Uri;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{RequestBuilder, Response, StatusCode};
use tonic::Code;
use tonic::transport::Channel;

use super::errors::{Error, Result, chain, root};
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

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a silent server is asked whether it is there, and how long it may take to answer.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// A full page of the largest images the contract allows, several times over.
const MAX_REPLY: usize = 64 << 20;
/// The most that is read of the body of an error.
const MAX_ERROR_BODY: usize = 64 << 10;
/// Bytes that HTTP/2 may send ahead of its reader.
const WINDOW: u32 = 8 << 20;

/// The address of a server: `http://host:port`; the scheme may be left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint(Uri);

impl Endpoint {
    /// The endpoint of a server that was started at this address.
    pub(crate) fn of(address: std::net::SocketAddr) -> Result<Self> {
        format!("http://{address}").parse().map_err(Error::Failed)
    }

    /// The url of a path, which may have a query.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("{self}{path}")
    }
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        // A port alone, with or without its colon, is one of this machine.
        let port = text.strip_prefix(':').unwrap_or(text);
        let is_port = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
        let full = match text.contains("://") {
            true => text.to_owned(),
            false if is_port => format!("http://127.0.0.1:{port}"),
            false => format!("http://{text}"),
        };
        let uri: Uri = full
            .parse()
            .map_err(|error| format!("{error}; an endpoint is http://HOST:PORT"))?;
        let right = |it: &http::uri::Authority| {
            let port = it.as_str().strip_prefix(it.host()).unwrap_or_default();
            !it.host().is_empty()
                && !it.as_str().contains('@')
                && (port.is_empty() || it.port_u16().is_some())
        };
        let plain = uri.authority().is_some_and(right)
            && uri.path_and_query().is_none_or(|it| it.as_str() == "/");
        match uri.scheme_str() {
            Some("http") if plain => Ok(Self(uri)),
            Some("https") => Err("https is not supported; use http://HOST:PORT".to_owned()),
            _ => Err("an endpoint is http://HOST:PORT".to_owned()),
        }
    }
}

/// `http://host:port`, without a slash at the end.
impl fmt::Display for Endpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let authority = self.0.authority().map_or("", |it| it.as_str());
        write!(formatter, "http://{authority}")
    }
}

/// A gRPC connection.
pub(crate) struct Client {
    channel: Channel,
}

impl Client {
    pub(crate) async fn connect(endpoint: &Endpoint) -> Result<Self> {
        let unreachable = |error: tonic::transport::Error| Error::Unreachable {
            endpoint: endpoint.to_string(),
            reason: root(&error),
        };
        let channel = Channel::from_shared(endpoint.to_string())
            .map_err(|error| Error::failed("endpoint", &error))?
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .connect()
            .await
            .map_err(unreachable)?;
        Ok(Self { channel })
    }

    pub(crate) fn desktop_images(&self) -> DesktopImageServiceClient<Channel> {
        DesktopImageServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_REPLY)
    }

    pub(crate) fn compute_images(&self) -> ImageServiceClient<Channel> {
        ImageServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_REPLY)
    }

    pub(crate) fn operations(&self) -> OperationServiceClient<Channel> {
        OperationServiceClient::new(self.channel.clone())
    }

    pub(crate) fn operation_watch(&self) -> OperationWatchServiceClient<Channel> {
        OperationWatchServiceClient::new(self.channel.clone())
    }

    pub(crate) fn quotas(&self) -> QuotaServiceClient<Channel> {
        QuotaServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_REPLY)
    }

    pub(crate) fn tokens(&self) -> TokenServiceClient<Channel> {
        TokenServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_REPLY)
    }

    pub(crate) fn access(&self) -> AccessServiceClient<Channel> {
        AccessServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_REPLY)
    }

    pub(crate) fn service_accounts(&self) -> ServiceAccountServiceClient<Channel> {
        ServiceAccountServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_REPLY)
    }

    pub(crate) fn signed_urls(&self) -> SignedUrlServiceClient<Channel> {
        SignedUrlServiceClient::new(self.channel.clone())
    }

    pub(crate) fn audit(&self) -> AuditServiceClient<Channel> {
        AuditServiceClient::new(self.channel.clone())
    }
}

/// HTTP to the same endpoint. HTTP/2, as gRPC has it: an answer that comes before the end of an
/// upload arrives there whole.
pub(crate) struct Http {
    endpoint: Endpoint,
    client: reqwest::Client,
}

impl Http {
    pub(crate) fn new(endpoint: &Endpoint) -> Result<Self> {
        let client = reqwest::Client::builder()
            // The gRPC connection knows of no proxies either.
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("desktop-images/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_prior_knowledge()
            .http2_initial_stream_window_size(WINDOW)
            .http2_initial_connection_window_size(WINDOW)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .http2_keep_alive_timeout(KEEP_ALIVE)
            .build()
            .map_err(|error| Error::failed("cannot set up HTTP", &error))?;
        Ok(Self {
            endpoint: endpoint.clone(),
            client,
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

    /// The error of a connection that could not be made or did not hold.
    pub(crate) fn broken(&self, error: reqwest::Error) -> Error {
        match error.is_connect() {
            true => Error::Unreachable {
                endpoint: self.endpoint.to_string(),
                reason: root(&error),
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
    fn an_endpoint_is_a_host_and_a_port() {
        for (text, wanted) in [
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
            ("http://images.example/", "http://images.example"),
            ("localhost:9000", "http://localhost:9000"),
            ("[::1]:8080", "http://[::1]:8080"),
            ("8080", "http://127.0.0.1:8080"),
            (":8080", "http://127.0.0.1:8080"),
        ] {
            let endpoint: Endpoint = text.parse().unwrap();
            assert_eq!(endpoint.to_string(), wanted);
            assert_eq!(endpoint.url("/a?b"), format!("{wanted}/a?b"));
        }
        for text in [
            "",
            "http://",
            "https://images.example",
            "ftp://images.example",
            "http://images.example/path",
            "http://images.example?query",
            "http://user@images.example",
            "two words",
            ":",
            "65536",
            "localhost:",
            "localhost:99999",
            "http://:8080",
        ] {
            assert!(text.parse::<Endpoint>().is_err(), "{text:?}");
        }
    }

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
