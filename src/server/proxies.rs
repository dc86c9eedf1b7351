//! Proxies in front: which of them are trusted, and what they say of the client of a request.
//!
//! Forwarding headers from all other peers are dropped before anything looks at them.

use std::net::IpAddr;
use std::str::FromStr;

use http::uri::Authority;
use http::{HeaderMap, HeaderName, Request, header};
use ipnet::IpNet;
use tonic::Status;

use super::framing;
use super::peer::{Address, Peer};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// All headers by which a proxy tells of its client.
const FORWARDING: [HeaderName; 6] = [
    header::FORWARDED,
    X_FORWARDED_FOR,
    X_FORWARDED_HOST,
    X_FORWARDED_PROTO,
    HeaderName::from_static("x-forwarded-port"),
    HeaderName::from_static("x-real-ip"),
];

/// A proxy, or a network of proxies, that is believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TrustedProxy {
    Network(IpNet),
    /// All who may connect to the Unix socket.
    Unix,
}

impl FromStr for TrustedProxy {
    type Err = String;

    /// An address, a network such as `10.0.0.0/8`, or `unix`.
    fn from_str(text: &str) -> Result<Self, String> {
        if text == "unix" {
            return Ok(Self::Unix);
        }
        let network = text.parse::<IpNet>().ok();
        let network = network.or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
        let network = network.ok_or_else(|| {
            "a trusted proxy is an address or a network, as in 10.0.0.2 or 10.0.0.0/24, or unix"
                .to_owned()
        })?;
        if network.addr() != network.network() {
            return Err(format!("a network is written as {}", network.trunc()));
        }
        Ok(Self::Network(network))
    }
}

/// All proxies that are believed.
#[derive(Debug, Clone, Default)]
pub(crate) struct TrustedProxies(Vec<TrustedProxy>);

/// The client of a request that came by a trusted proxy, as far as the proxy tells.
#[derive(Debug, Default, PartialEq, Eq)]
struct Forwarded {
    client: Option<IpAddr>,
    host: Option<Authority>,
    is_https: Option<bool>,
}

impl TrustedProxies {
    pub(crate) fn new(proxies: Vec<TrustedProxy>) -> Self {
        Self(proxies)
    }

    pub(crate) fn trusts(&self, address: Address) -> bool {
        match address.ip() {
            Some(ip) => self.trusts_ip(ip),
            None => self.0.contains(&TrustedProxy::Unix),
        }
    }

    fn trusts_ip(&self, ip: IpAddr) -> bool {
        self.0.iter().any(|proxy| match proxy {
            TrustedProxy::Network(network) => network.contains(&ip),
            TrustedProxy::Unix => false,
        })
    }

    /// Takes the forwarding headers off a request, whose [`Peer`] is then the client that they tell of; the host that
    /// the client asked for, where they tell it.
    ///
    /// # Errors
    /// INVALID_ARGUMENT where the headers of a trusted proxy can be read in two ways.
    pub(crate) fn apply<B>(&self, request: &mut Request<B>) -> Result<Option<Authority>, Status> {
        let peer = request.extensions().get::<Peer>();
        let Some(peer) = peer.map(|peer| peer.address) else {
            return Ok(None);
        };
        let Some(told) = self.take(request.headers_mut(), peer)? else {
            return Ok(None);
        };
        if let Some(peer) = request.extensions_mut().get_mut::<Peer>() {
            peer.is_proxied = true;
            peer.is_tls = told.is_https.unwrap_or(peer.is_tls);
            peer.address = told.client.map_or(peer.address, Address::Behind);
            // The certificate is the proxy's, not its client's.
            peer.certificate = None;
        }
        Ok(told.host)
    }

    /// Takes the forwarding headers off a request from a peer; none where the peer is not trusted.
    ///
    /// # Errors
    /// INVALID_ARGUMENT where the headers of a trusted proxy can be read in two ways.
    fn take(&self, headers: &mut HeaderMap, peer: Address) -> Result<Option<Forwarded>, Status> {
        let found = match self.trusts(peer) {
            true => Some(self.read(headers)?),
            false => None,
        };
        for name in &FORWARDING {
            headers.remove(name);
        }
        Ok(found)
    }

