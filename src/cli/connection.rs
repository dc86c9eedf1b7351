//! The settings of a connection to a server: its address, whom to trust, and what goes along with each request.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::endpoint::Endpoint;
use super::errors::{Error, Result};

use crate::telemetry::chain;

/// The variable that names the server to speak to, and the server where it does not.
const ENDPOINT: &str = "DESKTOP_IMAGES_ENDPOINT";
const DEFAULT_ENDPOINT: &str = "http://127.0.0.1:8080";
const CA_FILE: &str = "DESKTOP_IMAGES_CA_FILE";
const TOKEN: &str = "DESKTOP_IMAGES_TOKEN";

/// Headers that say how a request is sent.
const OWN: [HeaderName; 8] = [
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::EXPECT,
    header::HOST,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

// With a default or a variable of clap's, errors would show these among what is required.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct ConnectionArguments {
    /// The server that commands speak to, as https://HOST:PORT or unix:/PATH; when left out that of the variable
    /// DESKTOP_IMAGES_ENDPOINT, or http://127.0.0.1:8080
    #[arg(long, global = true, value_name = "URL")]
    endpoint: Option<Endpoint>,
    /// A PEM file with the authorities that the server's certificate is trusted by; when left out that of the
    /// variable DESKTOP_IMAGES_CA_FILE, or those of the system
    #[arg(long, global = true, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// A file with the token that says who calls; when left out the variable DESKTOP_IMAGES_TOKEN
    #[arg(long, global = true, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// The token itself, which others can then see in the list of processes
    #[arg(
        long,
        global = true,
        value_name = "TOKEN",
        conflicts_with = "token_file"
    )]
    token: Option<Secret>,
    /// A header to send with each request, as in 'X-Route: a'; may be repeated
    #[arg(long, global = true, value_name = "NAME:VALUE")]
    header: Vec<Header>,
    /// Send the token also to another machine without TLS
    #[arg(long, global = true)]
    insecure_plaintext: bool,
}

/// A text that goes to no log and no error.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(String);

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret(…)")
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

/// A header that is sent with each request. Its value may be a secret.
#[derive(Clone)]
pub(crate) struct Header(HeaderName, HeaderValue);

impl fmt::Debug for Header {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Header({}: …)", self.0)
    }
}

impl FromStr for Header {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let wrong = || "a header is NAME:VALUE".to_owned();
        let (name, value) = text.split_once(':').ok_or_else(wrong)?;
        let name: HeaderName = name.trim().parse().map_err(|_| wrong())?;
        let mut value: HeaderValue = value.trim().parse().map_err(|_| wrong())?;
        if OWN.contains(&name) || name.as_str().starts_with("grpc-") {
            return Err(format!("{name} is a header that this program sets itself"));
        }
        value.set_sensitive(true);
        Ok(Self(name, value))
    }
}

/// A connection to a server, before it is made.
#[derive(Debug, Clone)]
pub(crate) struct Connection {
    pub endpoint: Endpoint,
    /// The authorities to trust, if not those of the system.
    pub ca_file: Option<PathBuf>,
    /// The headers of each request.
    pub headers: HeaderMap,
}

impl Connection {
    /// A connection with nothing but its endpoint.
    pub(crate) fn to(endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            ca_file: None,
            headers: HeaderMap::new(),
        }
    }
}

impl ConnectionArguments {
    /// The connection that arguments and environment ask for.
    pub(crate) fn connection(self) -> Result<Connection> {
        let endpoint = match self.endpoint {
            Some(endpoint) => endpoint,
            None => endpoint_of(std::env::var(ENDPOINT).ok())?,
        };
        let ca_file = self.ca_file.or_else(|| set(CA_FILE).map(PathBuf::from));
        let mut headers = HeaderMap::new();
        for Header(name, value) in self.header {
            headers.append(name, value);
        }
        let token = match (self.token, self.token_file) {
            (Some(token), _) => Some(token),
            (None, Some(path)) => Some(read_token(&path)?),
            (None, None) => set(TOKEN).map(|token| Secret(token.to_string_lossy().into_owned())),
        };
        if let Some(token) = token {
            if headers.contains_key(header::AUTHORIZATION) {
                return Err(Error::Usage(
                    "there is a token, and a header Authorization too".to_owned(),
                ));
            }
            headers.insert(header::AUTHORIZATION, bearer(&token)?);
        }
        let is_secret = headers.contains_key(header::AUTHORIZATION);
        if is_secret && !endpoint.is_private() && !self.insecure_plaintext {
            return Err(Error::Usage(format!(
                "the token would travel unencrypted to {endpoint}: use https, or say --insecure-plaintext"
            )));
        }
        Ok(Connection {
            endpoint,
            ca_file,
            headers,
        })
    }
}

