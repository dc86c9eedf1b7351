//! The forms of values on the command line: labels, sizes, durations, digests.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use super::errors::{Error, Result};
use crate::app::Listen;

/// A host and a port that others can reach: a name, an IPv4 address or an IPv6 address in brackets.
pub(crate) fn advertised(text: &str) -> std::result::Result<String, String> {
    let wrong =
        || "the form is HOST:PORT, as in images.example:443 or [2001:db8::1]:443".to_owned();
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let has_port = port.bytes().all(|byte| byte.is_ascii_digit())
        && port.parse::<u16>().is_ok_and(|port| port > 0);
    let inner = host.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
    let is_host = match inner {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => is_host_name(host),
    };
    match has_port && is_host {
        true => Ok(text.to_owned()),
        false => Err(wrong()),
    }
}

/// Whether a text is a name of DNS, or an IPv4 address, which has the form of one.
fn is_host_name(text: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|it| it.is_ascii_alphanumeric() || it == b'-')
    };
    let is_address_or_name = match text.rsplit('.').next() {
        // A name that ends in a number is an address, or nothing.
        Some(last) if last.bytes().all(|byte| byte.is_ascii_digit()) => {
            text.parse::<Ipv4Addr>().is_ok()
        }
        _ => text.split('.').all(is_label),
    };
    text.len() <= 253 && is_address_or_name
}

/// `KEY=VALUE`; the value may be empty or have further equals signs.
pub(crate) fn label(text: &str) -> std::result::Result<(String, String), String> {
    match text.split_once('=') {
        Some(("", _)) | None => Err("a label is KEY=VALUE".to_owned()),
        Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
    }
}

/// Labels as the map that the contract has. A key given twice is an error.
pub(crate) fn labels(given: &[(String, String)]) -> Result<BTreeMap<String, String>> {
    let mut labels = BTreeMap::new();
    for (key, value) in given {
        if labels.insert(key.clone(), value.clone()).is_some() {
            return Err(Error::Usage(format!("the label {key:?} is given twice")));
        }
    }
    Ok(labels)
}

/// A number of bytes, or of binary units: `67108864`, `64M`, `64MiB`, `10G`.
pub(crate) fn size(text: &str) -> std::result::Result<i64, String> {
    let digits = text.trim_end_matches(|character: char| !character.is_ascii_digit());
    let shift = match &text[digits.len()..] {
        "" => 0,
        "K" | "KiB" => 10,
        "M" | "MiB" => 20,
        "G" | "GiB" => 30,
        "T" | "TiB" => 40,
        _ => return Err("a size is a number of bytes, or ends in K, M, G or T".to_owned()),
    };
    digits
        .parse::<i64>()
        .ok()
        .and_then(|count| count.checked_mul(1 << shift))
        .filter(|count| *count > 0)
        .ok_or_else(|| "a size is a positive number of bytes below 8 EiB".to_owned())
}

/// The size of the memory for parts of uploads. Two of the smallest parts fit in it, and a semaphore can count it.
pub(crate) fn upload_memory(text: &str) -> std::result::Result<i64, String> {
    let size = size(text)?;
    match (16 << 20..1 << 40).contains(&size) {
        true => Ok(size),
        false => Err("uploads need 16M at least, and take less than 1T".to_owned()),
    }
}

/// A limit: a number or a size, zero too, or none.
pub(crate) fn limit(text: &str) -> std::result::Result<Limit, String> {
    let limit = match text {
        "none" => None,
        "0" => Some(0),
        text => match size(text) {
            Ok(limit) => Some(limit),
            Err(_) => return Err("a limit is a number, a size like 10GiB, or none".to_owned()),
        },
    };
    let has_unit = limit.is_some() && !text.ends_with(|last: char| last.is_ascii_digit());
    Ok(Limit { limit, has_unit })
}

/// The most that may be used, if there is a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limit {
    pub limit: Option<i64>,
    /// Whether the limit was given in units of bytes.
    pub has_unit: bool,
}

/// The units of a duration, the largest first, and their lengths in milliseconds.
const UNITS: [(&str, u64); 5] = [
    ("d", 24 * 60 * 60 * 1000),
    ("h", 60 * 60 * 1000),
    ("m", 60 * 1000),
    ("s", 1000),
    ("ms", 1),
];

