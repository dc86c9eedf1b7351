//! Ids of server-sent events, by which a client whose connection broke goes on where it was.

use std::fmt::Debug;

use http::{HeaderName, HeaderValue};
use prost_reflect::DynamicMessage;

/// The id that a client saw last, sent when it connects again (HTML standard, section 9.2).
pub(crate) const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Knowledge of the order of messages, which services have and the transcoding has not. Methods are named
/// `package.Service/Method`.
pub trait Events: Debug + Send + Sync {
    /// The `id` of the event that an encoded message of a method becomes. `None`: it has none, and a client
    /// that connects again starts anew.
    fn id(&self, method: &str, message: &[u8]) -> Option<String>;

    /// Changes a request so that its stream begins behind the event of this id. The error says what a
    /// `Last-Event-ID` must be.
    fn resume(
        &self,
        method: &str,
        id: &str,
        request: &mut DynamicMessage,
    ) -> Result<(), &'static str>;
}

/// The id of a `Last-Event-ID`; a client that has seen none may send an empty one.
pub(crate) fn last_id(value: &HeaderValue) -> Result<Option<&str>, &'static str> {
    match std::str::from_utf8(value.as_bytes()) {
        Ok("") => Ok(None),
        Ok(id) => Ok(Some(id)),
        Err(_) => Err("must be UTF-8"),
    }
}
