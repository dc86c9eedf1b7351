//! Request ids: the caller's or a new one, and one of our own for each request.

use http::{HeaderMap, HeaderName, HeaderValue};
use uuid::Uuid;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACE_ID: HeaderName = HeaderName::from_static("x-server-trace-id");
/// The request id under the name that the public Terraform provider reads.
const SERVER_REQUEST_ID: HeaderName = HeaderName::from_static("x-server-request-id");
/// Longer ones are replaced: they go to logs and back to the caller.
const LONGEST: usize = 128;

/// The ids of one request.
pub(crate) struct Ids {
    pub request_id: String,
    pub trace_id: String,
}

/// The ids of a request, which has a fit `x-request-id` from then on.
pub(crate) fn take(headers: &mut HeaderMap) -> Ids {
    let sent = headers
        .get(&REQUEST_ID)
        .and_then(|value| value.to_str().ok())
        .filter(|id| (1..=LONGEST).contains(&id.len()))
        .map(str::to_owned);
    if headers.get_all(&REQUEST_ID).iter().nth(1).is_some()
        && let Some(first) = headers.get(&REQUEST_ID).cloned()
    {
        // Of several the first one counts, everywhere.
        headers.insert(REQUEST_ID, first);
    }
    let request_id = sent.unwrap_or_else(|| {
        let id = Uuid::new_v4().to_string();
        if let Ok(value) = HeaderValue::from_str(&id) {
            headers.insert(REQUEST_ID, value);
        }
        id
    });
    Ids {
        request_id,
        trace_id: Uuid::new_v4().to_string(),
    }
}

/// Tells the caller the ids.
pub(crate) fn give(ids: &Ids, headers: &mut HeaderMap) {
    if let Ok(value) = HeaderValue::from_str(&ids.request_id) {
        headers.insert(REQUEST_ID, value.clone());
        headers.insert(SERVER_REQUEST_ID, value);
    }
    if let Ok(value) = HeaderValue::from_str(&ids.trace_id) {
        headers.insert(TRACE_ID, value);
    }
}
