//! Texts of a request in errors: what is repeated to the client has a bearable length.

/// The longest part of an error that repeats what the client sent, in bytes.
const MAX_REPEATED: usize = 300;

/// A text that repeats what the client sent, cut to a bearable length.
pub(crate) fn shortened(text: &str) -> String {
    if text.len() <= MAX_REPEATED {
        return text.to_owned();
    }
    let ends = text.char_indices().map(|(at, _)| at);
    let end = ends.take_while(|at| *at <= MAX_REPEATED).last();
    format!("{}…", &text[..end.unwrap_or_default()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_cut_between_characters() {
        let short = shortened(&"я".repeat(4000));
        assert!(short.len() <= MAX_REPEATED + "…".len(), "{}", short.len());
        assert!(short.ends_with("я…"));
        assert_eq!(shortened("short"), "short");
    }
}
