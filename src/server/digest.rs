//! Digests of bodies: RFC 9530, and the fields before it (RFC 3230, RFC 1864). What a client states is
//! checked or refused, never passed over.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue};
use md5::Md5;
use sfv::{BareItem, Dictionary, ListEntry, Parser};
use sha2::digest::DynDigest;
use sha2::{Sha256, Sha512};

use crate::contract::rules::Violation;

/// An algorithm that is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Algorithm {
    Sha256,
    Sha512,
    Md5,
}

impl Algorithm {
    const ALL: [Self; 3] = [Self::Sha256, Self::Sha512, Self::Md5];

    fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha-256",
            Self::Sha512 => "sha-512",
            Self::Md5 => "md5",
        }
    }

    /// The algorithm with the name that the fields have in common.
    fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.name() == name)
    }

    fn hasher(self) -> Box<dyn DynDigest + Send> {
        match self {
            Self::Sha256 => Box::new(Sha256::default()),
            Self::Sha512 => Box::new(Sha512::default()),
            Self::Md5 => Box::new(Md5::default()),
        }
    }

    /// Bytes of a digest.
    fn length(self) -> usize {
        self.hasher().output_size()
    }
}

/// A digest that a body must have, and the field that says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stated {
    pub field: &'static str,
    pub algorithm: Algorithm,
    pub value: Vec<u8>,
}

/// The syntax in which a field states digests.
#[derive(Clone, Copy)]
enum Form {
    /// `sha-256=:BASE64:` (RFC 9530).
    Dictionary,
    /// `sha-256=BASE64` (RFC 3230).
    Instance,
    /// `BASE64` of an MD5 (RFC 1864).
    Md5,
}

const FIELDS: [(&str, Form); 4] = [
    ("Content-Digest", Form::Dictionary),
    ("Repr-Digest", Form::Dictionary),
    ("Digest", Form::Instance),
    ("Content-MD5", Form::Md5),
];

/// The first parts of the names of fields in which clients of other services state digests.
const OTHERS: [&str; 12] = [
    "oc-checksum",
    "upload-checksum",
    "x-amz-checksum-",
    "x-amz-content-sha256",
    "x-bz-content-sha1",
    "x-checksum-",
    "x-content-md5",
    "x-content-sha256",
    "x-goog-hash",
    "x-ms-blob-content-md5",
    "x-ms-content-crc64",
    "x-ms-content-md5",
];

/// The digests that header or trailer fields state of a body, or what is wrong with them.
pub(crate) fn stated(fields: &HeaderMap) -> Result<Vec<Stated>, Vec<Violation>> {
    let (mut stated, mut wrong) = (Vec::new(), Vec::new());
    let mut refuse = |field: &str, description: String| {
        wrong.push(Violation {
            field: field.to_owned(),
            description,
        });
    };
    for (field, form) in FIELDS {
        let lines: Vec<&[u8]> = fields
            .get_all(field)
            .iter()
            .map(HeaderValue::as_bytes)
            .collect();
        if lines.is_empty() {
            continue;
        }
        match form.read(&lines) {
            Ok(digests) => {
                stated.extend(digests.into_iter().map(|(algorithm, value)| Stated {
                    field,
                    algorithm,
                    value,
                }));
            }
            Err(description) => refuse(field, description),
        }
    }
    for name in fields.keys().map(HeaderName::as_str) {
        if OTHERS.iter().any(|start| name.starts_with(start)) {
            let right = "is not checked here; state the SHA-256 by Content-Digest: sha-256=:<base64 of 32 bytes>:";
            refuse(name, right.to_owned());
        }
    }
    for (at, one) in stated.iter().enumerate() {
        let other = stated[..at]
            .iter()
            .find(|other| other.algorithm == one.algorithm && other.value != one.value);
        if let Some(other) = other {
            let name = one.algorithm.name();
            refuse(
                one.field,
                format!("states another {name} than {}", other.field),
            );
        }
    }
    match wrong.is_empty() {
        true => Ok(stated),
        false => Err(wrong),
    }
}

impl Form {
    /// The digests in the lines of a field, at least one. Those of other algorithms may stand beside one
    /// that is checked (RFC 9530, section 2).
    fn read(self, lines: &[&[u8]]) -> Result<Vec<(Algorithm, Vec<u8>)>, String> {
        let mut read = Vec::new();
        for line in lines {
            let digests = match self {
                Self::Dictionary => dictionary(line),
                Self::Instance => instance(line),
                Self::Md5 => md5(line).map(|value| vec![(Algorithm::Md5, value)]),
            };
            read.extend(digests.ok_or_else(|| self.expected())?);
        }
        let right = |algorithm: Algorithm, value: &[u8]| value.len() == algorithm.length();
        let weak = |algorithm: Algorithm| algorithm == Algorithm::Md5;
        if read
            .iter()
            .any(|(algorithm, value)| !weak(*algorithm) && !right(*algorithm, value))
        {
            return Err(self.expected());
        }
        read.retain(|(algorithm, value)| right(*algorithm, value));
        if read.is_empty() {
            return Err(match self {
                Self::Md5 => self.expected(),
                _ => format!(
                    "only sha-256, sha-512 and md5 are checked; {}",
                    self.expected()
                ),
            });
        }
        Ok(read)
    }

