//! Digest fields (RFC 9530), in the one algorithm of this server: SHA-256.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue};
use sfv::{BareItem, Dictionary, ListEntry, Parser};

const CONTENT_DIGEST: HeaderName = HeaderName::from_static("content-digest");
const SHA_256: &str = "sha-256";

/// The SHA-256 that `Content-Digest` announces; none without the field. The error says what is
/// wrong with it.
pub fn content_sha256(headers: &HeaderMap) -> Result<Option<[u8; 32]>, &'static str> {
    const EXPECTED: &str = "expected sha-256=:<base64 of 32 bytes>:";
    let lines: Vec<&[u8]> = headers
        .get_all(CONTENT_DIGEST)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    if lines.is_empty() {
        return Ok(None);
    }
    let fields: Dictionary = Parser::new(&lines.join(&b", "[..]))
        .parse()
        .map_err(|_| EXPECTED)?;
    match fields.get(SHA_256) {
        Some(ListEntry::Item(item)) => match &item.bare_item {
            BareItem::ByteSequence(bytes) => {
                let digest = bytes.as_slice().try_into().map_err(|_| EXPECTED)?;
                Ok(Some(digest))
            }
            _ => Err(EXPECTED),
        },
        // Whoever sends a digest relies on its being checked.
        _ => Err("only sha-256 is checked; expected sha-256=:<base64 of 32 bytes>:"),
    }
}

/// The value of `Repr-Digest`.
pub fn repr_digest(sha256: &[u8; 32]) -> String {
    format!("{SHA_256}=:{}:", STANDARD.encode(sha256))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests() {
        let announced = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_DIGEST, HeaderValue::from_str(value).unwrap());
            content_sha256(&headers)
        };
        assert_eq!(content_sha256(&HeaderMap::new()), Ok(None));
        let digest = [7; 32];
        let field = repr_digest(&digest);
        assert_eq!(announced(&field), Ok(Some(digest)));
        assert_eq!(announced(&format!("md5=:AAAA:, {field}")), Ok(Some(digest)));
        for wrong in [
            "",
            "x",
            "sha-256",
            "sha-256=1",
            "sha-256=:AAAA:",
            "sha-256=:!:",
            "md5=:AAAA:",
        ] {
            assert!(announced(wrong).is_err(), "{wrong}");
        }
    }
}