/// Days, hours, minutes, seconds and milliseconds, in that order: `500ms`, `90s`, `1m30s`, `2d`.
pub(crate) fn duration(text: &str) -> std::result::Result<Duration, String> {
    let wrong = || "a duration is written like 500ms, 90s, 1m30s or 2d".to_owned();
    let mut milliseconds = Some(0u64);
    let (mut rest, mut units) = (text, UNITS.as_slice());
    if text.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, behind) = rest.split_at(digits);
        let letters = behind.len()
            - behind
                .trim_start_matches(|c: char| !c.is_ascii_digit())
                .len();
        let (unit, next) = behind.split_at(letters);
        let known = units.iter().position(|(name, _)| *name == unit);
        let Some(known) = known.filter(|_| digits > 0) else {
            return Err(wrong());
        };
        let part = number.parse::<u64>().ok();
        let part = part.and_then(|count| count.checked_mul(units[known].1));
        milliseconds = milliseconds
            .zip(part)
            .and_then(|(all, part)| all.checked_add(part));
        (rest, units) = (next, &units[known + 1..]);
    }
    milliseconds
        .filter(|milliseconds| *milliseconds < LONGEST)
        .map(Duration::from_millis)
        .ok_or_else(|| "a duration is less than ten years".to_owned())
}

/// Ten years, in milliseconds.
const LONGEST: u64 = 10 * 365 * 24 * 60 * 60 * 1000;

/// How long a lease lasts.
pub(crate) fn lease(text: &str) -> std::result::Result<Duration, String> {
    match duration(text)? {
        length if length < Duration::from_secs(1) => Err("a lease lasts at least 1s".to_owned()),
        length => Ok(length),
    }
}

/// The time for which a presigned URL is good: no storage takes one for more than a week, and clocks differ.
pub(crate) fn redirect_lifetime(text: &str) -> std::result::Result<Duration, String> {
    let (least, most) = (Duration::from_secs(60), Duration::from_secs(12 * 60 * 60));
    match duration(text)? {
        length if (least..=most).contains(&length) => Ok(length),
        _ => Err("a URL lives for 1m at least and 12h at the most".to_owned()),
    }
}

/// A duration that is not zero.
pub(crate) fn positive_duration(text: &str) -> std::result::Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("must be longer than 0s".to_owned()),
        length => Ok(length),
    }
}

/// A duration of the command line, which is less than ten years, as messages have it.
pub(crate) fn proto_duration(duration: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: duration.as_secs().cast_signed(),
        nanos: duration.subsec_nanos().cast_signed(),
    }
}

/// A place to listen: an address, `unix:` and the path of a socket, or `systemd`.
pub(crate) fn listen(text: &str) -> std::result::Result<Listen, String> {
    match text.strip_prefix("unix:") {
        Some("") => Err("a Unix socket is written like unix:/run/desktop-images.sock".to_owned()),
        Some(path) => Ok(Listen::Unix(path.into())),
        None if text == "systemd" => Ok(Listen::Systemd),
        None => listen_address(text).map(Listen::Tcp),
    }
}

/// The address a server listens on: `8080` and `localhost:8080` on loopback, `:8080` on all addresses, or
/// an IP address and a port.
fn listen_address(text: &str) -> std::result::Result<SocketAddr, String> {
    let port = |text: &str| match text.bytes().all(|byte| byte.is_ascii_digit()) {
        true => text.parse::<u16>().ok(),
        false => None,
    };
    let (host, number) = text.rsplit_once(':').unwrap_or(("localhost", text));
    let address = match host {
        "" => port(number).map(|port| SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))),
        host if host.eq_ignore_ascii_case("localhost") => {
            port(number).map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
        }
        _ => text.parse().ok(),
    };
    address.ok_or_else(|| {
        "an address is written like 8080 or localhost:8080 (loopback), :8080 (all addresses), \
         192.0.2.1:8080 or [2001:db8::1]:8080, ports up to 65535; or unix:PATH, or systemd"
            .to_owned()
    })
}

/// A SHA-256 in 64 hexadecimal digits.
pub(crate) fn sha256(text: &str) -> std::result::Result<[u8; 32], String> {
    let wrong = || "a SHA-256 has 64 hexadecimal digits".to_owned();
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(wrong());
    }
    let mut digest = [0; 32];
    for (byte, at) in digest.iter_mut().zip((0..64).step_by(2)) {
        *byte = u8::from_str_radix(&text[at..at + 2], 16).map_err(|_| wrong())?;
    }
    Ok(digest)
}

