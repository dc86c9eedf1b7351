//! `token`: static tokens.

use std::path::PathBuf;
use std::time::Duration;

use super::errors::Result;
use super::secret_file::SecretFile;
use super::{Context, output, values};
use crate::contract::desktopimages::v1::{
    CreateTokenRequest, ListTokensRequest, RevokeTokenRequest, Token,
};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Makes a token; its text is told this once
    Create {
        #[arg(
            long,
            value_name = "TEXT",
            default_value = "",
            hide_default_value = true
        )]
        description: String,
        /// How long it is good for, like 12h or 30d; until it is revoked when left out
        #[arg(long = "expires", value_name = "TIME", value_parser = values::positive_duration)]
        expires_in: Option<Duration>,
        /// The file to write the text of the token to, which only its owner can read; the standard output when
        /// left out
        #[arg(long, short, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Lists the tokens, without their texts
    List,
    /// Revokes a token, with all that was granted to it
    Revoke {
        /// The id of the token
        id: String,
    },
}

pub(crate) async fn run(context: &Context, command: Command) -> Result<()> {
    let mut client = context.connect().await?.tokens();
    match command {
        Command::Create {
            description,
            expires_in,
            output: file,
        } => {
            // Before the token is made, which would else be lost.
            let file = file.map(SecretFile::create).transpose()?;
            let request = CreateTokenRequest {
                description,
                expires_in: expires_in.map(values::proto_duration),
            };
            let mut created = client.create(request).await?.into_inner();
            if let Some(file) = file {
                file.write(&format!("{}\n", created.secret))?;
                created.secret.clear();
                let token = created.token.unwrap_or_default();
                return output::print_message(context.format, &token);
            }
            output::print_message(context.format, &created)
        }
        Command::List => {
            let tokens = client.list(ListTokensRequest {}).await?.into_inner().tokens;
            let heading = ["ID", "SUBJECT", "CREATED", "EXPIRES", "DESCRIPTION"];
            output::print_list(context.format, &tokens, heading, |token: &Token| {
                [
                    token.id.clone(),
                    token.subject.clone(),
                    output::time(token.created_at.as_ref()),
                    output::time(token.expires_at.as_ref()),
                    token.description.clone(),
                ]
            })
        }
        Command::Revoke { id } => {
            client.revoke(RevokeTokenRequest { token_id: id }).await?;
            Ok(())
        }
    }
}
