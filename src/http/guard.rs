//! Keeps web pages from using a server that trusts everybody on its machine.
//!
//! A server on loopback that asks for no token is protected by its address alone, and a browser
//! on the same machine can reach it for any page it shows: by a name that the page's owner points
//! to 127.0.0.1 (DNS rebinding), or by a request across sites, GETs included, since the contract
//! binds Cancel to one.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::uri::Authority;
use http::{Request, header};
use tonic::Status;

use super::cors::AllowedOrigin;

/// Which requests are let in.
#[derive(Debug, Clone)]
pub struct Guard {
    loopback_only: bool,
    origins: Arc<[AllowedOrigin]>,
}

impl Guard {
    /// For a server that asks for no token, listens on `address` and trusts the pages of `origins`.
    pub fn without_tokens(address: SocketAddr, origins: &[AllowedOrigin]) -> Self {
        Self {
            loopback_only: address.ip().is_loopback(),
            origins: origins.into(),
        }
    }

    /// Refuses a request for a foreign host, or from a page of a foreign origin.
    pub fn check<B>(&self, request: &Request<B>) -> Result<(), Status> {
        if !self.loopback_only {
            return Ok(());
        }
        let header = |name| {
            let value = request.headers().get(name);
            value.map(|value: &http::HeaderValue| value.to_str().unwrap_or("?"))
        };
        let authority = match request.uri().authority() {
            Some(authority) => Some(authority.clone()),
            None => header(header::HOST).and_then(|host| host.parse().ok()),
        };
        let authority = authority.filter(is_loopback).ok_or_else(|| {
            Status::permission_denied(
                "Host: this server listens on loopback only; ask for localhost or 127.0.0.1",
            )
        })?;
        if let Some(origin) = header(header::ORIGIN) {
            if self.origins.iter().any(|allowed| allowed.is(origin)) {
                return Ok(());
            }
            let own = origin
                .split_once("://")
                .is_some_and(|(_, host)| host.eq_ignore_ascii_case(authority.as_str()));
            if !own {
                return Err(Status::permission_denied(
                    "Origin: this server takes no requests from pages of other origins",
                ));
            }
        }
        // Sent by browsers also where they leave out Origin, as for an image's address.
        match header(header::HeaderName::from_static("sec-fetch-site")) {
            None | Some("none" | "same-origin") => Ok(()),
            Some(_) => Err(Status::permission_denied(
                "Sec-Fetch-Site: this server takes no requests from pages of other sites",
            )),
        }
    }
}

fn is_loopback(authority: &Authority) -> bool {
    let host = authority.host();
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || address
            .parse()
            .is_ok_and(|address: IpAddr| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_hosts_and_the_own_origin_are_let_in() {
        let guard = Guard::without_tokens(SocketAddr::from(([127, 0, 0, 1], 8080)), &[]);
        let check = |headers: &[(&str, &str)]| {
            let mut request = Request::builder();
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            guard.check(&request.body(()).unwrap()).is_ok()
        };
        for host in [
            "localhost",
            "LOCALHOST:1",
            "127.0.0.1:8080",
            "127.9.9.9",
            "[::1]:8080",
        ] {
            assert!(check(&[("host", host)]), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "localhost.evil.example",
            "10.0.0.1",
            "[::2]",
            "a b",
        ] {
            assert!(!check(&[("host", host)]), "{host}");
        }
        assert!(!check(&[]));
        let with = |name, value| check(&[("host", "localhost:8080"), (name, value)]);
        assert!(with("origin", "http://localhost:8080"));
        for origin in [
            "null",
            "http://evil.example",
            "http://localhost:3000",
            "",
            "http://",
        ] {
            assert!(!with("origin", origin), "{origin}");
        }
        assert!(with("sec-fetch-site", "same-origin"));
        assert!(with("sec-fetch-site", "none"));
        assert!(!with("sec-fetch-site", "cross-site"));
        assert!(!with("sec-fetch-site", "same-site"));
    }

    #[test]
    fn pages_of_allowed_origins_are_let_in_from_other_sites() {
        let origins = ["https://app.example".parse().unwrap()];
        let guard = Guard::without_tokens(SocketAddr::from(([127, 0, 0, 1], 8080)), &origins);
        let check = |host: &str, origin: Option<&str>| {
            let mut request = Request::builder()
                .header("host", host)
                .header("sec-fetch-site", "cross-site");
            if let Some(origin) = origin {
                request = request.header("origin", origin);
            }
            guard.check(&request.body(()).unwrap()).is_ok()
        };
        assert!(check("localhost:8080", Some("https://app.example")));
        assert!(!check("localhost:8080", Some("http://app.example")));
        assert!(!check("localhost:8080", Some("https://app.example.evil")));
        assert!(!check("localhost:8080", None));
        assert!(!check("evil.example", Some("https://app.example")));
    }

    #[test]
    fn http2_names_its_host_in_the_uri() {
        let guard = Guard::without_tokens(SocketAddr::from(([127, 0, 0, 1], 8080)), &[]);
        let check = |uri: &str| {
            let request = Request::builder().uri(uri).body(()).unwrap();
            guard.check(&request).is_ok()
        };
        assert!(check("http://127.0.0.1:8080/a"));
        assert!(!check("http://evil.example:8080/a"));
    }

    #[test]
    fn a_server_for_others_lets_all_in() {
        let guard = Guard::without_tokens(SocketAddr::from(([0, 0, 0, 0], 8080)), &[]);
        let request = Request::builder().header("host", "images.example");
        assert!(guard.check(&request.body(()).unwrap()).is_ok());
    }
}
