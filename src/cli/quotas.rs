//! `quota`: limits of what folders may hold.

use super::errors::{Error, Result};
use super::values::{self, Limit};
use super::{Context, output};
use crate::contract::desktopimages::v1::{ListQuotasRequest, Quota, SetQuotaRequest};
use crate::contract::texts;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Lists the limits that are set, and what is used of them
    List {
        /// Only limits of this folder
        #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
        folder_id: String,
    },
    /// Sets a limit, or takes it away
    Set {
        /// vdi.desktopImages.count, vdi.desktopImages.size, compute.images.count or
        /// compute.images.size
        #[arg(long, value_name = "NAME")]
        name: String,
        /// The most that may be used: a number of images, a size like 10GiB, or none
        #[arg(long, value_name = "LIMIT", value_parser = values::limit)]
        limit: Limit,
        /// The folder to limit; all folders together when left out
        #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
        folder_id: String,
    },
}

pub(crate) async fn run(context: &Context, command: Command) -> Result<()> {
    match command {
        Command::List { folder_id } => {
            let mut client = context.connect().await?.quotas();
            let request = ListQuotasRequest { folder_id };
            let quotas = client.list(request).await?.into_inner().quotas;
            let heading = ["FOLDER", "NAME", "LIMIT", "USED"];
            output::print_list(context.format, &quotas, heading, |quota: &Quota| {
                [
                    match quota.folder_id.as_str() {
                        "" => "(all together)".to_owned(),
                        id => id.to_owned(),
                    },
                    quota.name.clone(),
                    quota
                        .limit
                        .map_or_else(|| "none".to_owned(), |limit| shown(&quota.name, limit)),
                    shown(&quota.name, quota.used),
                ]
            })
        }
        Command::Set {
            name,
            limit: Limit { limit, has_unit },
            folder_id,
        } => {
            if has_unit && name.ends_with(".count") {
                let why = format!("{name} counts images: --limit takes a number without a unit");
                return Err(Error::Usage(why));
            }
            let request = SetQuotaRequest {
                folder_id,
                name,
                limit,
            };
            let mut client = context.connect().await?.quotas();
            let quota = client.set(request).await?.into_inner();
            output::print_message(context.format, &quota)
        }
    }
}

/// A number of images, or of bytes.
fn shown(name: &str, number: i64) -> String {
    match name.ends_with(".size") {
        true => texts::bytes(number),
        false => number.to_string(),
    }
}
