//! `image`: desktop images.

use std::path::PathBuf;
use std::time::Duration;

use prost_types::FieldMask;

use super::errors::Result;
use super::listing::{self, Page};
use super::operations::{self, Waiting};
use super::output::Format;
use super::transfer::{self, Download};
use super::{Context, output, values};
use crate::contract::desktopimages::v1::CreateSignedUrlRequest;
use crate::contract::desktopimages::v1::create_signed_url_request::Target;
use crate::contract::texts;
use crate::contract::yandex::cloud::clouddesktop::v1::api::{
    CopyDesktopImageRequest, DeleteDesktopImageRequest, DesktopImage, GetDesktopImageRequest,
    ListDesktopImagesRequest, UpdateDesktopImageRequest,
};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Makes a desktop image of a compute image
    Copy(CopyArguments),
    /// Lists the desktop images of a folder
    List(listing::Arguments),
    /// Shows a desktop image
    Get {
        /// The id of the desktop image
        id: String,
    },
    /// Changes a desktop image; what is not given stays as it is
    Update(UpdateArguments),
    /// Deletes a desktop image
    Delete {
        /// The id of the desktop image
        id: String,
        #[command(flatten)]
        waiting: Waiting,
    },
    /// Prints a URL that downloads a desktop image without a token, as hypervisors need it
    Url {
        /// The id of the desktop image
        id: String,
        /// How long the URL is good for, like 30m or 7d, which is the longest
        #[arg(long, value_name = "TIME", value_parser = values::positive_duration)]
        expires: Option<Duration>,
    },
    /// Downloads the bytes of a desktop image, and verifies their digest
    Download {
        /// The id of the desktop image
        id: String,
        /// The file to write, a folder to write it to, or - for the standard output; the name that
        /// the server proposes when left out
        #[arg(long, short, value_name = "FILE")]
        output: Option<PathBuf>,
        /// Replace the file if it exists
        #[arg(long)]
        force: bool,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct CopyArguments {
    /// The compute image to copy
    #[arg(long, value_name = "ID")]
    compute_image_id: String,
    /// The name of the desktop image, unique within its folder
    #[arg(long, value_name = "NAME")]
    new_image_name: String,
    /// The folder that the desktop image goes to
    #[arg(long, value_name = "ID")]
    folder_id: String,
    /// A label; may be repeated
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = values::label)]
    labels: Vec<(String, String)>,
    #[arg(long, value_name = "TEXT", default_value = "")]
    description: String,
    #[command(flatten)]
    waiting: Waiting,
}

#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("changes").required(true).multiple(true))]
pub(crate) struct UpdateArguments {
    /// The desktop image to change
    #[arg(long, value_name = "ID")]
    id: String,
    #[arg(long, value_name = "NAME", group = "changes")]
    new_name: Option<String>,
    #[arg(long, value_name = "TEXT", group = "changes")]
    description: Option<String>,
    /// A label; may be repeated. The labels given replace all that are there
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = values::label, group = "changes")]
    labels: Vec<(String, String)>,
    /// Remove all labels
    #[arg(long, conflicts_with = "labels", group = "changes")]
    clear_labels: bool,
    #[command(flatten)]
    waiting: Waiting,
}

pub(crate) async fn run(context: &Context, command: Command) -> Result<()> {
    match command {
        Command::Copy(arguments) => copy(context, arguments).await,
        Command::List(arguments) => list(context, arguments).await,
        Command::Get { id } => {
            let client = context.connect().await?;
            let request = GetDesktopImageRequest { image_id: id };
            let image = client.desktop_images().get(request).await?.into_inner();
            output::print_message(context.format, &image)
        }
        Command::Update(arguments) => update(context, arguments).await,
        Command::Delete { id, waiting } => {
            let client = context.connect().await?;
            let request = DeleteDesktopImageRequest { image_id: id };
            let operation = client.desktop_images().delete(request).await?.into_inner();
            operations::conclude(context, &client, operation, waiting).await
        }
        Command::Url { id, expires } => {
            let client = context.connect().await?;
            let request = CreateSignedUrlRequest {
                target: Some(Target::ImageId(id)),
                expires_in: expires.map(values::proto_duration),
            };
            let signed = client.signed_urls().create(request).await?.into_inner();
            if context.format != Format::Text {
                return output::print_message(context.format, &signed);
            }
            let url = match signed.url.is_empty() {
                true => context.connection.endpoint.url(&signed.path),
                false => signed.url,
            };
            output::print(&format!("{url}\n"))
        }
        Command::Download { id, output, force } => {
            let download = Download {
                image_id: &id,
                output: output.as_deref(),
                force,
            };
            transfer::download(&context.http()?, download).await
        }
    }
}

