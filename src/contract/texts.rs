//! Texts that several modules write: what a caller sent, cut to a length that can be sent back, and sizes.

use std::borrow::Cow;

/// The most characters of a value that a caller sent which are repeated to it.
const LONGEST_ECHO: usize = 64;
/// The same for paths and the names of types, which are longer.
const LONGEST_PATH: usize = 200;

/// A value that a caller sent, cut to a length that can be sent back.
pub fn shown(value: &str) -> Cow<'_, str> {
    cut(value, LONGEST_ECHO)
}

/// A path or the name of a type that a caller sent, cut likewise.
pub fn shown_path(path: &str) -> Cow<'_, str> {
    cut(path, LONGEST_PATH)
}

fn cut(text: &str, characters: usize) -> Cow<'_, str> {
    match text.char_indices().nth(characters) {
        Some((end, _)) => Cow::Owned(format!("{}…", &text[..end])),
        None => Cow::Borrowed(text),
    }
}

/// A number of bytes in the largest binary unit that leaves it at least 1: `512 B`, `1.5 GiB`.
pub fn bytes(count: impl Into<i128>) -> String {
    let count = count.into();
    let sign = if count < 0 { "-" } else { "" };
    let count = u64::try_from(count.unsigned_abs()).unwrap_or(u64::MAX);
    let unit = Unit::of(count);
    format!("{sign}{} {}", unit.count(count), unit.name)
}

/// Bytes done and in all, in the largest binary unit that leaves the total at least 1: `1.5 of 2 MiB`.
pub fn bytes_of(done: u64, total: u64) -> String {
    let unit = Unit::of(total);
    let (done, total) = (unit.count(done), unit.count(total));
    format!("{done} of {total} {}", unit.name)
}

struct Unit {
    name: &'static str,
    bytes: f64,
}

impl Unit {
    /// The largest one that leaves a count at least 1.
    fn of(count: u64) -> Self {
        let units = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
        let (name, shift) = units
            .into_iter()
            .find(|(_, shift)| count >> shift > 0)
            .unwrap_or(("B", 0));
        Self {
            name,
            bytes: (1u64 << shift) as f64,
        }
    }

    /// One decimal where there is one to show.
    fn count(&self, bytes: u64) -> String {
        let text = format!("{:.1}", bytes as f64 / self.bytes);
        text.strip_suffix(".0").unwrap_or(&text).to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_callers_are_cut_between_characters() {
        assert_eq!(shown("short"), "short");
        assert_eq!(shown(&"я".repeat(LONGEST_ECHO)), "я".repeat(LONGEST_ECHO));
        let long = format!("{}…", "я".repeat(LONGEST_ECHO));
        assert_eq!(shown(&"я".repeat(LONGEST_ECHO + 1)), long);
    }

    #[test]
    fn sizes_are_readable() {
        for (count, wanted) in [
            (0_i64, "0 B"),
            (-1, "-1 B"),
            (1023, "1023 B"),
            (1024, "1 KiB"),
            (64 << 20, "64 MiB"),
            (3 << 29, "1.5 GiB"),
            (4 << 40, "4 TiB"),
            (8 << 50, "8192 TiB"),
        ] {
            assert_eq!(bytes(count), wanted);
        }
    }
}
