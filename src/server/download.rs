//! `GET /cloud-desktop/v1/images/{image_id}:download`: the bytes of a desktop image, whole or one
//! range (RFC 9110, sections 13 and 14), or where the storage of the blobs gives them.

use std::ops::Range;
use std::sync::Arc;

use futures_util::stream::{StreamExt, TryStreamExt};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::StreamBody;
use percent_encoding::percent_decode_str;
use tonic::Status;
use tonic::body::Body;
use transcoding::ResponseBody;

use super::conditions::{Comparison, is_fresh, names};
use super::limits::SubjectShare;
use super::{Peer, digest, error, file_name};
use crate::contract::rules::Violation;
use crate::contract::texts;
use crate::grpc;
use crate::images::Images;
use crate::model::hex;

const PREFIX: &str = "/cloud-desktop/v1/images/";
const SUFFIX: &str = ":download";
const REPR_DIGEST: HeaderName = HeaderName::from_static("repr-digest");
const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");

/// The image id of a download path.
pub(crate) fn image_id(path: &str) -> Option<String> {
    let id = path.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?;
    if id.is_empty() || id.contains('/') {
        return None;
    }
    Some(percent_decode_str(id).decode_utf8_lossy().into_owned())
}

pub(crate) async fn answer(
    images: &Images,
    mut request: Parts,
    image_id: &str,
    request_id: &str,
) -> Response<ResponseBody> {
    if let Some(refused) = unknown_parameter(request.uri.query().unwrap_or_default()) {
        return error(&refused, request_id);
    }
    // The permit comes before the file is opened. Earlier downloads release theirs: they are read, or cut off.
    let share = request.extensions.get::<Peer>().map(|peer| &peer.share);
    let permit = match share {
        Some(share) if request.method == Method::GET => {
            Arc::clone(&share.downloads).acquire_owned().await.ok()
        }
        _ => None,
    };
    let share = request.extensions.get::<SubjectShare>();
    let subject_permit = match share {
        Some(share) if request.method == Method::GET => {
            match Arc::clone(&share.0.downloads).try_acquire_owned() {
                Ok(permit) => Some(permit),
                Err(_) => {
                    let busy = "You have as many downloads under way as one subject may have";
                    return error(&grpc::busy(busy), request_id);
                }
            }
        }
        _ => None,
    };
    let context = match grpc::context(&mut request.extensions) {
        Ok(context) => context,
        Err(failed) => return error(&failed, request_id),
    };
    let download = match images.download(&context, image_id).await {
        Ok(download) => download,
        Err(failed) => return error(&grpc::from_error(failed), request_id),
    };
    let size = u64::try_from(download.facts.size).unwrap_or_default();
    let etag = format!("\"{}\"", hex(&download.facts.sha256));
    let mut response = Response::new(ResponseBody::default());
    let headers = response.headers_mut();
    let disposition =
        file_name::content_disposition(&download.image.name, download.file_extension());
    for (name, value) in [
        (header::ETAG, etag.clone()),
        (REPR_DIGEST, digest::repr_digest(&download.facts.sha256)),
        (header::CONTENT_DISPOSITION, disposition.clone()),
    ] {
        // All three are made of visible ASCII.
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(name, value);
        }
    }
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));

    let asked = &request.headers;
    if asked.contains_key(header::IF_MATCH)
        && !names(asked, header::IF_MATCH, &etag, Comparison::Strong)
    {
        *response.status_mut() = StatusCode::PRECONDITION_FAILED;
        return response;
    }
    if names(asked, header::IF_NONE_MATCH, &etag, Comparison::Weak) {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        return response;
    }

    // Range is defined for GET alone.
    let range = match request.method {
        Method::GET if is_fresh(asked, &etag) => requested_range(asked, size),
        _ => Requested::All,
    };
    if request.method == Method::GET
        && may_go_elsewhere(asked, &range)
        && let Some(url) = download.presigned(&disposition).await
        && let Ok(url) = HeaderValue::from_str(&url)
    {
        *response.status_mut() = StatusCode::FOUND;
        let headers = response.headers_mut();
        headers.remove(header::ACCEPT_RANGES);
        headers.insert(header::LOCATION, url);
        let not_kept = HeaderValue::from_static("no-store");
        headers.insert(header::CACHE_CONTROL, not_kept);
        return response;
    }
    let range = match range {
        Requested::All => 0..size,
        Requested::Part(range) => {
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            let value = format!("bytes {}-{}/{size}", range.start, range.end - 1);
            insert(response.headers_mut(), header::CONTENT_RANGE, &value);
            range
        }
        Requested::Unsatisfiable => {
            let status = Status::out_of_range(format!(
                "Range: the image has {size} bytes; no byte of the range is in it"
            ));
            let mut response = error(&status, request_id);
            *response.status_mut() = StatusCode::RANGE_NOT_SATISFIABLE;
            let value = format!("bytes */{size}");
            insert(response.headers_mut(), header::CONTENT_RANGE, &value);
            return response;
        }
    };
    let length = range.end - range.start;
    let headers = response.headers_mut();
    insert(headers, header::CONTENT_LENGTH, &length.to_string());
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/octet-stream"),
    );
    if request.method == Method::GET {
        // The connection's task sends them.
        let span = tracing::Span::current();
        let bytes = download
            .read(range)
            .inspect_err(move |failed| {
                span.in_scope(|| tracing::error!(error = %failed, "a download broke off"));
            })
            .inspect(move |_| {
                // The permits are kept until the last byte is taken.
                let _ = (&permit, &subject_permit);
            });
        *response.body_mut() = Body::new(StreamBody::new(bytes.map_ok(Frame::data))).into();
    }
    response
}

