//! Conversions that several services need.

use std::ops::RangeInclusive;
use std::time::Duration;

use prost_types::Timestamp;
use tonic::Status;

use super::status;
use crate::model;

pub(crate) fn timestamp(time: model::Timestamp) -> Timestamp {
    Timestamp {
        seconds: time.0.div_euclid(1_000_000),
        // Less than a million microseconds.
        nanos: (time.0.rem_euclid(1_000_000) * 1000) as i32,
    }
}

/// A length of time in a field that may be left out.
///
/// # Errors
/// INVALID_ARGUMENT for one that is shorter than `shortest` or longer than `longest`.
pub(super) fn lifetime(
    field: &str,
    duration: Option<prost_types::Duration>,
    range: RangeInclusive<Duration>,
) -> Result<Option<Duration>, Status> {
    let Some(duration) = duration else {
        return Ok(None);
    };
    match Duration::try_from(duration) {
        Ok(duration) if range.contains(&duration) => Ok(Some(duration)),
        _ => Err(status::invalid_field(
            field,
            format!(
                "Must be from {} to {} seconds",
                range.start().as_secs(),
                range.end().as_secs()
            ),
        )),
    }
}

/// The list request of a message that has the usual fields.
macro_rules! list_request {
    ($message:expr) => {{
        let message = $message;
        $crate::images::ListRequest {
            folder_id: message.folder_id,
            page_size: message.page_size,
            page_token: message.page_token,
            filter: message.filter,
            order_by: message.order_by,
        }
    }};
}
pub(super) use list_request;
