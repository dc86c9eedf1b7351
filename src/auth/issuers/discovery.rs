//! Discovery: where the keys of an issuer are (OpenID Connect Discovery 1.0), and fetching them.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use reqwest::{Certificate, Client, Url, redirect};
use serde::Deserialize;

use super::IssuerSettings;
use super::keys::Keys;

const TIMEOUT: Duration = Duration::from_secs(5);
/// The most bytes of a reply.
const LONGEST_REPLY: usize = 1 << 20;
const WELL_KNOWN: &str = "/.well-known/openid-configuration";

/// A setting of an issuer that is not as it must be.
#[derive(Debug, thiserror::Error)]
#[error("issuer {name:?}: {why}")]
pub struct SetupError {
    name: String,
    why: String,
}

impl SetupError {
    pub(super) fn new(name: &str, why: impl Into<String>) -> Self {
        Self {
            name: name.to_owned(),
            why: why.into(),
        }
    }
}

/// The place that the keys of an issuer come from.
pub(super) enum Provider {
    File(PathBuf),
    Discovery {
        client: Box<Client>,
        issuer: String,
        /// Hosts that the keys may be at.
        hosts: Vec<String>,
    },
}

#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error("{0}")]
    File(#[from] io::Error),
    #[error("{0}")]
    Http(#[from] reqwest::Error),
    #[error("{0} answered {1}")]
    Status(String, u16),
    #[error("{0} answered more than {LONGEST_REPLY} bytes")]
    TooLong(String),
    #[error("no JSON as it must be: {0}")]
    Json(#[from] serde_json::Error),
    #[error("the document says it is of issuer {0:?}")]
    OtherIssuer(String),
    #[error("jwks_uri {0:?} is not https at the host of the issuer or one of jwks_hosts")]
    OtherHost(String),
}

#[derive(Debug, Deserialize)]
struct Document {
    issuer: String,
    jwks_uri: String,
}

impl Provider {
    pub(super) fn new(settings: &IssuerSettings) -> Result<Self, SetupError> {
        let wrong = |why: &str| SetupError::new(&settings.name, why);
        let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if settings.name.is_empty() || !settings.name.chars().all(is_plain) {
            return Err(wrong(
                "its name must be lower-case letters, digits and hyphens",
            ));
        }
        if settings.audiences.is_empty() {
            return Err(wrong("it needs audiences"));
        }
        let url = Url::parse(&settings.url).map_err(|error| wrong(&error.to_string()))?;
        let host = match (url.scheme(), url.host_str(), url.query()) {
            ("https", Some(host), None) => host.to_owned(),
            _ => return Err(wrong("its url must be https://HOST, without a query")),
        };
        if let Some(file) = &settings.jwks_file {
            if settings.ca_file.is_some() || !settings.jwks_hosts.is_empty() {
                return Err(wrong("jwks_file goes with neither ca_file nor jwks_hosts"));
            }
            return Ok(Self::File(file.clone()));
        }
        let mut builder = Client::builder()
            .timeout(TIMEOUT)
            .redirect(redirect::Policy::none())
            .https_only(true);
        if let Some(file) = &settings.ca_file {
            let pem = std::fs::read(file);
            let pem = pem.map_err(|error| wrong(&format!("{}: {error}", file.display())))?;
            let certificates = Certificate::from_pem_bundle(&pem);
            let certificates = certificates.map_err(|error| wrong(&error.to_string()))?;
            builder = builder.tls_certs_only(certificates);
        }
        let client = builder.build().map_err(|error| wrong(&error.to_string()))?;
        Ok(Self::Discovery {
            client: Box::new(client),
            issuer: settings.url.clone(),
            hosts: std::iter::once(host)
                .chain(settings.jwks_hosts.clone())
                .collect(),
        })
    }

    /// The keys as they are now.
    pub(super) async fn keys(&self) -> Result<Keys, FetchError> {
        match self {
            Self::File(path) => Ok(Keys::parse(tokio::fs::read(path).await?)?),
            Self::Discovery {
                client,
                issuer,
                hosts,
            } => {
                let url = format!("{}{WELL_KNOWN}", issuer.trim_end_matches('/'));
                let document: Document = serde_json::from_slice(&get(client, &url).await?)?;
                if document.issuer != *issuer {
                    return Err(FetchError::OtherIssuer(document.issuer));
                }
                let is_there = |url: &Url| {
                    let host = url.host_str();
                    url.scheme() == "https" && hosts.iter().any(|known| Some(&**known) == host)
                };
                if !Url::parse(&document.jwks_uri).is_ok_and(|url| is_there(&url)) {
                    return Err(FetchError::OtherHost(document.jwks_uri));
                }
                Ok(Keys::parse(get(client, &document.jwks_uri).await?)?)
            }
        }
    }
}

/// The body of a reply, as far as it is not too long.
async fn get(client: &Client, url: &str) -> Result<Vec<u8>, FetchError> {
    let mut reply = client.get(url).send().await?;
    if reply.status() != 200 {
        return Err(FetchError::Status(url.to_owned(), reply.status().as_u16()));
    }
    let mut body = Vec::new();
    while let Some(chunk) = reply.chunk().await? {
        body.extend_from_slice(&chunk);
        if body.len() > LONGEST_REPLY {
            return Err(FetchError::TooLong(url.to_owned()));
        }
    }
    Ok(body)
}
