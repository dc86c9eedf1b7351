//! The ids of server-sent events: those of audit events are their sequence numbers. A state of an
//! operation has none: a watch that starts again tells the state as it is then.

use prost::Message;
use prost_reflect::{DynamicMessage, Value};
use transcoding::Events;

use crate::contract::desktopimages::v1::AuditEvent;

const READ_AUDIT_EVENTS: &str = "desktopimages.v1.AuditService/Read";

/// The ids of this server's streams.
#[derive(Debug)]
pub(crate) struct EventIds;

impl Events for EventIds {
    fn id(&self, method: &str, message: &[u8]) -> Option<String> {
        if method != READ_AUDIT_EVENTS {
            return None;
        }
        let event = AuditEvent::decode(message).ok()?;
        Some(event.sequence.to_string())
    }

    fn resume(
        &self,
        method: &str,
        id: &str,
        request: &mut DynamicMessage,
    ) -> Result<(), &'static str> {
        if method != READ_AUDIT_EVENTS {
            return Ok(());
        }
        let sequence = id.parse().ok().filter(|sequence: &i64| *sequence >= 0);
        let sequence = sequence.ok_or("must be the sequence of an audit event, as in 42")?;
        // Later than what the address says: a browser connects again under the same one.
        request.set_field_by_name("after_sequence", Value::I64(sequence));
        Ok(())
    }
}
