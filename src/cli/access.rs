//! `access`: which roles subjects and groups have.

use super::errors::Result;
use super::{Context, output};
use crate::contract::desktopimages::v1::{
    AccessGrant, GrantAccessRequest, ListAccessRequest, RevokeAccessRequest,
};

/// A subject or group, and where it has a role.
#[derive(Debug, clap::Args)]
pub(crate) struct Holder {
    /// The subject or group: token:ID, sa:ID, oidc:ISSUER:NAME or cert:NAME
    subject: String,
    /// The folder; all folders when left out
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
    folder_id: String,
}

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Grants a role, in the place of the one that the subject had there
    Grant {
        #[command(flatten)]
        holder: Holder,
        #[arg(long, value_parser = ["viewer", "editor", "admin"])]
        role: String,
        /// The beginning of uris that may be imported by this role; may be repeated, all when left out
        #[arg(long = "import-uri-prefix", value_name = "URI")]
        import_uri_prefixes: Vec<String>,
    },
    /// Takes away the role that a subject has in a folder
    Revoke {
        #[command(flatten)]
        holder: Holder,
    },
    /// Lists the roles of a folder, or all roles
    List {
        /// Only roles in this folder
        #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
        folder_id: String,
    },
}

pub(crate) async fn run(context: &Context, command: Command) -> Result<()> {
    let mut client = context.connect().await?.access();
    match command {
        Command::Grant {
            holder: Holder { subject, folder_id },
            role,
            import_uri_prefixes,
        } => {
            let request = GrantAccessRequest {
                subject,
                folder_id,
                role,
                import_uri_prefixes,
            };
            let grant = client.grant(request).await?.into_inner();
            output::print_message(context.format, &grant)
        }
        Command::Revoke {
            holder: Holder { subject, folder_id },
        } => {
            client
                .revoke(RevokeAccessRequest { subject, folder_id })
                .await?;
            Ok(())
        }
        Command::List { folder_id } => {
            let listed = client.list(ListAccessRequest { folder_id }).await?;
            let grants = listed.into_inner().grants;
            let heading = ["SUBJECT", "FOLDER", "ROLE", "IMPORTS"];
            output::print_list(context.format, &grants, heading, |grant: &AccessGrant| {
                [
                    grant.subject.clone(),
                    match grant.folder_id.as_str() {
                        "" => "(all)".to_owned(),
                        id => id.to_owned(),
                    },
                    grant.role.clone(),
                    grant.import_uri_prefixes.join(" "),
                ]
            })
        }
    }
}
