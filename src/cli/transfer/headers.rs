//! The digest and the file name in the headers of a download.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::percent_decode_str;

/// The longest file name that common file systems take, in bytes.
const LONGEST_NAME: usize = 200;

/// Suffixes by which programs know the format of an image whatever is in it: QEMU does for the first, other tools for
/// the rest. The server sends none of these formats.
const FORMAT_SUFFIXES: [&str; 8] = [
    ".dmg", ".vhd", ".vhdx", ".vmdk", ".vdi", ".hdd", ".cloop", ".iso",
];

/// The value of a Content-Digest or Repr-Digest header (RFC 9530).
pub(crate) fn digest_header(sha256: &[u8; 32]) -> String {
    format!("sha-256=:{}:", STANDARD.encode(sha256))
}

/// The SHA-256 in a digest header, which may have digests of other kinds too (RFC 9530).
pub(crate) fn sha256_of_header(value: &str) -> Option<[u8; 32]> {
    value.split(',').find_map(|member| {
        let text = member.trim().strip_prefix("sha-256=:")?.split_once(':')?.0;
        STANDARD.decode(text).ok()?.try_into().ok()
    })
}

/// The file name that a Content-Disposition header proposes (RFC 6266), as a bare name that is
/// safe in the present folder: no path, nothing hidden, no control characters.
pub(crate) fn file_name(disposition: &str) -> Option<String> {
    let mut plain = None;
    for (name, value) in parameters(disposition) {
        match name.to_ascii_lowercase().as_str() {
            "filename*" => {
                if let Some(name) = extended(&value).and_then(|name| bare(&name)) {
                    return Some(name);
                }
            }
            "filename" if plain.is_none() => plain = bare(&value),
            _ => {}
        }
    }
    plain
}

/// A name without all that leads elsewhere or hides the file, and which no program takes for more than a name; nothing
/// where nothing is left.
pub(crate) fn bare(name: &str) -> Option<String> {
    let last = name.rsplit(['/', '\\']).next().unwrap_or_default();
    // QEMU reads what comes before a colon as a protocol, as in `json:` and `nbd:`.
    let clean: String = last
        .chars()
        .filter(|character| !character.is_control())
        .map(|character| if character == ':' { '_' } else { character })
        .collect();
    let mut clean = clean.trim().trim_start_matches('.').to_owned();
    while clean.len() > LONGEST_NAME {
        clean.pop();
    }
    let clean = clean.trim_end();
    if clean.is_empty() {
        return None;
    }
    let lower = clean.to_ascii_lowercase();
    let tells_format = FORMAT_SUFFIXES.iter().any(|suffix| lower.ends_with(suffix));
    Some(match tells_format {
        true => format!("{clean}.img"),
        false => clean.to_owned(),
    })
}

/// `UTF-8''…` of RFC 8187.
fn extended(value: &str) -> Option<String> {
    let (charset, rest) = value.split_once('\'')?;
    let (_language, text) = rest.split_once('\'')?;
    if !charset.eq_ignore_ascii_case("utf-8") {
        return None;
    }
    let text = percent_decode_str(text).decode_utf8().ok()?;
    Some(text.into_owned())
}

/// The parameters after the type of a disposition, with the quotes of their values removed.
fn parameters(disposition: &str) -> Vec<(&str, String)> {
    let mut found = Vec::new();
    let mut rest = disposition.split_once(';').map_or("", |(_, rest)| rest);
    while let Some((name, after)) = rest.split_once('=') {
        let after = after.trim_start();
        let (value, next) = match after.strip_prefix('"') {
            Some(quoted) => unquoted(quoted),
            None => {
                let (value, next) = after.split_once(';').unwrap_or((after, ""));
                (value.trim().to_owned(), next)
            }
        };
        found.push((name.trim(), value));
        rest = next.trim_start().trim_start_matches(';');
    }
    found
}

/// The text up to the closing quote, and what comes after it.
fn unquoted(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return (value, &text[at + 1..]),
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            other => value.push(other),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_digest_header_says_what_it_was_made_of() {
        let digest = std::array::from_fn(|at| at as u8);
        let header = digest_header(&digest);
        assert_eq!(sha256_of_header(&header), Some(digest));
        let several = format!("md5=:AAAA:, {header};a=b, sha-512=:AAAA:");
        assert_eq!(sha256_of_header(&several), Some(digest));
        for other in [
            "",
            "sha-256",
            "sha-256=::",
            "sha-256=:AAAA:",
            "sha-256=:!:",
            "sha-512=:AAAA:",
        ] {
            assert_eq!(sha256_of_header(other), None, "{other:?}");
        }
    }

    #[test]
    fn a_file_name_is_a_bare_name() {
        for (disposition, wanted) in [
            ("attachment; filename=\"windows.qcow2\"", "windows.qcow2"),
            ("attachment; filename=windows.qcow2", "windows.qcow2"),
            ("attachment;filename=a.img;size=5", "a.img"),
            ("attachment; FILENAME=\"a.img\"; size=5", "a.img"),
            (r#"attachment; filename="a\"b;c.img""#, "a\"b;c.img"),
            (
                "attachment; filename=\"x.img\"; filename*=UTF-8''%D0%BE%D1%81.img",
                "ос.img",
            ),
            (
                "attachment; filename*=utf-8'en'a%20b.img; filename=\"x.img\"",
                "a b.img",
            ),
            ("attachment; filename=\"../../etc/passwd\"", "passwd"),
            (r#"attachment; filename="C:\\Windows\\a.img""#, "a.img"),
            ("attachment; filename*=UTF-8''..%2F..%2F.bashrc", "bashrc"),
            ("attachment; filename=\"a\u{7}\u{1b}[2J.img\"", "a[2J.img"),
            ("attachment; filename=\".profile\"", "profile"),
            ("attachment; filename*=UTF-8''%FF; filename=a.img", "a.img"),
            ("attachment; filename*=UTF-8''%2F; filename=a.img", "a.img"),
            ("attachment; filename=\"unclosed.img", "unclosed.img"),
            ("attachment; filename=\"disk.dmg\"", "disk.dmg.img"),
            ("attachment; filename=\"disk.VHD \"", "disk.VHD.img"),
            (
                "attachment; filename*=UTF-8''json%3A%7B%7D.img",
                "json_{}.img",
            ),
            ("attachment; filename=\"nbd:host:1\"", "nbd_host_1"),
        ] {
            assert_eq!(
                file_name(disposition).as_deref(),
                Some(wanted),
                "{disposition}"
            );
        }
        for disposition in [
            "",
            "attachment",
            "attachment; filename=",
            "attachment; filename=\"..\"",
            "attachment; filename=\"a/\"",
            "attachment; size=5",
            "attachment; filename*=UTF-8''",
        ] {
            assert_eq!(file_name(disposition), None, "{disposition}");
        }
    }

    proptest! {
        #[test]
        fn whatever_the_server_says_a_name_stays_in_the_folder(disposition in "attachment; filename\\*?=\\PC*|\\PC*") {
            if let Some(name) = file_name(&disposition) {
                let path = std::path::Path::new(&name);
                prop_assert_eq!(path.file_name(), Some(path.as_os_str()));
                prop_assert!(!name.starts_with('.'));
                prop_assert!(name.len() <= LONGEST_NAME + ".img".len());
                prop_assert!(!FORMAT_SUFFIXES.iter().any(|suffix| name.ends_with(suffix)));
                prop_assert!(!name.contains(':'));
                prop_assert!(!name.chars().any(char::is_control));
            }
        }
    }
}
