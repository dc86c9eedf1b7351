//! The file name that a download proposes.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// Characters that `filename*` keeps as they are (RFC 8187, `attr-char`).
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// `attachment` with a name that every client understands, and the true one (RFC 6266).
///
/// The name always ends with the extension of the format: QEMU takes a file for a DMG image by its extension alone.
/// Neither name has a path in it, nor a colon, before which QEMU reads a protocol (`json:`, `nbd:`).
pub(crate) fn content_disposition(image_name: &str, extension: &str) -> String {
    let name = match image_name.rsplit_once('.') {
        Some((_, written)) if written.eq_ignore_ascii_case(extension) => image_name.to_owned(),
        _ => format!("{image_name}.{extension}"),
    };
    let is_special = |c: char| matches!(c, '/' | '\\' | ':') || c.is_control() || is_direction(c);
    let name = name.replace(is_special, "_");
    let plain = name.replace(
        |c: char| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ' ')),
        "_",
    );
    let escaped = utf8_percent_encode(&name, ESCAPED);
    format!("attachment; filename=\"{plain}\"; filename*=UTF-8''{escaped}")
}

/// Whether a character turns the direction of text around, so that a name does not show what it ends with.
fn is_direction(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}
