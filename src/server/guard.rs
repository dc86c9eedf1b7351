//! Keeps web pages from using a server that trusts everybody who reaches it.
//!
//! A server that asks for no token is protected by its address alone, and a browser that reaches it
//! can do so for any page it shows: by a request across sites, GETs included, since the contract
//! binds Cancel to one, or by a name that the page's owner points to the server (DNS rebinding). The
//! first is seen by what browsers say of the page. Against the second the names of the server must be
//! known: on loopback they are, elsewhere a page that was rebound looks like one of the server.

use std::net::IpAddr;
use std::sync::Arc;

use http::uri::Authority;
use http::{HeaderName, Method, Request, header};
use tonic::Status;

use super::cors::AllowedOrigin;
use super::docs::Docs;

/// The longest origin that a refusal repeats.
const LONGEST_ECHO: usize = 100;

const SEC_FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");
const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Which requests are let in.
#[derive(Debug, Clone)]
pub(crate) struct Guard {
    origins: Arc<[AllowedOrigin]>,
}

impl Guard {
    /// For a server that asks for no token and trusts the pages of `origins`.
    pub(crate) fn without_tokens(origins: &[AllowedOrigin]) -> Self {
        Self {
            origins: origins.into(),
        }
    }

    /// Refuses a request from a page of a foreign origin and, on loopback, one for a foreign host.
    /// `authority` is the host that the request is for, as everything else takes it too; `is_loopback` says whether
    /// the request came on a listener that only programs of this machine reach.
    pub(crate) fn check<B>(
        &self,
        request: &Request<B>,
        authority: Option<&Authority>,
        is_loopback: bool,
    ) -> Result<(), Status> {
        if is_loopback && !authority.is_some_and(names_loopback) {
            return Err(Status::permission_denied(
                "Host: this server listens on loopback only; ask for localhost or 127.0.0.1",
            ));
        }
        let headers = request.headers();
        let mut origins = headers.get_all(header::ORIGIN).iter();
        if let Some(origin) = origins.next() {
            // Browsers send one. With several, others may have looked at another.
            let origin = match origins.next() {
                None => origin.to_str().unwrap_or("?"),
                Some(_) => "?",
            };
            if self.origins.iter().any(|allowed| allowed.is(origin)) {
                return Ok(());
            }
            if !authority.is_some_and(|authority| is_own(origin, authority.as_str())) {
                return Err(foreign_origin(origin));
            }
        }
        // Sent by browsers also where they leave out Origin, as for an image's address.
        let mut sites = headers.get_all(SEC_FETCH_SITE).iter();
        if sites.all(|site| site == "none" || site == "same-origin") || opens_docs(request) {
            return Ok(());
        }
        Err(Status::permission_denied(
            "Sec-Fetch-Site: this server takes no requests from pages of other sites; \
             `serve --cors-allow-origin ORIGIN` lets those of an origin call",
        ))
    }
}

/// Whether somebody follows a link to the documentation, which does nothing and cannot be framed.
fn opens_docs<B>(request: &Request<B>) -> bool {
    let is = |name, expected: &str| {
        let value = request.headers().get(name);
        value.is_some_and(|value| value == expected)
    };
    matches!(*request.method(), Method::GET | Method::HEAD)
        && Docs::has(request.uri().path())
        && is(SEC_FETCH_MODE, "navigate")
        && is(SEC_FETCH_DEST, "document")
}

fn foreign_origin(origin: &str) -> Status {
    let known = origin.len() <= LONGEST_ECHO && origin.parse::<AllowedOrigin>().is_ok();
    let origin = if known { origin } else { "ORIGIN" };
    Status::permission_denied(format!(
        "Origin: this server takes no requests from pages of other origins; `serve --cors-allow-origin \
         {origin}` lets those of one call, and a proxy in front must pass Host on as it is"
    ))
}

/// Whether an origin is that of the host asked for. Not by its scheme: a proxy may speak TLS in front.
fn is_own(origin: &str, authority: &str) -> bool {
    let Some((scheme, host)) = origin.split_once("://") else {
        return false;
    };
    let default_port = match scheme {
        "http" => ":80",
        "https" => ":443",
        _ => return false,
    };
    let without_port = |text: &str| {
        text.strip_suffix(default_port)
            .unwrap_or(text)
            .to_ascii_lowercase()
    };
    !host.is_empty() && without_port(host) == without_port(authority)
}

