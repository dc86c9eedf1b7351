//! Conversions that several services need.

use prost_types::Timestamp;

use crate::model;

pub(crate) fn timestamp(time: model::Timestamp) -> Timestamp {
    Timestamp {
        seconds: time.0.div_euclid(1_000_000),
        // Less than a million microseconds.
        nanos: (time.0.rem_euclid(1_000_000) * 1000) as i32,
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
