//! `url-key`: the keys that URLs are signed with.

use super::errors::Result;
use super::{Context, output};
use crate::contract::desktopimages::v1::{
    ListUrlKeysRequest, RevokeUrlKeyRequest, RotateUrlKeyRequest, UrlKey,
};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Makes a new key, by which URLs are signed from now on; those signed before stay good
    Rotate,
    /// Lists the keys
    List,
    /// Deletes a key, which ends all URLs that it signed
    Revoke {
        /// The id of the key, which stands in the URLs
        id: String,
    },
}

pub(crate) async fn run(context: &Context, command: Command) -> Result<()> {
    let mut client = context.connect().await?.signed_urls();
    match command {
        Command::Rotate => {
            let key = client
                .rotate_key(RotateUrlKeyRequest {})
                .await?
                .into_inner();
            output::print_message(context.format, &key)
        }
        Command::List => {
            let listed = client.list_keys(ListUrlKeysRequest {}).await?;
            let heading = ["ID", "CREATED", "CREATED BY"];
            let keys = listed.into_inner().keys;
            output::print_list(context.format, &keys, heading, |key: &UrlKey| {
                [
                    key.id.clone(),
                    output::time(key.created_at.as_ref()),
                    key.created_by.clone(),
                ]
            })
        }
        Command::Revoke { id } => {
            client
                .revoke_key(RevokeUrlKeyRequest { key_id: id })
                .await?;
            Ok(())
        }
    }
}
