//! Conditions of requests on entity tags (RFC 9110, section 13), for what has one strong tag.

use http::{HeaderMap, HeaderName, header};

/// The comparison of tags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Comparison {
    /// A weak tag is equal to none.
    Strong,
    /// `W/` makes no difference.
    Weak,
}

/// Whether the list of tags of a condition has the tag, or is `*`. A header that is no list of tags has none.
pub(crate) fn names(
    headers: &HeaderMap,
    condition: HeaderName,
    etag: &str,
    how: Comparison,
) -> bool {
    let values = headers.get_all(condition);
    let lines: Option<Vec<&str>> = values.iter().map(|line| line.to_str().ok()).collect();
    // Several lines are one list.
    let list = lines.unwrap_or_default().join(",");
    if list.trim() == "*" {
        return true;
    }
    let tags = tags(&list).unwrap_or_default();
    tags.iter().any(|(is_weak, tag)| {
        let may_be_equal = !is_weak || how == Comparison::Weak;
        may_be_equal && *tag == etag
    })
}

/// Whether `If-Range`, if there is one, still means these bytes. A date never does: this server sends none.
pub(crate) fn is_fresh(headers: &HeaderMap, etag: &str) -> bool {
    let mut values = headers.get_all(header::IF_RANGE).iter();
    match (values.next(), values.next()) {
        (None, _) => true,
        (Some(value), None) => value.as_bytes() == etag.as_bytes(),
        _ => false,
    }
}

/// The tags of a list, quotes included, and whether each is weak; `None` where it is no list.
fn tags(list: &str) -> Option<Vec<(bool, &str)>> {
    let mut tags = Vec::new();
    let mut rest = list.trim_start_matches([' ', '\t', ',']);
    while !rest.is_empty() {
        let opened = rest.strip_prefix("W/");
        let is_weak = opened.is_some();
        let tag = opened.unwrap_or(rest);
        // A tag has no escapes: it ends at the next quote.
        let end = tag.strip_prefix('"')?.find('"')? + 2;
        let (tag, after) = tag.split_at(end);
        tags.push((is_weak, tag));
        let after = after.trim_start_matches([' ', '\t']);
        if !after.is_empty() && !after.starts_with(',') {
            return None;
        }
        rest = after.trim_start_matches([' ', '\t', ',']);
    }
    Some(tags)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAG: &str = "\"abc\"";

    #[test]
    fn a_tag_is_found_in_lists_of_tags_and_nowhere_else() {
        for (values, weak, strong) in [
            (&[][..], false, false),
            (&["*"], true, true),
            (&[" * "], true, true),
            (&["\"abc\""], true, true),
            (&["W/\"abc\""], true, false),
            (&["\"x\", \"abc\""], true, true),
            (&["\"x\" ,, W/\"abc\" ,"], true, false),
            (&["\"x\"", "\"abc\""], true, true),
            // A comma within a tag separates nothing.
            (&["\"x,\"abc\",y\""], false, false),
            (&["\"a, b\", \"abc\""], true, true),
            (&["\", \"abc\", \""], false, false),
            (&["abc"], false, false),
            (&["w/\"abc\""], false, false),
            (&["W/ \"abc\""], false, false),
            (&["\"abc"], false, false),
            (&["\"abc\" \"x\""], false, false),
            (&["\"x\", *"], false, false),
            (&["*, \"x\""], false, false),
            (&[""], false, false),
        ] {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::IF_NONE_MATCH, value.parse().expect("a value"));
            }
            let named = |how| names(&headers, header::IF_NONE_MATCH, TAG, how);
            assert_eq!(named(Comparison::Weak), weak, "{values:?}");
            assert_eq!(named(Comparison::Strong), strong, "{values:?}");
        }
    }

    #[test]
    fn a_range_is_of_these_bytes_only_under_their_own_strong_tag() {
        for (values, fresh) in [
            (&[][..], true),
            (&["\"abc\""], true),
            (&["W/\"abc\""], false),
            (&["\"x\""], false),
            (&["\"abc\", \"x\""], false),
            (&["Sat, 28 Nov 2026 14:00:00 GMT"], false),
            (&["\"abc\"", "\"abc\""], false),
            (&["*"], false),
        ] {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::IF_RANGE, value.parse().expect("a value"));
            }
            assert_eq!(is_fresh(&headers, TAG), fresh, "{values:?}");
        }
    }
}