/// A digest in lower case hexadecimal digits.
pub(crate) fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advertised_addresses_are_hosts_with_ports() {
        for (text, is_one) in [
            ("images.example:443", true),
            ("localhost:8080", true),
            ("10.0.0.1:1", true),
            ("[2001:db8::1]:65535", true),
            ("a-b.example:443", true),
            ("images.example", false),
            ("images.example:", false),
            ("images.example:0", false),
            ("images.example:65536", false),
            ("images.example:+1", false),
            (":443", false),
            ("https://images.example:443", false),
            ("images.example:443/", false),
            ("user@images.example:443", false),
            ("-a.example:443", false),
            ("a..example:443", false),
            ("10.0.0.256:443", false),
            ("10.0.0:443", false),
            ("2001:db8::1:443", false),
            ("[10.0.0.1]:443", false),
            ("*.example:443", false),
        ] {
            assert_eq!(advertised(text).is_ok(), is_one, "{text}");
        }
    }

    #[test]
    fn a_label_is_a_key_and_a_value() {
        let ok = |key: &str, value: &str| Ok((key.to_owned(), value.to_owned()));
        assert_eq!(label("a=b"), ok("a", "b"));
        assert_eq!(label("a="), ok("a", ""));
        assert_eq!(label("a=b=c"), ok("a", "b=c"));
        for text in ["", "a", "=b"] {
            assert!(label(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_key_may_be_given_once() {
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let two = labels(&[pair("b", "1"), pair("a", "2")]).unwrap();
        assert_eq!(two, BTreeMap::from([pair("a", "2"), pair("b", "1")]));
        let error = labels(&[pair("a", "1"), pair("a", "1")]).unwrap_err();
        assert_eq!(error.exit_code(), 2);
    }

    #[test]
    fn sizes_have_binary_units() {
        for (text, wanted) in [
            ("1", 1),
            ("67108864", 64 << 20),
            ("64M", 64 << 20),
            ("64MiB", 64 << 20),
            ("10G", 10 << 30),
            ("4T", 4 << 40),
        ] {
            assert_eq!(size(text), Ok(wanted), "{text}");
        }
        for text in [
            "",
            "M",
            "0",
            "-1",
            "1MB",
            "1.5G",
            "9223372036854775807K",
            "1Gib",
            "1ф",
        ] {
            assert!(size(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_limit_is_a_size_or_none() {
        for (text, limit, has_unit) in [
            ("none", None, false),
            ("0", Some(0), false),
            ("5", Some(5), false),
            ("10GiB", Some(10 << 30), true),
            ("1K", Some(1 << 10), true),
        ] {
            assert_eq!(super::limit(text), Ok(Limit { limit, has_unit }), "{text}");
        }
        for text in ["", "None", "-1", "0G", "many", "1.5", "5 "] {
            assert!(super::limit(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn durations_have_units() {
        for (text, milliseconds) in [
            ("500ms", 500),
            ("1ms", 1),
            ("0s", 0),
            ("90s", 90_000),
            ("1s500ms", 1_500),
            ("10m", 600_000),
            ("1m30s", 90_000),
            ("5m1ms", 300_001),
            ("1h30m", 5_400_000),
            ("2h5s", 7_205_000),
            ("2d", 172_800_000),
            ("1d2h3m4s5ms", 93_784_005),
            ("3649d", 315_273_600_000),
        ] {
            let wanted = Duration::from_millis(milliseconds);
            assert_eq!(duration(text), Ok(wanted), "{text}");
        }
        for text in [
            "",
            "10",
            "-10m",
            "+1s",
            "ten",
            "s",
            "ms",
            "1s2",
            "1s2m",
            "1m2m",
            "1ms2s",
            "1.5s",
            "1 s",
            " 1s",
            "1s ",
            "1S",
            "1sec",
            "1мs",
            "1us",
            "3650d",
            "18446744073709551615h",
            "99999999999999999999s",
        ] {
            assert!(duration(text).is_err(), "{text:?}");
        }
        assert!(lease("999ms").is_err() && lease("1s").is_ok());
        assert!(positive_duration("0ms").is_err() && positive_duration("1ms").is_ok());
    }

    #[test]
    fn a_server_listens_on_loopback_unless_told_otherwise() {
        for (text, wanted) in [
            ("8080", "127.0.0.1:8080"),
            ("0", "127.0.0.1:0"),
            ("localhost:8080", "127.0.0.1:8080"),
            ("LocalHost:1", "127.0.0.1:1"),
            (":8080", "[::]:8080"),
            ("127.0.0.1:65535", "127.0.0.1:65535"),
            ("0.0.0.0:80", "0.0.0.0:80"),
            ("[::1]:8080", "[::1]:8080"),
        ] {
            let wanted: SocketAddr = wanted.parse().unwrap();
            assert_eq!(listen_address(text), Ok(wanted), "{text}");
        }
        for text in [
            "",
            ":",
            "localhost",
            "localhost:",
            "127.0.0.1",
            "::1",
            "65536",
            "+80",
            ":-1",
            "images.example:8080",
            "http://127.0.0.1:8080",
            "nowhere",
            "8080 ",
        ] {
            assert!(listen_address(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn digests_are_hexadecimal() {
        let text = "00ff".repeat(16);
        let digest = sha256(&text).unwrap();
        assert_eq!(hex(&digest), text);
        assert_eq!(sha256(&text.to_uppercase()), Ok(digest));
        for text in [
            "",
            "00",
            &"0g".repeat(32),
            &"+f".repeat(32),
            &"ф".repeat(32),
        ] {
            assert!(sha256(text).is_err(), "{text:?}");
        }
    }
}
