//! `Idempotency-Key`, in gRPC metadata and in HTTP headers.

use sfv::{BareItem, Item, Parser};
use tonic::Status;
use tonic::metadata::MetadataMap;
use uuid::Uuid;

use super::status;

const NAME: &str = "idempotency-key";
const FIELD: &str = "Idempotency-Key";

/// The lengths of a UUID with and without its hyphens.
const LENGTHS: [usize; 2] = [36, 32];

/// The key of a request, if it has one: a UUID in letters of any case, with hyphens or without, which are
/// the same key. It may stand in double quotes, as draft-ietf-httpapi-idempotency-key-header has it (a
/// string of RFC 9651, with parameters that mean nothing). Several keys are none, equal ones too.
pub(crate) fn of(metadata: &MetadataMap) -> Result<Option<Uuid>, Status> {
    let mut keys = metadata.get_all(NAME).iter();
    let Some(key) = keys.next() else {
        return Ok(None);
    };
    if keys.next().is_some() {
        return Err(status::invalid_field(
            FIELD,
            "must be one UUID, and was sent more than once",
        ));
    }
    let text = key.to_str().unwrap_or_default();
    match parsed(text.trim()) {
        Some(key) => Ok(Some(key)),
        None => Err(status::invalid_field(
            FIELD,
            "must be a UUID as in 123e4567-e89b-12d3-a456-426614174000, in double quotes or without, and \
             nothing else",
        )),
    }
}

fn parsed(text: &str) -> Option<Uuid> {
    if !text.starts_with('"') {
        return uuid(text);
    }
    let item: Item = Parser::new(text).parse().ok()?;
    match item.bare_item {
        BareItem::String(text) => uuid(text.as_str()),
        _ => None,
    }
}

/// Neither in braces nor as a URN.
fn uuid(text: &str) -> Option<Uuid> {
    let is_plain = LENGTHS.contains(&text.len());
    Uuid::try_parse(text).ok().filter(|_| is_plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "123e4567-e89b-12d3-a456-426614174abc";

    fn metadata(values: &[&str]) -> MetadataMap {
        let mut metadata = MetadataMap::new();
        for value in values {
            metadata.append(NAME, value.parse().expect("a value"));
        }
        metadata
    }

    #[test]
    fn one_key_has_several_spellings() {
        assert_eq!(of(&metadata(&[])).expect("no key"), None);
        let key = Uuid::try_parse(KEY).expect("a UUID");
        let (upper, bare) = (KEY.to_uppercase(), KEY.replace('-', ""));
        for text in [KEY, &upper, &bare] {
            for spelling in [
                text.to_owned(),
                format!("\"{text}\""),
                format!("\"{text}\";a=1;b"),
                format!(" {text} "),
            ] {
                let read = of(&metadata(&[&spelling])).expect("a key");
                assert_eq!(read, Some(key), "{spelling}");
            }
        }
    }

    #[test]
    fn what_is_no_key_or_several_is_refused() {
        let (braced, urn) = (format!("{{{KEY}}}"), format!("urn:uuid:{KEY}"));
        let quoted = format!("\"{KEY}\"");
        for values in [
            &[""][..],
            &["x"],
            &[&braced],
            &[&urn],
            &[&format!("\"{braced}\"")],
            &[&format!("\"{urn}\"")],
            &[&format!("\"{KEY}")],
            &[&format!("{KEY}\"")],
            &[&format!("'{KEY}'")],
            &[&format!("{KEY}, {KEY}")],
            &[&format!("{quoted}, {quoted}")],
            &[&format!("{KEY};a=1")],
            &[&KEY[1..]],
            &[&KEY.replace('-', "_")],
            &[&format!(":{KEY}:")],
            &[KEY, KEY],
            &[KEY, "00000000-0000-0000-0000-000000000000"],
        ] {
            let refused = of(&metadata(values)).expect_err("no key");
            assert_eq!(refused.code(), tonic::Code::InvalidArgument, "{values:?}");
            let words = refused.message();
            assert!(words.contains("Idempotency-Key: must be"), "{words}");
            assert!(words.contains("UUID"), "{words}");
        }
    }
}
