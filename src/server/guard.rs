//! Keeps web pages from using a server that trusts everybody who reaches it.
//!
//! The rights of some requests come from their connection alone: those of callers without a token, of clients with a
//! certificate, and of a Unix socket. A browser that reaches the server sends such requests for any page that it
//! shows: across sites, GETs included, since the contract binds Cancel to one, or by a name that the page's owner
//! points to the server (DNS rebinding). The first is seen by what browsers say of the page. Against the second the
//! names of the server must be known: on loopback they are, elsewhere `--allow-host` tells them.
//!
//! A page cannot make a browser send a token that the page does not have, so a request with one needs no such check.

use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use http::uri::Authority;
use http::{HeaderName, HeaderValue, Method, Request, header};
use tonic::Status;

use super::cors::AllowedOrigin;
use super::docs::Docs;
use super::peer::Peer;
use crate::auth::SignedPath;

/// The longest origin that a refusal repeats.
const LONGEST_ECHO: usize = 100;

/// The scheme of tokens (RFC 6750), with what stands behind it.
const BEARER: &[u8] = b"bearer ";

const SEC_FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");
const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Which requests are let in.
#[derive(Debug, Clone)]
pub(crate) struct Guard {
    /// Whether callers must say who they are.
    identity: bool,
    hosts: Arc<[AllowedHost]>,
    origins: Arc<[AllowedOrigin]>,
}

/// A host name by which a server may be asked for, with any port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowedHost(String);

impl AllowedHost {
    /// The name, in lower case; an address of IPv6 without brackets.
    pub fn name(&self) -> &str {
        &self.0
    }

    fn is(&self, authority: &Authority) -> bool {
        bare(authority.host()).eq_ignore_ascii_case(&self.0)
    }
}

impl FromStr for AllowedHost {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || "a host is a name or an address without a port, as in images.example".to_owned();
        if let Ok(address) = bare(text).parse::<IpAddr>() {
            return Ok(Self(address.to_string()));
        }
        let authority: Authority = text.parse().map_err(|_| wrong())?;
        let is_name = authority.host() == text && !text.starts_with('[') && !text.contains('*');
        is_name
            .then(|| Self(text.to_ascii_lowercase()))
            .ok_or_else(wrong)
    }
}

/// A host without the brackets of an address.
fn bare(host: &str) -> &str {
    host.trim_start_matches('[').trim_end_matches(']')
}

impl Guard {
    /// For a server that is known as `hosts` and trusts the pages of `origins`. With `identity` callers must say who
    /// they are.
    pub(crate) fn new(identity: bool, hosts: &[AllowedHost], origins: &[AllowedOrigin]) -> Self {
        Self {
            identity,
            hosts: hosts.into(),
            origins: origins.into(),
        }
    }

    /// Refuses a request for a foreign host and, where its rights come from the connection, one from a page of a
    /// foreign origin. `authority` is the host that the request is for, as everything else takes it too.
    pub(crate) fn check<B>(
        &self,
        request: &Request<B>,
        authority: Option<&Authority>,
    ) -> Result<(), Status> {
        let peer = request.extensions().get::<Peer>();
        let is_loopback = peer.is_none_or(|peer| peer.is_loopback);
        self.check_host(authority, is_loopback)?;
        if self.identity && has_own_credentials(request) {
            return Ok(());
        }
        self.check_page(request, authority)
    }

    fn check_host(&self, authority: Option<&Authority>, is_loopback: bool) -> Result<(), Status> {
        if self.identity && self.hosts.is_empty() {
            return Ok(());
        }
        let is_known = authority.is_some_and(|authority| {
            is_loopback && names_loopback(authority)
                || self.hosts.iter().any(|host| host.is(authority))
        });
        if is_known {
            return Ok(());
        }
        Err(Status::permission_denied(
            match is_loopback && self.hosts.is_empty() {
                true => {
                    "Host: this server listens on loopback only; ask for localhost or 127.0.0.1"
                }
                false => {
                    "Host: this server is not known by that name; `serve --allow-host NAME` adds one"
                }
            },
        ))
    }