    fn read(&self, headers: &HeaderMap) -> Result<Forwarded, Status> {
        let x_headers = [X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_PROTO];
        let has_x = x_headers.iter().any(|name| headers.contains_key(name));
        if !headers.contains_key(header::FORWARDED) {
            return self.read_x(headers);
        }
        if has_x {
            return Err(framing::wrong(
                "Forwarded",
                "must not be sent beside X-Forwarded-For, X-Forwarded-Host or X-Forwarded-Proto",
            ));
        }
        self.read_forwarded(headers)
    }

    fn read_x(&self, headers: &HeaderMap) -> Result<Forwarded, Status> {
        let hops = lines(headers, &X_FORWARDED_FOR)?;
        let hops: Vec<&str> = hops
            .iter()
            .flat_map(|line| line.split(','))
            .map(str::trim)
            .collect();
        let host = single(headers, &X_FORWARDED_HOST)?;
        let proto = single(headers, &X_FORWARDED_PROTO)?;
        Ok(Forwarded {
            client: self.client(hops.iter().rev().map(|hop| ip(hop))).0,
            host: host
                .map(|host| authority("X-Forwarded-Host", host))
                .transpose()?,
            is_https: proto
                .map(|proto| is_https("X-Forwarded-Proto", proto))
                .transpose()?,
        })
    }

    /// Reads `Forwarded` (RFC 7239). Host and proto are those that the proxy tells which saw the client.
    fn read_forwarded(&self, headers: &HeaderMap) -> Result<Forwarded, Status> {
        let malformed = || framing::wrong("Forwarded", "must be written as in RFC 7239");
        let mut hops = Vec::new();
        for line in lines(headers, &header::FORWARDED)? {
            hops.extend(elements(line).ok_or_else(malformed)?);
        }
        let addresses = hops
            .iter()
            .rev()
            .map(|hop| ip(hop.value("for").unwrap_or_default()));
        let (client, passed) = self.client(addresses);
        let Some(hop) = hops.len().checked_sub(passed).and_then(|at| hops.get(at)) else {
            return Ok(Forwarded::default());
        };
        let (host, proto) = (hop.value("host"), hop.value("proto"));
        Ok(Forwarded {
            client,
            host: host
                .map(|host| authority("Forwarded: host", host))
                .transpose()?,
            is_https: proto
                .map(|proto| is_https("Forwarded: proto", proto))
                .transpose()?,
        })
    }

    /// The first address that is not trusted, of those that proxies have added, the last one first; the number of
    /// those that were looked at. What is no address was added by a proxy that does not tell: the client is then
    /// that proxy.
    fn client(&self, hops: impl Iterator<Item = Option<IpAddr>>) -> (Option<IpAddr>, usize) {
        let (mut client, mut passed) = (None, 0);
        for hop in hops {
            passed += 1;
            let Some(address) = hop else {
                break;
            };
            client = Some(address);
            if !self.trusts_ip(address) {
                break;
            }
        }
        (client, passed)
    }
}

/// The values of a header, in their order.
fn lines<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<Vec<&'h str>, Status> {
    let lines = headers.get_all(name).iter();
    let lines = lines.map(|line| line.to_str()).collect::<Result<_, _>>();
    lines.map_err(|_| framing::wrong(name.as_str(), "must be ASCII"))
}

/// The value of a header that may have one.
fn single<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<Option<&'h str>, Status> {
    let lines = lines(headers, name)?;
    match lines[..] {
        [] => Ok(None),
        [one] if !one.contains(',') => Ok(Some(one.trim())),
        _ => Err(framing::wrong(name.as_str(), "must have one value")),
    }
}

fn authority(field: &str, text: &str) -> Result<Authority, Status> {
    framing::parsed(text.as_bytes())
        .ok_or_else(|| framing::wrong(field, "must be a host with or without a port"))
}

fn is_https(field: &str, text: &str) -> Result<bool, Status> {
    match text {
        _ if text.eq_ignore_ascii_case("https") => Ok(true),
        _ if text.eq_ignore_ascii_case("http") => Ok(false),
        _ => Err(framing::wrong(field, "must be http or https")),
    }
}

/// An address, with or without a port, in the forms of both headers.
fn ip(text: &str) -> Option<IpAddr> {
    let bare = |text: &str| text.parse::<IpAddr>().ok();
    let address = match text.strip_prefix('[') {
        Some(rest) => bare(rest.split_once(']')?.0),
        None => bare(text).or_else(|| bare(text.split_once(':')?.0)),
    };
    address.map(|address| address.to_canonical())
}

