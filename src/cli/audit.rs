//! `audit`: what was changed, by whom, and how it ended.

use super::errors::Result;
use super::{Context, output};
use crate::contract::desktopimages::v1::ReadAuditEventsRequest;

#[derive(Debug, clap::Args)]
pub struct Arguments {
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

pub async fn run(context: &Context, arguments: Arguments) -> Result<()> {
    let request = ReadAuditEventsRequest {
        folder_id: arguments.folder_id,
        after_sequence: arguments.after,
        follow: arguments.follow,
    };
    let client = context.connect().await?;
    let mut events = client.audit().read(request).await?.into_inner();
    while let Some(event) = events.message().await? {
        output::print_line(&event)?;
    }
    Ok(())
}