fn names_loopback(authority: &Authority) -> bool {
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

    const LOOPBACK: [u8; 4] = [127, 0, 0, 1];
    const EVERYWHERE: [u8; 4] = [0, 0, 0, 0];

    /// Why a guard on `address` that lets in pages of https://app.example refuses a request, if it does.
    fn refusal(address: [u8; 4], path: &str, headers: &[(&str, &str)]) -> Option<String> {
        let origins = ["https://app.example".parse().unwrap()];
        let guard = Guard::without_tokens(&origins);
        let mut request = Request::builder().uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(()).unwrap();
        let host = request.headers().get(header::HOST);
        let host = host.and_then(|host| Authority::try_from(host.as_bytes()).ok());
        let checked = guard.check(&request, host.as_ref(), IpAddr::from(address).is_loopback());
        checked.err().map(|status| status.message().to_owned())
    }

    #[test]
    fn a_server_on_loopback_is_asked_for_by_names_of_loopback() {
        for (host, here) in [
            ("localhost", true),
            ("LOCALHOST:1", true),
            ("127.0.0.1:8080", true),
            ("127.9.9.9", true),
            ("[::1]:8080", true),
            ("evil.example", false),
            ("localhost.evil.example", false),
            ("10.0.0.1", false),
            ("[::2]", false),
        ] {
            let refused = refusal(LOOPBACK, "/a", &[("host", host)]);
            assert_eq!(refused.is_none(), here, "{host}");
            assert_eq!(refusal(EVERYWHERE, "/a", &[("host", host)]), None, "{host}");
        }
        assert!(refusal(LOOPBACK, "/a", &[]).is_some());
        assert_eq!(refusal(EVERYWHERE, "/a", &[]), None);
    }

    #[test]
    fn pages_call_their_own_server_only_wherever_it_listens() {
        for (address, host) in [
            (LOOPBACK, "localhost:8080"),
            (EVERYWHERE, "images.example:8080"),
            (EVERYWHERE, "localhost:8080"),
        ] {
            let with = |headers: &[(&str, &str)]| {
                let headers = [&[("host", host)], headers].concat();
                refusal(address, "/operations/x:cancel", &headers)
            };
            let own = format!("http://{host}");
            let own_tls = format!("https://{}", host.to_uppercase());
            for let_in in [
                &[("origin", own.as_str())][..],
                &[("origin", &own_tls)],
                &[("origin", "https://app.example")],
                &[
                    ("origin", "https://app.example"),
                    ("sec-fetch-site", "cross-site"),
                ],
                &[("sec-fetch-site", "same-origin")],
                &[("sec-fetch-site", "none")],
            ] {
                assert_eq!(with(let_in), None, "{host} {let_in:?}");
            }
            for refused in [
                &[("origin", "null")][..],
                &[("origin", "http://evil.example")],
                &[("origin", "http://localhost:3000")],
                &[("origin", "http://images.example")],
                &[("origin", "http://app.example")],
                &[("origin", "https://app.example.evil")],
                &[("origin", "")],
                &[("origin", "http://")],
                &[("origin", own.as_str()), ("origin", "http://evil.example")],
                &[("origin", own.as_str()), ("sec-fetch-site", "cross-site")],
                &[("sec-fetch-site", "cross-site")],
                &[("sec-fetch-site", "same-site")],
                &[("sec-fetch-site", "none"), ("sec-fetch-site", "cross-site")],
            ] {
                let message = with(refused).unwrap_or_else(|| panic!("{host} {refused:?}"));
                assert!(message.contains("--cors-allow-origin"), "{message}");
            }
        }
        let evil = [("host", "a.example"), ("origin", "https://evil.example")];
        let message = refusal(EVERYWHERE, "/a", &evil).expect("a refusal");
        assert!(
            message.contains("--cors-allow-origin https://evil.example"),
            "{message}"
        );
    }

    #[test]
    fn the_port_of_a_scheme_may_be_left_out() {
        for (host, origin, own) in [
            ("a.example", "https://a.example", true),
            ("a.example:443", "https://a.example", true),
            ("a.example:80", "http://a.example", true),
            ("a.example:80", "https://a.example", false),
            ("a.example:8443", "https://a.example", false),
            ("a.example", "https://a.example:8443", false),
        ] {
            let headers = [("host", host), ("origin", origin)];
            let refused = refusal(EVERYWHERE, "/a", &headers);
            assert_eq!(refused.is_none(), own, "{host} {origin}");
        }
    }

    #[test]
    fn a_link_on_another_site_opens_the_documentation_and_nothing_else() {
        let visit = [
            ("host", "localhost:8080"),
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-mode", "navigate"),
        ];
        for (path, dest, opens) in [
            ("/docs", "document", true),
            ("/docs/", "document", true),
            ("/openapi.json", "document", true),
            ("/docs", "iframe", false),
            ("/docs/index.html", "script", false),
            ("/operations/x:cancel", "document", false),
            ("/docsx", "document", false),
        ] {
            for address in [LOOPBACK, EVERYWHERE] {
                let headers = [&visit[..], &[("sec-fetch-dest", dest)]].concat();
                let refused = refusal(address, path, &headers);
                assert_eq!(refused.is_none(), opens, "{path} {dest}");
            }
        }
    }
}
