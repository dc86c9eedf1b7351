//! Random ids and secrets.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Begins every token, so that scanners of secrets recognise one.
const TOKEN_PREFIX: &str = "dit_";
const ID_CHARACTERS: usize = 12;
const ALPHABET: &[u8; 32] = b"0123456789abcdefghijklmnopqrstuv";

/// A fresh id: a prefix, then 60 random bits.
pub(super) fn id(prefix: &str) -> String {
    let bits: u64 = rand::random();
    let characters = (0..ID_CHARACTERS)
        .map(|position| char::from(ALPHABET[(bits >> (5 * position)) as usize & 31]));
    prefix.chars().chain(characters).collect()
}

/// 256 random bits, in 43 characters that need no quoting.
pub(super) fn secret() -> String {
    URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>())
}

/// The text of a token: `dit_<id>_<secret>`.
pub(super) fn token(id: &str, secret: &str) -> String {
    format!("{TOKEN_PREFIX}{id}_{secret}")
}

/// The id in the text of a token, if it is one of this server by its form.
pub(super) fn token_id(text: &str) -> Option<&str> {
    let (id, secret) = text.strip_prefix(TOKEN_PREFIX)?.split_once('_')?;
    let is_id = id.len() == ID_CHARACTERS && id.bytes().all(|byte| ALPHABET.contains(&byte));
    (is_id && secret.len() == 43).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_names_its_id() {
        let (id, secret) = (id(""), secret());
        let text = token(&id, &secret);
        assert_eq!(token_id(&text), Some(&*id), "{text}");
        assert_eq!(text.len(), 4 + 12 + 1 + 43);
        for wrong in ["", "dit_", "dit_abc_def", &text[1..], &text[..59], "a.b.c"] {
            assert_eq!(token_id(wrong), None, "{wrong}");
        }
        assert_ne!(super::id("ajk"), super::id("ajk"));
    }
}
