//! Settings of a transcoder: what it takes and gives, where there is a choice.

use std::sync::Arc;
use std::time::Duration;

use super::codec;
use super::events::Events;

/// Settings of a [`super::Transcoder`]: what it takes and gives, where there is a choice.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The largest body of a request that becomes a message, in bytes. Requests that are gRPC already
    /// are not limited here.
    pub max_request_body: usize,
    /// Whether query parameters that name no field are passed over instead of refused.
    pub ignore_unknown_parameters: bool,
    /// How messages are written as JSON, and what is read. Errors have one form always.
    pub json: codec::Settings,
    /// The time for which a stream is quiet before it sends a heartbeat.
    pub heartbeat: Duration,
    /// The ids of the events of streams; without it they have none.
    pub events: Option<Arc<dyn Events>>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_request_body: 4 * 1024 * 1024,
            ignore_unknown_parameters: false,
            json: codec::Settings::default(),
            heartbeat: Duration::from_secs(15),
            events: None,
        }
    }
}
