//! Requests that two readers could take for two different ones: which host they are for, and where they
//! end (RFC 9112, sections 3.2 and 6; RFC 9113, section 8.3.1). They are refused before anything looks at
//! them, since a proxy in front may have read them the other way. hyper refuses most of them itself.

use http::uri::Authority;
use http::{HeaderMap, Method, Request, Version, header};
use tonic::Status;

use crate::contract::rules::Violation;
use crate::grpc;

/// Finds the host and port that a request is for; none where HTTP/1.0 names none. The error is the
/// refusal of a request that could be read in two ways.
pub(crate) fn authority<B>(request: &Request<B>) -> Result<Option<Authority>, Status> {
    target(request)?;
    if request.headers().contains_key(header::TRANSFER_ENCODING) {
        transfer_encoding(request.headers())?;
    }
    host(request)
}

fn target<B>(request: &Request<B>) -> Result<(), Status> {
    let uri = request.uri();
    if *request.method() == Method::CONNECT {
        return Err(Status::unimplemented(
            "CONNECT is not served: this server is no proxy",
        ));
    }
    if !matches!(uri.scheme_str(), None | Some("http" | "https")) {
        return Err(wrong(":scheme", "must be http or https"));
    }
    let is_path = uri.path().starts_with('/');
    let is_asterisk = uri.path() == "*" && *request.method() == Method::OPTIONS;
    if !is_path && !is_asterisk {
        return Err(wrong(
            "request target",
            "must be a path, as in GET /operations/ID, or a URL; OPTIONS takes * too",
        ));
    }
    Ok(())
}

fn host<B>(request: &Request<B>) -> Result<Option<Authority>, Status> {
    let mut lines = request.headers().get_all(header::HOST).iter();
    let host = lines.next();
    if lines.next().is_some() {
        return Err(wrong("Host", "must be sent once"));
    }
    let malformed = || {
        wrong(
            "Host",
            "must be a host with or without a port, as in localhost:8080",
        )
    };
    let host = host
        .map(|host| parsed(host.as_bytes()).ok_or_else(malformed))
        .transpose()?;
    let Some(target) = request.uri().authority() else {
        return match host {
            None if request.version() != Version::HTTP_10 => Err(wrong("Host", "must be sent")),
            host => Ok(host),
        };
    };
    if !is_host_and_port(target) {
        let field = match request.version() {
            Version::HTTP_2 => ":authority",
            _ => "request target",
        };
        return Err(wrong(
            field,
            "must name a host with or without a port, as in localhost:8080",
        ));
    }
    match host {
        // The standard has a server pass over Host here, but what stands in between may not.
        Some(host) if !host.as_str().eq_ignore_ascii_case(target.as_str()) => Err(wrong(
            "Host",
            "must be that of the request target (HTTP/2: :authority), or be left out over HTTP/2",
        )),
        None if request.version() == Version::HTTP_11 => Err(wrong("Host", "must be sent")),
        _ => Ok(Some(target.clone())),
    }
}

/// A host with or without a port.
pub(crate) fn parsed(host: &[u8]) -> Option<Authority> {
    let host = Authority::try_from(host).ok()?;
    is_host_and_port(&host).then_some(host)
}

/// Whether an authority has a host, a port at the most, and no user.
fn is_host_and_port(authority: &Authority) -> bool {
    let host = authority.host();
    let port = authority.as_str().strip_prefix(host);
    !host.is_empty()
        && port.is_some_and(|port| match port.strip_prefix(':') {
            None => port.is_empty(),
            Some(port) => {
                port.bytes().all(|byte| byte.is_ascii_digit())
                    && (port.is_empty() || port.parse::<u16>().is_ok())
            }
        })
}

/// Takes `chunked` alone. hyper has looked at the last coding only, and has made sure that it is this.
fn transfer_encoding(headers: &HeaderMap) -> Result<(), Status> {
    let mut chunked = 0;
    for line in headers.get_all(header::TRANSFER_ENCODING) {
        let line = line.to_str().unwrap_or("?");
        for coding in line.split(',').map(str::trim) {
            if coding.eq_ignore_ascii_case("chunked") {
                chunked += 1;
            } else if !coding.is_empty() {
                return Err(Status::unimplemented(
                    "Transfer-Encoding: only chunked is taken; compress the content instead, with \
                     Content-Encoding",
                ));
            }
        }
    }
    match chunked {
        1 => Ok(()),
        _ => Err(wrong("Transfer-Encoding", "must be chunked, once")),
    }
}