/// The refusal of a query that names anything: a client that asks for another format, say, must not take
/// what comes for it.
fn unknown_parameter(query: &str) -> Option<Status> {
    let parameter = query.split('&').find(|parameter| !parameter.is_empty())?;
    let name = parameter.split('=').next().unwrap_or_default();
    let name = percent_decode_str(name).decode_utf8_lossy();
    Some(grpc::invalid(vec![Violation {
        field: texts::shown(&name).into_owned(),
        description:
            "Unknown query parameter: a download takes none, and is in the image's own format"
                .to_owned(),
    }]))
}

/// Whether a GET may be answered with the address of the bytes: a client sends its `Range` there too. Conditions, and what
/// this server reads in another way than others may, stay here. So do requests of scripts in web pages: they may read the
/// answer of another host only where that host lets any page in.
fn may_go_elsewhere(headers: &HeaderMap, range: &Requested) -> bool {
    const STAYS: [HeaderName; 6] = [
        header::IF_MATCH,
        header::IF_NONE_MATCH,
        header::IF_MODIFIED_SINCE,
        header::IF_UNMODIFIED_SINCE,
        header::IF_RANGE,
        header::ORIGIN,
    ];
    let is_by_script = headers
        .get(SEC_FETCH_MODE)
        .is_some_and(|mode| mode != "navigate");
    let is_plain = match range {
        Requested::All => !headers.contains_key(header::RANGE),
        Requested::Part(_) => true,
        Requested::Unsatisfiable => false,
    };
    is_plain && !is_by_script && !STAYS.iter().any(|name| headers.contains_key(name))
}

#[derive(Debug, PartialEq, Eq)]
enum Requested {
    All,
    Part(Range<u64>),
    Unsatisfiable,
}

/// The range that `Range` asks for. Several ranges, other units and what does not parse are ignored, as
/// they may be.
fn requested_range(headers: &HeaderMap, size: u64) -> Requested {
    let mut fields = headers.get_all(header::RANGE).iter();
    let (Some(field), None) = (fields.next(), fields.next()) else {
        return Requested::All;
    };
    let Some((unit, spec)) = field.to_str().ok().and_then(|text| text.split_once('=')) else {
        return Requested::All;
    };
    let Some((first, last)) = spec.trim().split_once('-') else {
        return Requested::All;
    };
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return Requested::All;
    }
    let range = match (number(first), number(last)) {
        (Some(first), Some(last)) if first <= last => first..last.saturating_add(1).min(size),
        (Some(first), None) if last.is_empty() => first..size,
        (None, Some(count)) if first.is_empty() => size.saturating_sub(count)..size,
        _ => return Requested::All,
    };
    if range.start < range.end {
        Requested::Part(range)
    } else {
        Requested::Unsatisfiable
    }
}

/// Digits only; what is too large for 64 bits is beyond every image.
fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}

fn insert(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_requests_may_go_elsewhere() {
        for (fields, expected) in [
            (&[][..], true),
            (&[("range", "bytes=5-")], true),
            (&[("range", "bytes=100-")], false),
            (&[("range", "bytes=0-1,3-4")], false),
            (&[("range", "bytes=0-1"), ("range", "bytes=3-4")], false),
            (&[("if-match", "*")], false),
            (&[("if-none-match", "\"x\"")], false),
            (&[("if-modified-since", "x")], false),
            (&[("if-unmodified-since", "x")], false),
            (&[("range", "bytes=5-"), ("if-range", "\"x\"")], false),
            (&[("origin", "https://app.example")], false),
            (&[("sec-fetch-mode", "cors")], false),
            (&[("sec-fetch-mode", "navigate")], true),
            (&[("authorization", "Bearer x")], true),
        ] {
            let mut headers = HeaderMap::new();
            for (name, value) in fields {
                headers.append(*name, HeaderValue::from_str(value).unwrap());
            }
            let range = requested_range(&headers, 100);
            assert_eq!(may_go_elsewhere(&headers, &range), expected, "{fields:?}");
        }
    }

    #[test]
    fn ranges() {
        let requested = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::RANGE, HeaderValue::from_str(value).unwrap());
            requested_range(&headers, 100)
        };
        for (value, expected) in [
            ("bytes=0-0", Requested::Part(0..1)),
            ("bytes=0-99", Requested::Part(0..100)),
            ("bytes=10-", Requested::Part(10..100)),
            ("bytes=10-1000", Requested::Part(10..100)),
            ("bytes=-10", Requested::Part(90..100)),
            ("bytes=-1000", Requested::Part(0..100)),
            ("BYTES=1-2", Requested::Part(1..3)),
            ("bytes=99-99999999999999999999999", Requested::Part(99..100)),
            ("bytes=100-", Requested::Unsatisfiable),
            ("bytes=99999999999999999999999-", Requested::Unsatisfiable),
            ("bytes=-0", Requested::Unsatisfiable),
            ("bytes=2-1", Requested::All),
            ("bytes=-", Requested::All),
            ("bytes=a-b", Requested::All),
            ("bytes=+1-2", Requested::All),
            ("bytes=0-1,3-4", Requested::All),
            ("lines=0-1", Requested::All),
            ("bytes", Requested::All),
        ] {
            assert_eq!(requested(value), expected, "{value}");
        }
    }
}