async fn copy(context: &Context, arguments: CopyArguments) -> Result<()> {
    let request = CopyDesktopImageRequest {
        folder_id: arguments.folder_id,
        name: arguments.new_image_name,
        image_id: arguments.compute_image_id,
        labels: values::labels(&arguments.labels)?,
        description: arguments.description,
    };
    let client = context.connect().await?;
    let operation = client.desktop_images().copy(request).await?.into_inner();
    operations::conclude(context, &client, operation, arguments.waiting).await
}

async fn list(context: &Context, arguments: listing::Arguments) -> Result<()> {
    let mut client = context.connect().await?.desktop_images();
    let images = arguments
        .pages
        .all(async |page: Page| {
            let request = ListDesktopImagesRequest {
                folder_id: arguments.folder_id.clone(),
                page_size: page.size,
                page_token: page.token,
                filter: arguments.filter.clone(),
                order_by: arguments.order_by.clone(),
            };
            let page = client.list(request).await?.into_inner();
            Ok((page.desktop_images, page.next_page_token))
        })
        .await?;
    let heading = ["ID", "NAME", "STATUS", "MIN DISK", "STORED", "CREATED"];
    output::print_list(context.format, &images, heading, |image: &DesktopImage| {
        [
            image.id.clone(),
            image.name.clone(),
            image.status().as_str_name().to_owned(),
            texts::bytes(image.min_disk_size),
            texts::bytes(image.storage_size),
            output::time(image.created_at.as_ref()),
        ]
    })
}

async fn update(context: &Context, arguments: UpdateArguments) -> Result<()> {
    let waiting = arguments.waiting;
    let request = update_request(arguments)?;
    let client = context.connect().await?;
    let operation = client.desktop_images().update(request).await?.into_inner();
    operations::conclude(context, &client, operation, waiting).await
}

/// Only what is given is in the mask, so that the rest stays.
fn update_request(arguments: UpdateArguments) -> Result<UpdateDesktopImageRequest> {
    let labels = arguments.clear_labels || !arguments.labels.is_empty();
    let given = [
        (arguments.new_name.is_some(), "name"),
        (arguments.description.is_some(), "description"),
        (labels, "labels"),
    ];
    Ok(UpdateDesktopImageRequest {
        image_id: arguments.id,
        update_mask: Some(FieldMask {
            paths: masked(&given),
        }),
        name: arguments.new_name.unwrap_or_default(),
        labels: values::labels(&arguments.labels)?,
        description: arguments.description.unwrap_or_default(),
    })
}

/// The paths of an update mask: those that were given.
pub(crate) fn masked(fields: &[(bool, &str)]) -> Vec<String> {
    fields
        .iter()
        .filter(|(given, _)| *given)
        .map(|(_, path)| (*path).to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Update {
        #[command(flatten)]
        arguments: UpdateArguments,
    }

    fn request(arguments: &[&str]) -> UpdateDesktopImageRequest {
        let all = ["update", "--id", "e3v1"].iter().chain(arguments);
        update_request(Update::try_parse_from(all).unwrap().arguments).unwrap()
    }

    #[test]
    fn an_update_names_what_is_given_and_nothing_else() {
        for (arguments, mask) in [
            (&["--new-name", "n"][..], &["name"][..]),
            (&["--description", ""], &["description"]),
            (&["--label", "a=b", "--label", "c="], &["labels"]),
            (&["--clear-labels"], &["labels"]),
            (
                &["--label", "a=b", "--description", "d", "--new-name", "n"],
                &["name", "description", "labels"],
            ),
        ] {
            let request = request(arguments);
            assert_eq!(request.image_id, "e3v1");
            assert_eq!(request.update_mask.unwrap().paths, mask, "{arguments:?}");
        }
        let request = request(&["--label", "a=b", "--label", "c="]);
        assert_eq!(request.labels.len(), 2);
    }

    #[test]
    fn an_update_of_nothing_is_wrong_usage() {
        for arguments in [
            &["update", "--id", "e3v1"][..],
            &["update", "--new-name", "n"],
            &["update", "--id", "e3v1", "--clear-labels", "--label", "a=b"],
        ] {
            assert!(Update::try_parse_from(arguments).is_err(), "{arguments:?}");
        }
    }
}
