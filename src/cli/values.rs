//! The forms of values on the command line: labels, sizes, durations, digests.

use std::collections::BTreeMap;
use std::time::Duration;

use super::errors::{Error, Result};

/// `KEY=VALUE`; the value may be empty or have further equals signs.
pub fn label(text: &str) -> std::result::Result<(String, String), String> {
    match text.split_once('=') {
        Some(("", _)) | None => Err("a label is KEY=VALUE".to_owned()),
        Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
    }
}

/// Labels as the map that the contract has. A key given twice is an error.
pub fn labels(given: &[(String, String)]) -> Result<BTreeMap<String, String>> {
    let mut labels = BTreeMap::new();
    for (key, value) in given {
        if labels.insert(key.clone(), value.clone()).is_some() {
            return Err(Error::Usage(format!("the label {key:?} is given twice")));
        }
    }
    Ok(labels)
}

/// A number of bytes, or of binary units: `67108864`, `64M`, `64MiB`, `10G`.
pub fn size(text: &str) -> std::result::Result<i64, String> {
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

/// A limit: a number or a size, zero too, or none.
pub fn limit(text: &str) -> std::result::Result<Limit, String> {
    match text {
        "none" => Ok(Limit(None)),
        "0" => Ok(Limit(Some(0))),
        text => match size(text) {
            Ok(limit) => Ok(Limit(Some(limit))),
            Err(_) => Err("a limit is a number, a size like 10GiB, or none".to_owned()),
        },
    }
}

/// The most that may be used, if there is a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit(pub Option<i64>);

/// Hours, minutes and seconds, in that order: `90s`, `10m`, `1h30m`.
pub fn duration(text: &str) -> std::result::Result<Duration, String> {
    let mut rest = text;
    let mut seconds = Some(0u64);
    for (unit, length) in [('h', 3600), ('m', 60), ('s', 1)] {
        if let Some((digits, after)) = rest.split_once(unit) {
            let part = match digits.bytes().all(|byte| byte.is_ascii_digit()) {
                true => digits.parse::<u64>().ok(),
                false => None,
            };
            let part = part.and_then(|count| count.checked_mul(length));
            seconds = seconds
                .zip(part)
                .and_then(|(all, part)| all.checked_add(part));
            rest = after;
        }
    }
    match seconds {
        Some(LONGEST..) => Err("a duration is less than ten years".to_owned()),
        Some(seconds) if rest.is_empty() && !text.is_empty() => Ok(Duration::from_secs(seconds)),
        _ => Err("a duration is written like 90s, 10m or 1h30m".to_owned()),
    }
}

/// Ten years, in seconds.
const LONGEST: u64 = 10 * 365 * 24 * 60 * 60;

/// How long a lease lasts.
pub fn lease(text: &str) -> std::result::Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("a lease lasts at least 1s".to_owned()),
        length => Ok(length),
    }
}

/// A SHA-256 in 64 hexadecimal digits.
pub fn sha256(text: &str) -> std::result::Result<[u8; 32], String> {
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
pub fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

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
        for (text, wanted) in [
            ("none", None),
            ("0", Some(0)),
            ("5", Some(5)),
            ("10GiB", Some(10 << 30)),
        ] {
            assert_eq!(limit(text), Ok(Limit(wanted)), "{text}");
        }
        for text in ["", "None", "-1", "0G", "many"] {
            assert!(limit(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn durations_have_units() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("10m"), Ok(Duration::from_secs(600)));
        assert_eq!(duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(duration("2h5s"), Ok(Duration::from_secs(7205)));
        for text in [
            "",
            "10",
            "-10m",
            "+1s",
            "ten",
            "s",
            "1s2",
            "1s2m",
            "1m2m",
            "18446744073709551615h",
        ] {
            assert!(duration(text).is_err(), "{text:?}");
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
