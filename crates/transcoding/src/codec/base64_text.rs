//! Bytes as base64: written in the standard alphabet, read in either one, padded or not.

use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};

use super::json_text::JsonText;

const CONFIG: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_decode_padding_mode(DecodePaddingMode::Indifferent)
    .with_decode_allow_trailing_bits(true);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, CONFIG);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, CONFIG);

/// The bytes of a text that is base64.
pub(crate) fn from_base64(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    put_decoded(text, &mut bytes).then_some(bytes)
}

/// Puts the bytes of a text; tells if it is base64.
pub(super) fn put_decoded(text: &str, out: &mut Vec<u8>) -> bool {
    let is_url_safe = text.bytes().any(|byte| matches!(byte, b'-' | b'_'));
    let engine = if is_url_safe { &URL_SAFE } else { &STANDARD };
    engine.decode_vec(text, out).is_ok()
}

/// Puts a string of JSON.
pub(super) fn put_encoded(bytes: &[u8], out: &mut JsonText) {
    out.push(b'"');
    out.put_by(bytes.len().div_ceil(3) * 4, |room| {
        // There is room for exactly this.
        STANDARD.encode_slice(bytes, room).unwrap_or(0)
    });
    out.push(b'"');
}
