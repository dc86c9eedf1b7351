//! `audit`: what was changed, by whom, and how it ended.

use super::Context;
use super::errors::Result;
use super::output::{self, Format};
use crate::contract::desktopimages::v1::{AuditEvent, ReadAuditEventsRequest};

/// How the types of all events begin.
const PREFIX: &str = "desktopimages.audit.";

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Only events of this folder
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
    folder_id: String,
    /// Only events after the one with this sequence number
    #[arg(long, value_name = "SEQUENCE", default_value_t = 0,
          value_parser = clap::value_parser!(i64).range(0..))]
    after: i64,
    /// Go on with events as they happen
    #[arg(long)]
    follow: bool,
}

pub(crate) async fn run(context: &Context, arguments: Arguments) -> Result<()> {
    let request = ReadAuditEventsRequest {
        folder_id: arguments.folder_id,
        after_sequence: arguments.after,
        follow: arguments.follow,
    };
    let client = context.connect().await?;
    let mut events = client.audit().read(request).await?.into_inner();
    let format = context.given_format.unwrap_or(Format::Json);
    while let Some(event) = events.message().await? {
        output::print(&match format {
            Format::Text => line(&event),
            Format::Json | Format::Yaml => output::streamed(format, &event)?,
        })?;
    }
    Ok(())
}

/// An event in one line for people: what every event has, then what is set of the rest.
fn line(event: &AuditEvent) -> String {
    let kind = event.event_type.strip_prefix(PREFIX);
    let mut line = format!(
        "{} {} {} {}",
        event.sequence,
        output::time(event.time.as_ref()),
        event.status().as_str_name(),
        kind.unwrap_or(&event.event_type),
    );
    for (name, value) in [
        ("folder", &event.folder_id),
        ("image", &event.image_id),
        ("operation", &event.operation_id),
        ("subject", &event.subject),
        ("request", &event.request_id),
        ("error", &event.error_message),
    ] {
        if !value.is_empty() {
            line.push_str(&format!(" {name}={value}"));
        }
    }
    for change in &event.changes {
        let (old, new) = (&change.old_value, &change.new_value);
        line.push_str(&format!(" {}: {old:?} -> {new:?}", change.field));
    }
    output::without_controls(&line) + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::desktopimages::v1::audit_event::{Change, Status};

    #[test]
    fn a_line_has_what_an_event_says_and_controls_no_terminal() {
        let event = AuditEvent {
            sequence: 7,
            event_type: format!("{PREFIX}clouddesktop.UpdateDesktopImage"),
            status: Status::Done.into(),
            folder_id: "f\x1b[2J".to_owned(),
            changes: vec![Change {
                field: "name".to_owned(),
                old_value: "a".to_owned(),
                new_value: "b\n".to_owned(),
            }],
            ..AuditEvent::default()
        };
        assert_eq!(
            line(&event),
            "7  DONE clouddesktop.UpdateDesktopImage folder=f\\u{1b}[2J name: \"a\" -> \"b\\n\"\n"
        );
    }
}