    fn check_page<B>(
        &self,
        request: &Request<B>,
        authority: Option<&Authority>,
    ) -> Result<(), Status> {
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

/// Whether a request has credentials that a browser does not send by itself: a token, or a signature in its address as
/// the authenticator reads it. The authenticator then never takes the rights of the connection in their place.
pub(crate) fn has_own_credentials<B>(request: &Request<B>) -> bool {
    let is_bearer = |value: &HeaderValue| {
        let scheme = value.as_bytes().get(..BEARER.len());
        scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case(BEARER))
    };
    let mut authorizations = request.headers().get_all(header::AUTHORIZATION).iter();
    authorizations.any(is_bearer) || SignedPath::of(request.method(), request.uri()).is_some()
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
         {origin}` lets those of one call; a proxy in front must pass Host on as it is, or X-Forwarded-Host and be one of \
         --trusted-proxy"
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
    host.eq_ignore_ascii_case("localhost")
        || bare(host)
            .parse()
            .is_ok_and(|address: IpAddr| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Listeners: on loopback, and where other machines reach it.
    const LOOPBACK: bool = true;
    const EVERYWHERE: bool = false;

    /// Without tokens, and known by two names.
    fn guard(identity: bool, hosts: &[&str]) -> Guard {
        let hosts: Vec<_> = hosts.iter().map(|host| host.parse().unwrap()).collect();
        let origins = ["https://app.example".parse().unwrap()];
        Guard::new(identity, &hosts, &origins)
    }

    /// Why a guard refuses a request at a listener, if it does.
    fn refused(guard: &Guard, place: bool, path: &str, headers: &[(&str, &str)]) -> Option<String> {
        let mut request = Request::builder().uri(path).extension(Peer::at(place));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(()).unwrap();
        let host = request.headers().get(header::HOST);
        let host = host.and_then(|host| Authority::try_from(host.as_bytes()).ok());
        let checked = guard.check(&request, host.as_ref());
        checked.err().map(|status| status.message().to_owned())
    }

    /// The same of a guard without tokens that is known by some names, and lets in pages of https://app.example.
    fn refusal(place: bool, path: &str, headers: &[(&str, &str)]) -> Option<String> {
        let hosts: &[&str] = match place {
            LOOPBACK => &[],
            EVERYWHERE => &["images.example", "a.example", "localhost"],
        };
        refused(&guard(false, hosts), place, path, headers)
    }

    #[test]
    fn a_server_is_asked_for_by_its_names() {
        const LIST: &[&str] = &["Images.Example", "[2001:db8::1]"];
        for (host, of_loopback, listed) in [
            ("localhost", true, false),
            ("LOCALHOST:1", true, false),
            ("127.0.0.1:8080", true, false),
            ("127.9.9.9", true, false),
            ("[::1]:8080", true, false),
            ("evil.example", false, false),
            ("localhost.evil.example", false, false),
            ("10.0.0.1", false, false),
            ("[::2]", false, false),
            ("images.example", false, true),
            ("IMAGES.example:8443", false, true),
            ("a.images.example", false, false),
            ("[2001:db8::1]:1", false, true),
        ] {
            let taken = |identity: bool, list: &[&str], place: bool| {
                refused(&guard(identity, list), place, "/a", &[("host", host)]).is_none()
            };
            assert_eq!(taken(false, &[], LOOPBACK), of_loopback, "{host}");
            assert_eq!(
                taken(false, LIST, LOOPBACK),
                of_loopback || listed,
                "{host}"
            );
            assert_eq!(taken(false, LIST, EVERYWHERE), listed, "{host}");
            // Not known by any name: such a server does not start.
            assert!(!taken(false, &[], EVERYWHERE), "{host}");
            for place in [LOOPBACK, EVERYWHERE] {
                assert!(taken(true, &[], place), "{host}");
                let expected = listed || place == LOOPBACK && of_loopback;
                assert_eq!(taken(true, LIST, place), expected, "{host}");
            }
        }
        for place in [LOOPBACK, EVERYWHERE] {
            assert!(refusal(place, "/a", &[]).is_some());
            assert_eq!(refused(&guard(true, &[]), place, "/a", &[]), None);
        }
    }

    #[test]
    fn a_host_has_no_port() {
        for (text, name) in [
            ("Images.Example", Some("images.example")),
            ("10.0.0.1", Some("10.0.0.1")),
            ("[2001:DB8::1]", Some("2001:db8::1")),
            ("2001:db8::1", Some("2001:db8::1")),
            ("images.example:80", None),
            ("http://images.example", None),
            ("user@images.example", None),
            ("*.example", None),
            ("a b", None),
            ("", None),
        ] {
            let parsed = text.parse::<AllowedHost>().ok();
            assert_eq!(parsed.as_ref().map(AllowedHost::name), name, "{text:?}");
        }
    }

    #[test]
    fn what_a_page_cannot_send_is_not_asked_where_it_comes_from() {
        let from_a_page = [
            ("host", "images.example"),
            ("origin", "https://evil.example"),
            ("sec-fetch-site", "cross-site"),
        ];
        for (path, authorization, own) in [
            ("/a", Some("Bearer x"), true),
            ("/a", Some("bearer x"), true),
            ("/a", Some("Basic x"), false),
            ("/a", Some("Bearer"), false),
            ("/a", None, false),
            ("/a?expires=1&signature=x", None, true),
            // Not as the authenticator reads a signature: the certificate of the connection would count.
            ("/a?signature=x", None, false),
            ("/a?signature=x&expires=1", None, false),
            ("/a?expires=1&signature", None, false),
            ("/a?not-signature=x", None, false),
            ("/signature", None, false),
        ] {
            let mut headers = from_a_page.to_vec();
            headers.extend(authorization.map(|value| ("authorization", value)));
            let refused = |identity: bool| {
                refused(
                    &guard(identity, &["images.example"]),
                    EVERYWHERE,
                    path,
                    &headers,
                )
            };
            assert_eq!(refused(true).is_none(), own, "{path} {authorization:?}");
            // Where nobody is asked for a token, it says nothing.
            assert!(refused(false).is_some(), "{path} {authorization:?}");
        }
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
