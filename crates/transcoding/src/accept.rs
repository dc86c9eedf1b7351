//! Which form of a reply a client takes, by its `Accept` (RFC 9110, section 12.5.1).

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};

use super::rejection::Rejection;

/// JSON, the form of every reply that is no stream, and of every error.
pub(crate) const JSON: &str = "application/json";

/// How a stream of messages is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StreamForm {
    /// One JSON array, an element for each message.
    Array,
    /// A line of JSON for each message.
    Lines,
    /// A server-sent event for each message.
    Events,
}

impl StreamForm {
    /// In the order in which they are preferred where a client has no preference.
    const ALL: [Self; 3] = [Self::Array, Self::Lines, Self::Events];

    /// The media type of the reply.
    pub(crate) fn media_type(self) -> &'static str {
        match self {
            Self::Array => JSON,
            Self::Lines => "application/x-ndjson",
            Self::Events => "text/event-stream",
        }
    }

    /// Bytes that may stand between any two elements and mean nothing.
    pub(crate) fn heartbeat(self) -> Option<Bytes> {
        match self {
            Self::Array => Some(Bytes::from_static(b" ")),
            Self::Lines => None,
            Self::Events => Some(Bytes::from_static(b": heartbeat\n\n")),
        }
    }
}

/// Refuses clients that take no JSON.
pub(crate) fn check_json(headers: &HeaderMap) -> Result<(), Rejection> {
    match quality(headers, JSON) {
        0 => Err(Rejection::NotAcceptable(JSON.to_owned())),
        _ => Ok(()),
    }
}

/// The form that the client likes best.
pub(crate) fn stream_form(headers: &HeaderMap) -> Result<StreamForm, Rejection> {
    let mut best = None;
    for form in StreamForm::ALL {
        let quality = quality(headers, form.media_type());
        if quality > best.map_or(0, |(_, best)| best) {
            best = Some((form, quality));
        }
    }
    best.map(|(form, _)| form).ok_or_else(|| {
        Rejection::NotAcceptable(StreamForm::ALL.map(StreamForm::media_type).join(", "))
    })
}

/// How much a media type is wanted, in thousandths: by the most exact range that it is in. What is no
/// range is passed over. No `Accept` at all takes everything.
fn quality(headers: &HeaderMap, media_type: &str) -> u16 {
    const ALL: u16 = 1000;
    let accept = headers.get_all(header::ACCEPT);
    let mut values = accept.iter();
    match (values.next(), values.next()) {
        (None, _) => return ALL,
        (Some(only), None) if only == "*/*" => return ALL,
        _ => {}
    }
    let (kind, subtype) = media_type.split_once('/').unwrap_or((media_type, ""));
    let mut ranges = accept
        .iter()
        .filter_map(|value| HeaderValue::to_str(value).ok())
        .flat_map(|value| value.split(','))
        .filter(|range| !range.trim().is_empty())
        .peekable();
    if ranges.peek().is_none() {
        return ALL;
    }
    let mut best = (0, 0);
    for range in ranges {
        let mut parts = range.split(';').map(str::trim);
        let Some((range_kind, range_subtype)) =
            parts.next().and_then(|range| range.split_once('/'))
        else {
            continue;
        };
        let exactness = if range_kind.eq_ignore_ascii_case(kind) {
            match range_subtype {
                "*" => 2,
                _ if range_subtype.eq_ignore_ascii_case(subtype) => 3,
                _ => continue,
            }
        } else if (range_kind, range_subtype) == ("*", "*") {
            1
        } else {
            continue;
        };
        let weight = parts.find_map(|parameter| {
            let (name, value) = parameter.split_once('=')?;
            name.eq_ignore_ascii_case("q").then(|| thousandths(value))
        });
        best = best.max((exactness, weight.flatten().unwrap_or(ALL)));
    }
    best.1
}

/// A weight in thousandths (RFC 9110, section 12.4.2): `0` or `1`, and at most three digits behind a point.
fn thousandths(text: &str) -> Option<u16> {
    let (whole, behind) = text.split_once('.').unwrap_or((text, ""));
    let is_weight = behind.len() <= 3 && behind.bytes().all(|digit| digit.is_ascii_digit());
    let behind: u16 = format!("{behind:0<3}").parse().ok().filter(|_| is_weight)?;
    match whole {
        "0" => Some(behind),
        "1" if behind == 0 => Some(1000),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_have_three_digits_at_the_most() {
        for (text, weight) in [
            ("0", Some(0)),
            ("0.", Some(0)),
            ("0.5", Some(500)),
            ("0.001", Some(1)),
            ("0.25", Some(250)),
            ("1", Some(1000)),
            ("1.000", Some(1000)),
            ("1.001", None),
            ("0.0001", None),
            ("2", None),
            ("inf", None),
            ("NaN", None),
            ("1e0", None),
            ("-0", None),
            ("+1", None),
            (".5", None),
            ("", None),
        ] {
            assert_eq!(thousandths(text), weight, "{text}");
        }
    }

    fn headers(accept: &[&str]) -> HeaderMap {
        let values = accept.iter().map(|value| value.parse().expect("a value"));
        values.map(|value| (header::ACCEPT, value)).collect()
    }

    #[test]
    fn the_form_a_client_likes_best_is_chosen() {
        use StreamForm::{Array, Events, Lines};
        let cases: &[(&[&str], Option<StreamForm>)] = &[
            (&[], Some(Array)),
            (&[""], Some(Array)),
            (&["*/*"], Some(Array)),
            (&["application/*"], Some(Array)),
            (&["text/*"], Some(Events)),
            (&["text/event-stream"], Some(Events)),
            (&["Application/X-NDJSON"], Some(Lines)),
            (
                &["application/json", "text/event-stream;q=0.9"],
                Some(Array),
            ),
            (
                &["application/json;q=0.5, text/event-stream;q=0.9"],
                Some(Events),
            ),
            (&["*/*;q=0.1, application/x-ndjson"], Some(Lines)),
            (&["*/*, application/json;q=0"], Some(Lines)),
            (&["application/json; charset=utf-8"], Some(Array)),
            (&["application/x-ndjson; Q=0.3", "*/*;q=0.2"], Some(Lines)),
            (&["nonsense, */*;q=x"], Some(Array)),
            (&["text/html"], None),
            (&["nonsense"], None),
            (&["*/*;q=0"], None),
            (
                &["text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"],
                Some(Array),
            ),
        ];
        for (accept, expected) in cases {
            let form = stream_form(&headers(accept)).ok();
            assert_eq!(form, *expected, "{accept:?}");
        }
    }

    #[test]
    fn json_is_refused_to_those_who_do_not_take_it() {
        for (accept, taken) in [
            ("application/json", true),
            ("application/*", true),
            ("*/*", true),
            ("text/html, */*;q=0.001", true),
            ("text/event-stream", false),
            ("application/json;q=0", false),
            ("application/json;q=0, */*", false),
            ("application/xml", false),
        ] {
            assert_eq!(check_json(&headers(&[accept])).is_ok(), taken, "{accept}");
        }
    }
}
