//! `service-account`: accounts of programs, and the keys by which they sign.

use std::path::PathBuf;

use super::errors::{Error, Result};
use super::secret_file::SecretFile;
use super::{Context, output};
use crate::contract::desktopimages::v1::{
    CreateServiceAccountKeyRequest, CreateServiceAccountRequest, DeleteServiceAccountKeyRequest,
    DeleteServiceAccountRequest, ListServiceAccountKeysRequest, ListServiceAccountsRequest,
    ServiceAccount, ServiceAccountKey,
};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Makes a service account
    Create {
        /// The name of the service account
        name: String,
        #[arg(
            long,
            value_name = "TEXT",
            default_value = "",
            hide_default_value = true
        )]
        description: String,
    },
    /// Lists the service accounts
    List,
    /// Deletes a service account with its keys, its tokens and its roles
    Delete {
        /// The id of the service account
        id: String,
    },
    /// Keys by which service accounts sign
    #[command(subcommand)]
    Key(KeyCommand),
}

#[derive(Debug, clap::Subcommand)]
pub(crate) enum KeyCommand {
    /// Makes a key, and writes the file that public SDKs read; the private key is not kept by the server
    Create {
        /// The id of the service account
        id: String,
        /// The file to write, which only its owner can read
        #[arg(long, short, value_name = "FILE")]
        output: PathBuf,
        #[arg(
            long,
            value_name = "TEXT",
            default_value = "",
            hide_default_value = true
        )]
        description: String,
    },
    /// Lists the keys of a service account
    List {
        /// The id of the service account
        id: String,
    },
    /// Deletes a key, with the tokens that were exchanged for what it signed
    Delete {
        /// The id of the key
        id: String,
    },
}

pub(crate) async fn run(context: &Context, command: Command) -> Result<()> {
    let mut client = context.connect().await?.service_accounts();
    match command {
        Command::Create { name, description } => {
            let request = CreateServiceAccountRequest { name, description };
            let account = client.create(request).await?.into_inner();
            output::print_message(context.format, &account)
        }
        Command::List => {
            let listed = client.list(ListServiceAccountsRequest {}).await?;
            let accounts = listed.into_inner().service_accounts;
            let heading = ["ID", "NAME", "CREATED", "DESCRIPTION"];
            output::print_list(context.format, &accounts, heading, |it: &ServiceAccount| {
                [
                    it.id.clone(),
                    it.name.clone(),
                    output::time(it.created_at.as_ref()),
                    it.description.clone(),
                ]
            })
        }
        Command::Delete { id } => {
            let request = DeleteServiceAccountRequest {
                service_account_id: id,
            };
            client.delete(request).await?;
            Ok(())
        }
        Command::Key(KeyCommand::Create {
            id,
            output: file,
            description,
        }) => {
            // Before the key is made, which would else be lost.
            let file = SecretFile::create(file)?;
            let request = CreateServiceAccountKeyRequest {
                service_account_id: id,
                description,
            };
            let created = client.create_key(request).await?.into_inner();
            let key = created.key.unwrap_or_default();
            file.write(&key_file(&key, &created.private_key)?)?;
            output::print_message(context.format, &key)
        }
        Command::Key(KeyCommand::List { id }) => {
            let request = ListServiceAccountKeysRequest {
                service_account_id: id,
            };
            let keys = client.list_keys(request).await?.into_inner().keys;
            let heading = ["ID", "ALGORITHM", "CREATED", "DESCRIPTION"];
            output::print_list(context.format, &keys, heading, |key: &ServiceAccountKey| {
                [
                    key.id.clone(),
                    key.key_algorithm.clone(),
                    output::time(key.created_at.as_ref()),
                    key.description.clone(),
                ]
            })
        }
        Command::Key(KeyCommand::Delete { id }) => {
            client
                .delete_key(DeleteServiceAccountKeyRequest { key_id: id })
                .await?;
            Ok(())
        }
    }
}

/// The file of a key as public SDKs read it.
fn key_file(key: &ServiceAccountKey, private_key: &str) -> Result<String> {
    let file = serde_json::json!({
        "id": key.id,
        "service_account_id": key.service_account_id,
        "created_at": output::time(key.created_at.as_ref()),
        "key_algorithm": key.key_algorithm,
        "public_key": key.public_key,
        "private_key": private_key,
    });
    serde_json::to_string_pretty(&file)
        .map(|text| text + "\n")
        .map_err(|error| Error::failed("cannot write the key", &error))
}
