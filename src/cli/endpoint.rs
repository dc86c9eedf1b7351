//! The address of a server, as commands take it.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use http::Uri;
use http::uri::Authority;

use super::errors::{Error, Result};

/// The address of a server: `http://host:port`, where the scheme may be left out, `https://host:port`, or
/// `unix:/path`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    scheme: Scheme,
    authority: Authority,
    /// The path of a Unix socket.
    socket: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scheme {
    Http,
    Https,
}

const WRONG: &str = "an endpoint is http://HOST:PORT, https://HOST:PORT or unix:/PATH";

impl Endpoint {
    /// The endpoint of a server that was started at this address.
    pub(crate) fn of(address: std::net::SocketAddr) -> Result<Self> {
        format!("http://{address}").parse().map_err(Error::Failed)
    }

    /// The url of a path, which may have a query.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.origin())
    }

    /// The scheme and the host of urls; over a Unix socket one of loopback.
    pub(crate) fn origin(&self) -> String {
        let scheme = if self.is_https() { "https" } else { "http" };
        format!("{scheme}://{}", self.authority)
    }

    pub(crate) fn is_https(&self) -> bool {
        self.scheme == Scheme::Https
    }

    pub(crate) fn socket(&self) -> Option<&PathBuf> {
        self.socket.as_ref()
    }

    /// The host, an address of IPv6 without brackets.
    pub(crate) fn host(&self) -> &str {
        let host = self.authority.host();
        host.trim_start_matches('[').trim_end_matches(']')
    }

    pub(crate) fn port(&self) -> u16 {
        let usual = if self.is_https() { 443 } else { 80 };
        self.authority.port_u16().unwrap_or(usual)
    }

    /// Whether what is sent leaves neither this machine nor TLS.
    pub(crate) fn is_private(&self) -> bool {
        let host = self.host();
        self.is_https()
            || self.socket.is_some()
            || host.eq_ignore_ascii_case("localhost")
            || host.parse().is_ok_and(|it: IpAddr| it.is_loopback())
    }
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            // As curl and gRPC write it, too.
            let path = path.strip_prefix("//").unwrap_or(path);
            return match path.starts_with('/') {
                true => Ok(Self {
                    scheme: Scheme::Http,
                    authority: Authority::from_static("localhost"),
                    socket: Some(path.into()),
                }),
                false => Err(WRONG.to_owned()),
            };
        }
        // A port alone, with or without its colon, is one of this machine.
        let port = text.strip_prefix(':').unwrap_or(text);
        let is_port = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
        let full = match text.contains("://") {
            true => text.to_owned(),
            false if is_port => format!("http://127.0.0.1:{port}"),
            false => format!("http://{text}"),
        };
        let uri: Uri = full.parse().map_err(|error| format!("{error}; {WRONG}"))?;
        let right = |it: &Authority| {
            let port = it.as_str().strip_prefix(it.host()).unwrap_or_default();
            !it.host().is_empty()
                && !it.as_str().contains('@')
                && (port.is_empty() || it.port_u16().is_some())
        };
        let is_plain = uri.path_and_query().is_none_or(|it| it.as_str() == "/");
        let scheme = match uri.scheme_str() {
            Some("http") => Some(Scheme::Http),
            Some("https") => Some(Scheme::Https),
            _ => None,
        };
        let authority = uri.authority().filter(|it| right(it) && is_plain);
        match (scheme, authority) {
            (Some(scheme), Some(authority)) => Ok(Self {
                scheme,
                authority: authority.clone(),
                socket: None,
            }),
            _ => Err(WRONG.to_owned()),
        }
    }
}

/// `http://host:port`, without a slash at the end.
impl fmt::Display for Endpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.socket {
            Some(path) => write!(formatter, "unix:{}", path.display()),
            None => formatter.write_str(&self.origin()),
        }
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
            ("https://images.example", "https://images.example"),
            (
                "https://images.example:8443/",
                "https://images.example:8443",
            ),
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
            "https://",
            "ftp://images.example",
            "http://images.example/path",
            "https://images.example/path",
            "http://images.example?query",
            "http://user@images.example",
            "two words",
            ":",
            "65536",
            "localhost:",
            "localhost:99999",
            "http://:8080",
            "unix:",
            "unix:relative.sock",
        ] {
            assert!(text.parse::<Endpoint>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn an_endpoint_may_be_a_unix_socket() {
        for text in ["unix:/run/a.sock", "unix:///run/a.sock"] {
            let endpoint: Endpoint = text.parse().unwrap();
            assert_eq!(endpoint.to_string(), "unix:/run/a.sock");
            assert_eq!(endpoint.url("/a"), "http://localhost/a");
            assert!(endpoint.is_private());
        }
    }

    #[test]
    fn secrets_go_by_tls_or_stay_on_this_machine() {
        for (text, is_private) in [
            ("https://images.example", true),
            ("http://images.example", false),
            ("http://10.0.0.1:8080", false),
            ("http://[2001:db8::1]", false),
            ("http://localhost.evil.example", false),
            ("http://LOCALHOST:1", true),
            ("http://127.0.0.2", true),
            ("http://[::1]:8080", true),
            ("8080", true),
        ] {
            let endpoint: Endpoint = text.parse().unwrap();
            assert_eq!(endpoint.is_private(), is_private, "{text}");
        }
    }
}