/// The refusal of a field that is wrong.
pub(crate) fn wrong(field: &str, description: &str) -> Status {
    grpc::invalid(vec![Violation {
        field: field.to_owned(),
        description: description.to_owned(),
    }])
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::Code;

    fn request(line: &str, headers: &[(&str, &str)]) -> Request<()> {
        let (method, rest) = line.split_once(' ').expect("a method");
        let (uri, version) = rest.split_once(' ').expect("a version");
        let version = match version {
            "1.0" => Version::HTTP_10,
            "1.1" => Version::HTTP_11,
            _ => Version::HTTP_2,
        };
        let mut request = Request::builder().method(method).uri(uri).version(version);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).expect(line)
    }

    #[test]
    fn a_request_is_for_one_host_whoever_reads_it() {
        /// The line, the hosts, and which host is found: none is not refused.
        type Case<'a> = (&'a str, &'a [&'a str], Option<Option<&'a str>>);
        let cases: &[Case] = &[
            ("GET /a 1.1", &["a.example:80"], Some(Some("a.example:80"))),
            ("GET /a 1.1", &["[::1]:8080"], Some(Some("[::1]:8080"))),
            ("GET /a 1.1", &["a.example:"], Some(Some("a.example:"))),
            ("GET /a 1.1", &[], None),
            ("GET /a 1.1", &["a.example", "a.example"], None),
            ("GET /a 1.1", &["a.example", "b.example"], None),
            ("GET /a 1.1", &[""], None),
            ("GET /a 1.1", &[":80"], None),
            ("GET /a 1.1", &["a b"], None),
            ("GET /a 1.1", &["a.example, b.example"], None),
            ("GET /a 1.1", &["a.example/"], None),
            ("GET /a 1.1", &["http://a.example"], None),
            ("GET /a 1.1", &["user@a.example"], None),
            ("GET /a 1.1", &["a.example:x"], None),
            ("GET /a 1.1", &["a.example:99999"], None),
            ("GET /a 1.1", &["a.example:80:80"], None),
            ("GET /a 1.1", &["[::1"], None),
            ("GET /a 1.0", &[], Some(None)),
            ("GET /a 1.0", &["a.example"], Some(Some("a.example"))),
            ("GET /a 1.0", &["a.example", "a.example"], None),
            ("GET /a 1.0", &[""], None),
            (
                "GET http://a.example/a 1.1",
                &["a.example"],
                Some(Some("a.example")),
            ),
            (
                "GET http://a.example/a 1.1",
                &["A.Example"],
                Some(Some("a.example")),
            ),
            ("GET http://a.example/a 1.1", &["b.example"], None),
            ("GET http://a.example/a 1.1", &["a.example:80"], None),
            ("GET http://a.example/a 1.1", &[], None),
            ("GET http://u@a.example/a 1.1", &["u@a.example"], None),
            ("GET ftp://a.example/a 1.1", &["a.example"], None),
            ("GET http://a.example/a 2", &[], Some(Some("a.example"))),
            (
                "GET https://a.example/a 2",
                &["a.example"],
                Some(Some("a.example")),
            ),
            ("GET http://a.example/a 2", &["b.example"], None),
            (
                "GET http://a.example/a 2",
                &["a.example", "a.example"],
                None,
            ),
            ("GET http://u@a.example/a 2", &[], None),
            ("GET /a 2", &["a.example"], Some(Some("a.example"))),
            ("GET /a 2", &[], None),
            ("OPTIONS * 1.1", &["a.example"], Some(Some("a.example"))),
            ("GET * 1.1", &["a.example"], None),
            ("GET a.example:80 1.1", &["a.example:80"], None),
            ("CONNECT a.example:80 1.1", &["a.example:80"], None),
        ];
        for (line, hosts, expected) in cases {
            let headers: Vec<_> = hosts.iter().map(|host| ("host", *host)).collect();
            let found = authority(&request(line, &headers)).ok();
            let found = found
                .as_ref()
                .map(|found| found.as_ref().map(Authority::as_str));
            assert_eq!(found, *expected, "{line} {hosts:?}");
        }
    }

    #[test]
    fn chunked_is_the_only_transfer_coding() {
        for (lines, expected) in [
            (&["chunked"][..], None),
            (&["Chunked"], None),
            (&[" chunked ,"], None),
            (&["gzip, chunked"], Some(Code::Unimplemented)),
            (&["gzip", "chunked"], Some(Code::Unimplemented)),
            (&["identity, chunked"], Some(Code::Unimplemented)),
            (&["chunked, chunked"], Some(Code::InvalidArgument)),
            (&["chunked", "chunked"], Some(Code::InvalidArgument)),
            (&[","], Some(Code::InvalidArgument)),
            (&["xchunked"], Some(Code::Unimplemented)),
        ] {
            let mut headers = vec![("host", "a.example")];
            headers.extend(lines.iter().map(|line| ("transfer-encoding", *line)));
            let found = authority(&request("POST /a 1.1", &headers));
            assert_eq!(
                found.err().map(|status| status.code()),
                expected,
                "{lines:?}"
            );
        }
    }
}