    fn expected(self) -> String {
        let right = match self {
            Self::Dictionary => "sha-256=:<base64 of 32 bytes>:",
            Self::Instance => "sha-256=<base64 of 32 bytes>",
            Self::Md5 => "<base64 of 16 bytes>",
        };
        format!("expected {right}")
    }
}

type Digests = Vec<(Algorithm, Vec<u8>)>;

fn dictionary(line: &[u8]) -> Option<Digests> {
    let fields: Dictionary = Parser::new(line).parse().ok()?;
    let mut digests = Vec::new();
    for (name, entry) in &fields {
        let Some(algorithm) = Algorithm::named(name.as_str()) else {
            continue;
        };
        match entry {
            ListEntry::Item(item) => match &item.bare_item {
                BareItem::ByteSequence(bytes) => digests.push((algorithm, bytes.clone())),
                _ => return None,
            },
            ListEntry::InnerList(_) => return None,
        }
    }
    Some(digests)
}

fn instance(line: &[u8]) -> Option<Digests> {
    let line = std::str::from_utf8(line).ok()?;
    let mut digests = Vec::new();
    for one in line.split(',').map(str::trim).filter(|one| !one.is_empty()) {
        let (name, value) = one.split_once('=')?;
        let name = name.trim().to_ascii_lowercase();
        // Of the whole before any coding (RFC 5843), and bodies have none here.
        let name = name.strip_prefix("id-").unwrap_or(&name);
        if let Some(algorithm) = Algorithm::named(name) {
            digests.push((algorithm, STANDARD.decode(value.trim()).ok()?));
        }
    }
    Some(digests)
}

fn md5(line: &[u8]) -> Option<Vec<u8>> {
    STANDARD.decode(line.trim_ascii()).ok()
}

/// Compares a body with what was stated of it.
pub(crate) struct Check {
    running: Vec<(Algorithm, Box<dyn DynDigest + Send>)>,
    stated: Vec<Stated>,
}

impl Check {
    /// A check of all digests that are stated, and of those `announced`, but SHA-256, which is computed anyway.
    pub(crate) fn of(stated: Vec<Stated>, announced: &[Algorithm]) -> Self {
        let mut running: Vec<(Algorithm, Box<dyn DynDigest + Send>)> = Vec::new();
        let named = stated.iter().map(|one| one.algorithm);
        for algorithm in named.chain(announced.iter().copied()) {
            if algorithm != Algorithm::Sha256 && running.iter().all(|(it, _)| *it != algorithm) {
                running.push((algorithm, algorithm.hasher()));
            }
        }
        let stated = stated.into_iter();
        Self {
            stated: stated
                .filter(|one| one.algorithm != Algorithm::Sha256)
                .collect(),
            running,
        }
    }

    pub(crate) fn update(&mut self, data: &[u8]) {
        for (_, hasher) in &mut self.running {
            hasher.update(data);
        }
    }

    /// Adds the digests that a trailer states. Fails, in words, with those that cannot be checked.
    pub(crate) fn state(&mut self, stated: Stated) -> Result<(), String> {
        let name = stated.algorithm.name();
        if self.running.iter().all(|(it, _)| *it != stated.algorithm) {
            return Err(format!(
                "{}: {name} is not checked in a trailer; state it in the header, or sha-256 in the trailer",
                stated.field
            ));
        }
        self.stated.push(stated);
        Ok(())
    }

    /// Compares the body with the digests that are stated of it. Fails, in words, with the first that differs.
    pub(crate) fn finish(self) -> Result<(), String> {
        for (algorithm, hasher) in self.running {
            let found = hasher.finalize();
            let wrong = self
                .stated
                .iter()
                .find(|one| one.algorithm == algorithm && *one.value != *found);
            if let Some(Stated { field, value, .. }) = wrong {
                return Err(format!(
                    "{field}: the {} of the body is {}, and {} was stated",
                    algorithm.name(),
                    STANDARD.encode(found),
                    STANDARD.encode(value)
                ));
            }
        }
        Ok(())
    }
}

/// The algorithms of the digests that come behind the body, by `Trailer`, as far as it says so much.
pub(crate) fn announced(headers: &HeaderMap) -> Vec<Algorithm> {
    let trailers = headers.get_all(http::header::TRAILER);
    let is_md5 = |value: &HeaderValue| {
        let value = value.to_str().unwrap_or_default();
        let mut names = value.split(',').map(str::trim);
        names.any(|name| name.eq_ignore_ascii_case("content-md5"))
    };
    match trailers.iter().any(is_md5) {
        true => vec![Algorithm::Md5],
        false => Vec::new(),
    }
}