/// A variable of the environment that is set and not empty.
fn set(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// The server that the environment names, or the usual one.
fn endpoint_of(variable: Option<String>) -> Result<Endpoint> {
    let Some(text) = variable.filter(|text| !text.is_empty()) else {
        return DEFAULT_ENDPOINT.parse().map_err(Error::Usage);
    };
    text.parse()
        .map_err(|wrong| Error::Usage(format!("the variable {ENDPOINT}: {wrong}")))
}

fn read_token(path: &Path) -> Result<Secret> {
    let token = std::fs::read_to_string(path)
        .map_err(|error| Error::Failed(format!("{}: {}", path.display(), chain(&error))))?;
    Ok(Secret(token))
}

/// The header with a token, of which spaces and line breaks around it are no part.
fn bearer(token: &Secret) -> Result<HeaderValue> {
    let token = token.0.trim();
    let is_fit = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
    let value = HeaderValue::try_from(format!("Bearer {token}")).ok();
    let mut value = value.filter(|_| is_fit).ok_or_else(|| {
        Error::Usage("a token is one line of letters, digits and signs, without spaces".to_owned())
    })?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_sent_as_bearer_and_shown_to_nobody() {
        let token = Secret("dit_abc.def\n".to_owned());
        let value = bearer(&token).unwrap();
        assert_eq!(value.to_str().unwrap(), "Bearer dit_abc.def");
        assert!(!format!("{value:?} {token:?}").contains("abc"));
        for wrong in ["", "\n", "two words", "a\nb", "a\u{e9}"] {
            let refused = bearer(&Secret(wrong.to_owned())).unwrap_err();
            assert_eq!(refused.exit_code(), 2, "{wrong:?}");
            assert!(wrong.len() < 3 || !refused.to_string().contains(wrong));
        }
    }

    #[test]
    fn a_header_is_a_name_and_a_value() {
        for (text, name, value) in [
            ("X-Route: a", "x-route", "a"),
            ("x-route:a:b", "x-route", "a:b"),
            ("Authorization: Basic x", "authorization", "Basic x"),
            ("x-empty:", "x-empty", ""),
        ] {
            let header: Header = text.parse().unwrap();
            assert_eq!(
                (header.0.as_str(), header.1.to_str().unwrap()),
                (name, value)
            );
        }
        for text in [
            "",
            "x-route",
            ":a",
            "two words:a",
            "host:a",
            "grpc-timeout:1S",
            "a:b\nc",
        ] {
            assert!(text.parse::<Header>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_token_goes_to_another_machine_by_tls_only() {
        let arguments = |endpoint: &str, header: &[&str], insecure_plaintext| ConnectionArguments {
            endpoint: Some(endpoint.parse().unwrap()),
            ca_file: None,
            token_file: None,
            token: header.is_empty().then(|| Secret("t".to_owned())),
            header: header.iter().map(|it| it.parse().unwrap()).collect(),
            insecure_plaintext,
        };
        for (endpoint, insecure, taken) in [
            ("https://a.example", false, true),
            ("http://127.0.0.1:1", false, true),
            ("unix:/a", false, true),
            ("http://a.example", false, false),
            ("http://a.example", true, true),
        ] {
            for header in [&[][..], &["authorization: Basic x"]] {
                let connection = arguments(endpoint, header, insecure).connection();
                assert_eq!(connection.is_ok(), taken, "{endpoint} {header:?}");
            }
            assert!(
                arguments(endpoint, &["x-a: b"], insecure)
                    .connection()
                    .is_ok()
            );
        }
        let mut both = arguments("8080", &["authorization: Basic x"], false);
        both.token = Some(Secret("t".to_owned()));
        assert_eq!(both.connection().unwrap_err().exit_code(), 2);
    }
}