/// The element of `Forwarded` that one proxy has added.
struct Element(Vec<(String, String)>);

impl Element {
    fn value(&self, name: &str) -> Option<&str> {
        let mut pairs = self.0.iter();
        let pair = pairs.find(|(found, _)| found == name)?;
        Some(&pair.1)
    }
}

/// The elements of a `Forwarded` line; none where it is malformed or says a thing twice.
fn elements(line: &str) -> Option<Vec<Element>> {
    let mut elements = Vec::new();
    for element in split(line, ',')? {
        let mut pairs: Vec<(String, String)> = Vec::new();
        for pair in split(element, ';')? {
            if pair.trim().is_empty() {
                continue;
            }
            let (name, value) = pair.trim().split_once('=')?;
            let name = name.to_ascii_lowercase();
            if pairs.iter().any(|(found, _)| *found == name) {
                return None;
            }
            pairs.push((name, unquoted(value)?));
        }
        elements.push(Element(pairs));
    }
    Some(elements)
}

/// The parts of a text between separators that stand outside of quotes; none where a quote does not end.
fn split(text: &str, separator: char) -> Option<Vec<&str>> {
    let (mut parts, mut start, mut quoted, mut escaped) = (Vec::new(), 0, false, false);
    for (at, character) in text.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ if character == separator && !quoted => {
                parts.push(&text[start..at]);
                start = at + character.len_utf8();
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    (!quoted).then_some(parts)
}

fn unquoted(value: &str) -> Option<String> {
    let Some(rest) = value.strip_prefix('"') else {
        return (!value.contains('"')).then(|| value.to_owned());
    };
    let inner = rest.strip_suffix('"')?;
    let (mut text, mut characters) = (String::new(), inner.chars());
    while let Some(character) = characters.next() {
        match character {
            '\\' => text.push(characters.next()?),
            '"' => return None,
            character => text.push(character),
        }
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies() -> TrustedProxies {
        let proxies = ["10.0.0.0/8", "fd00::/8", "192.0.2.1"];
        TrustedProxies::new(proxies.map(|it| it.parse().unwrap()).to_vec())
    }

    fn taken(peer: &str, lines: &[(&'static str, &str)]) -> Result<Option<Forwarded>, Status> {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, value.parse().unwrap());
        }
        let peer = Address::Tcp((peer.parse::<IpAddr>().unwrap(), 1).into());
        let taken = proxies().take(&mut headers, peer);
        if taken.is_ok() {
            assert!(headers.is_empty(), "{headers:?}");
        }
        taken
    }

    fn client(lines: &[(&'static str, &str)]) -> Option<String> {
        let forwarded = taken("10.0.0.1", lines).unwrap().expect("a trusted peer");
        forwarded.client.map(|it| it.to_string())
    }

    #[test]
    fn the_client_is_the_last_address_that_is_not_trusted() {
        const FOR: &str = "x-forwarded-for";
        for (lines, expected) in [
            (&[][..], None),
            (&[(FOR, "203.0.113.7")], Some("203.0.113.7")),
            (&[(FOR, "1.1.1.1, 203.0.113.7")], Some("203.0.113.7")),
            (
                &[(FOR, "1.1.1.1, 203.0.113.7, 10.1.1.1")],
                Some("203.0.113.7"),
            ),
            (
                &[(FOR, "1.1.1.1"), (FOR, "203.0.113.7, 10.1.1.1")],
                Some("203.0.113.7"),
            ),
            (
                &[(FOR, "203.0.113.7"), (FOR, "10.1.1.1")],
                Some("203.0.113.7"),
            ),
            (&[(FOR, "203.0.113.7:4711")], Some("203.0.113.7")),
            (&[(FOR, "[2001:db8::7]:4711,fd00::1")], Some("2001:db8::7")),
            (&[(FOR, "2001:db8::7")], Some("2001:db8::7")),
            (&[(FOR, "::ffff:203.0.113.7")], Some("203.0.113.7")),
            (&[(FOR, "10.1.1.2, 10.1.1.1")], Some("10.1.1.2")),
            (&[(FOR, "1.1.1.1, unknown")], None),
            (&[(FOR, "1.1.1.1, unknown, 10.1.1.1")], Some("10.1.1.1")),
            (&[(FOR, "")], None),
            (&[("forwarded", "for=203.0.113.7")], Some("203.0.113.7")),
            (
                &[(
                    "forwarded",
                    "For=\"[2001:db8::7]:1\";proto=https, for=10.1.1.1",
                )],
                Some("2001:db8::7"),
            ),
            (
                &[
                    ("forwarded", "for=1.1.1.1"),
                    ("forwarded", "for=203.0.113.7;by=_x"),
                ],
                Some("203.0.113.7"),
            ),
            (&[("forwarded", "for=\"1.1.1.1, 2.2.2.2\"")], None),
            (
                &[("forwarded", "for=_hidden, for=10.1.1.1")],
                Some("10.1.1.1"),
            ),
            (&[("forwarded", "proto=https")], None),
        ] {
            assert_eq!(client(lines).as_deref(), expected, "{lines:?}");
        }
    }

    #[test]
    fn host_and_scheme_are_those_of_the_client() {
        for (lines, host, is_https) in [
            (
                &[
                    ("x-forwarded-host", "a.example:8443"),
                    ("x-forwarded-proto", "HTTPS"),
                ][..],
                Some("a.example:8443"),
                Some(true),
            ),
            (&[("x-forwarded-proto", "http")], None, Some(false)),
            (
                &[(
                    "forwarded",
                    "for=203.0.113.7;host=\"a.example:1\";proto=https, for=10.1.1.1;proto=http;host=b",
                )],
                Some("a.example:1"),
                Some(true),
            ),
            (
                &[(
                    "forwarded",
                    "for=1.1.1.1;host=evil.example, for=203.0.113.7;host=a.example",
                )],
                Some("a.example"),
                None,
            ),
        ] {
            let forwarded = taken("10.0.0.1", lines).unwrap().expect("a trusted peer");
            assert_eq!(
                forwarded.host.as_ref().map(Authority::as_str),
                host,
                "{lines:?}"
            );
            assert_eq!(forwarded.is_https, is_https, "{lines:?}");
        }
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_refused() {
        for lines in [
            &[("forwarded", "for=1.1.1.1"), ("x-forwarded-for", "1.1.1.1")][..],
            &[("forwarded", "for=1.1.1.1"), ("x-forwarded-proto", "https")],
            &[
                ("x-forwarded-host", "a.example"),
                ("x-forwarded-host", "a.example"),
            ],
            &[("x-forwarded-host", "a.example, b.example")],
            &[
                ("x-forwarded-proto", "https"),
                ("x-forwarded-proto", "http"),
            ],
            &[("x-forwarded-proto", "https,http")],
            &[("x-forwarded-proto", "ftp")],
            &[("x-forwarded-proto", "")],
            &[("x-forwarded-host", "a b")],
            &[("x-forwarded-host", "user@a.example")],
            &[("forwarded", "for=1.1.1.1;for=2.2.2.2")],
            &[("forwarded", "for=1.1.1.1;proto=http;Proto=https")],
            &[("forwarded", "for=1.1.1.1;host=a.example;host=b.example")],
            &[("forwarded", "for=\"1.1.1.1")],
            &[("forwarded", "1.1.1.1")],
            &[("forwarded", "for=1.1.1.1;proto=\"ht\"tp\"")],
        ] {
            let refused = taken("10.0.0.1", lines).expect_err("a refusal");
            assert_eq!(refused.code(), tonic::Code::InvalidArgument, "{lines:?}");
            // Of others they say nothing.
            assert_eq!(taken("203.0.113.9", lines).unwrap(), None);
        }
    }

    #[test]
    fn a_proxy_is_an_address_a_network_or_the_socket() {
        for (text, expected) in [
            ("10.0.0.2", Some("10.0.0.2/32")),
            ("10.0.0.0/24", Some("10.0.0.0/24")),
            ("fd00::/8", Some("fd00::/8")),
            ("::1", Some("::1/128")),
            ("10.0.0.2/24", None),
            ("10.0.0.0/33", None),
            ("proxy.example", None),
            ("", None),
            ("*", None),
        ] {
            let parsed = text.parse::<TrustedProxy>().ok();
            let expected = expected.map(|it| TrustedProxy::Network(it.parse().unwrap()));
            assert_eq!(parsed, expected, "{text:?}");
        }
        assert_eq!("unix".parse(), Ok(TrustedProxy::Unix));
        let unix = TrustedProxies::new(vec![TrustedProxy::Unix]);
        assert!(unix.trusts(Address::Unix) && !proxies().trusts(Address::Unix));
    }
}