/// The value of `Repr-Digest`.
pub(crate) fn repr_digest(sha256: &[u8; 32]) -> String {
    format!("sha-256=:{}:", STANDARD.encode(sha256))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            let name: HeaderName = name.parse().expect("a name");
            headers.append(name, value.parse().expect("a value"));
        }
        headers
    }

    #[test]
    fn stated_digests_are_read_or_refused() {
        use Algorithm::{Md5, Sha256, Sha512};
        let encoded = |length: usize| STANDARD.encode(vec![7; length]);
        let (sha256, sha512, md5) = (encoded(32), encoded(64), encoded(16));
        let field = repr_digest(&[7; 32]);
        for name in ["content-digest", "repr-digest"] {
            for (value, expected) in [
                (field.clone(), &[Sha256][..]),
                (format!("sha-512=:{sha512}:"), &[Sha512]),
                (format!("md5=:{md5}:"), &[Md5]),
                (format!("sha-512=:{sha512}:, {field}"), &[Sha512, Sha256]),
                // What is no digest of its algorithm may stand beside one that is.
                (format!("md5=:AAAA:, {field}"), &[Sha256]),
                (format!("adler=:AAAA:, {field};q=1"), &[Sha256]),
                ("".to_owned(), &[]),
                ("x".to_owned(), &[]),
                ("sha-256".to_owned(), &[]),
                ("sha-256=1".to_owned(), &[]),
                ("sha-256=:AAAA:".to_owned(), &[]),
                ("sha-256=:!:".to_owned(), &[]),
                (format!("sha-256={sha256}"), &[]),
                (format!("sha-256=:AAAA:, sha-512=:{sha512}:"), &[]),
                ("md5=:AAAA:".to_owned(), &[]),
                ("sha=:AAAA:".to_owned(), &[]),
            ] {
                let read = stated(&headers(&[(name, &value)]));
                let read = read.map(|all| all.iter().map(|one| one.algorithm).collect::<Vec<_>>());
                match expected {
                    [] => assert!(read.is_err(), "{name}: {value}: {read:?}"),
                    expected => assert_eq!(read.as_deref(), Ok(expected), "{name}: {value}"),
                }
            }
        }
        for (name, value, right) in [
            ("digest", format!("SHA-256={sha256}"), true),
            ("digest", format!("sha-256={sha256},unixsum=30637"), true),
            ("digest", format!("id-sha-512={sha512}, MD5={md5}"), true),
            ("digest", "sha-256=AAAA".to_owned(), false),
            ("digest", field.clone(), false),
            ("digest", "unixsum=30637".to_owned(), false),
            ("digest", "x".to_owned(), false),
            ("digest", String::new(), false),
            ("content-md5", md5.clone(), true),
            ("content-md5", "AAAA".to_owned(), false),
            ("content-md5", "x".to_owned(), false),
            ("content-md5", String::new(), false),
            ("x-amz-checksum-sha256", sha256.clone(), false),
            ("x-goog-hash", format!("md5={md5}"), false),
            ("x-ms-blob-content-md5", md5.clone(), false),
            ("x-ms-version", "1".to_owned(), true),
            ("want-repr-digest", "sha-256=1".to_owned(), true),
        ] {
            let read = stated(&headers(&[(name, &value)]));
            assert_eq!(read.is_ok(), right, "{name}: {value}: {read:?}");
        }
        let other = repr_digest(&[8; 32]);
        let same = headers(&[("content-digest", &field), ("repr-digest", &field)]);
        assert_eq!(stated(&same).map(|all| all.len()), Ok(2));
        for fields in [
            [("content-digest", &field), ("repr-digest", &other)],
            [("content-digest", &field), ("content-digest", &other)],
        ] {
            let wrong = stated(&headers(
                &fields.map(|(name, value)| (name, value.as_str())),
            ));
            let wrong = wrong.expect_err("they differ");
            assert!(
                wrong[0].description.contains("another sha-256"),
                "{wrong:?}"
            );
        }
    }

    #[test]
    fn a_body_is_compared_with_all_that_is_stated() {
        let of = |algorithm: Algorithm, data: &[u8]| {
            let mut hasher = algorithm.hasher();
            hasher.update(data);
            Stated {
                field: "Digest",
                algorithm,
                value: hasher.finalize().into_vec(),
            }
        };
        for algorithm in [Algorithm::Sha512, Algorithm::Md5] {
            for (data, right) in [(b"abc", true), (b"abd", false)] {
                let mut check = Check::of(vec![of(algorithm, b"abc")], &[]);
                check.update(&data[..1]);
                check.update(&data[1..]);
                assert_eq!(check.finish().is_ok(), right, "{algorithm:?}");
            }
        }
        let mut check = Check::of(Vec::new(), &[Algorithm::Md5]);
        check.update(b"abc");
        assert!(check.state(of(Algorithm::Sha512, b"abc")).is_err());
        check.state(of(Algorithm::Md5, b"abd")).expect("announced");
        let wrong = check.finish().expect_err("another");
        assert!(wrong.contains("kAFQmDzST7DWlj99KOF/cg=="), "{wrong}");
    }
}
