//! `compute-image`: the images that desktop images are copied from.

use std::path::PathBuf;

use prost_types::FieldMask;

use super::errors::{Error, Result};
use super::images::masked;
use super::listing::{self, Page, Pages};
use super::operations::{self, Waiting};
use super::transfer::{self, Upload};
use super::{Context, output, values};
use crate::contract::texts;
use crate::contract::yandex::cloud::compute::v1::{
    CreateImageRequest, DeleteImageRequest, GetImageLatestByFamilyRequest, GetImageRequest, Image,
    ListImageOperationsRequest, ListImagesRequest, Os, UpdateImageRequest, create_image_request,
    os,
};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Makes a compute image of a disk image: a file here, a file of the server, or another image
    Import(Box<ImportArguments>),
    /// Lists the compute images of a folder
    List(listing::Arguments),
    /// Shows a compute image
    Get {
        /// The id of the compute image
        id: String,
    },
    /// Shows the newest compute image of a family
    LatestByFamily {
        /// The folder to look in
        #[arg(long, value_name = "ID")]
        folder_id: String,
        /// The name of the family
        #[arg(long, value_name = "NAME")]
        family: String,
    },
    /// Changes a compute image; what is not given stays as it is
    Update(UpdateArguments),
    /// Deletes a compute image; desktop images copied from it stay
    Delete {
        /// The id of the compute image
        id: String,
        #[command(flatten)]
        waiting: Waiting,
    },
    /// Lists the operations on a compute image
    ListOperations {
        /// The id of the compute image
        id: String,
        #[command(flatten)]
        pages: Pages,
    },
}

#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("source").required(true))]
pub(crate) struct ImportArguments {
    /// The file to upload, or - for the standard input
    #[arg(group = "source")]
    file: Option<PathBuf>,
    /// A file of the server, below its import folder, as file:///srv/images/windows.qcow2
    #[arg(long, group = "source")]
    uri: Option<String>,
    /// Another compute image
    #[arg(long, value_name = "ID", group = "source")]
    image_id: Option<String>,
    /// The folder that the compute image goes to
    #[arg(long, value_name = "ID")]
    folder_id: String,
    /// The name of the compute image, unique within its folder
    #[arg(long, default_value = "")]
    name: String,
    #[arg(long, value_name = "TEXT", default_value = "")]
    description: String,
    /// A label; may be repeated
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = values::label)]
    labels: Vec<(String, String)>,
    /// The family of images that this is the newest of
    #[arg(long, value_name = "NAME", default_value = "")]
    family: String,
    /// The least size of a disk for the image, in bytes or as 10G; its own size when left out
    #[arg(long, value_name = "SIZE", value_parser = values::size)]
    min_disk_size: Option<i64>,
    /// A license that comes with the image; may be repeated
    #[arg(long = "product-id", value_name = "ID")]
    product_ids: Vec<String>,
    /// The operating system
    #[arg(long)]
    os: Option<OperatingSystem>,
    /// The SHA-256 that the uploaded bytes must have, in hexadecimal digits
    #[arg(long, value_name = "DIGEST", value_parser = values::sha256,
          conflicts_with_all = ["uri", "image_id"])]
    sha256: Option<[u8; 32]>,
    #[command(flatten)]
    waiting: Waiting,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum OperatingSystem {
    Linux,
    Windows,
}

#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("changes").required(true).multiple(true))]
pub(crate) struct UpdateArguments {
    /// The compute image to change
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
    /// The least size of a disk for the image, in bytes or as 10G
    #[arg(long, value_name = "SIZE", value_parser = values::size, group = "changes")]
    min_disk_size: Option<i64>,
    #[command(flatten)]
    waiting: Waiting,
}

pub(crate) async fn run(context: &Context, command: Command) -> Result<()> {
    match command {
        Command::Import(arguments) => import(context, *arguments).await,
        Command::List(arguments) => list(context, arguments).await,
        Command::Get { id } => {
            let mut client = context.connect().await?.compute_images();
            let request = GetImageRequest { image_id: id };
            let image = client.get(request).await?.into_inner();
            output::print_message(context.format, &image)
        }
        Command::LatestByFamily { folder_id, family } => {
            let mut client = context.connect().await?.compute_images();
            let request = GetImageLatestByFamilyRequest { folder_id, family };
            let image = client.get_latest_by_family(request).await?.into_inner();
            output::print_message(context.format, &image)
        }
        Command::Update(arguments) => {
            let waiting = arguments.waiting;
            let request = update_request(arguments)?;
            let client = context.connect().await?;
            let operation = client.compute_images().update(request).await?.into_inner();
            operations::conclude(context, &client, operation, waiting).await
        }
        Command::Delete { id, waiting } => {
            let client = context.connect().await?;
            let request = DeleteImageRequest { image_id: id };
            let operation = client.compute_images().delete(request).await?.into_inner();
            operations::conclude(context, &client, operation, waiting).await
        }
        Command::ListOperations { id, pages } => list_operations(context, id, pages).await,
    }
}

async fn import(context: &Context, arguments: ImportArguments) -> Result<()> {
    let (file, sha256, waiting) = (arguments.file.clone(), arguments.sha256, arguments.waiting);
    let request = create_request(arguments)?;
    let operation = match file {
        Some(file) => {
            let upload = Upload {
                file: &file,
                image: request,
                sha256,
            };
            transfer::upload(&context.http()?, upload).await?
        }
        None => {
            let mut client = context.connect().await?.compute_images();
            client.create(request).await?.into_inner()
        }
    };
    let client = context.connect().await?;
    operations::conclude(context, &client, operation, waiting).await
}

fn create_request(arguments: ImportArguments) -> Result<CreateImageRequest> {
    let source = match (arguments.uri, arguments.image_id) {
        (Some(uri), _) => Some(create_image_request::Source::Uri(uri)),
        (None, Some(id)) => Some(create_image_request::Source::ImageId(id)),
        (None, None) => None,
    };
    Ok(CreateImageRequest {
        folder_id: arguments.folder_id,
        name: arguments.name,
        description: arguments.description,
        labels: values::labels(&arguments.labels)?,
        family: arguments.family,
        min_disk_size: arguments.min_disk_size.unwrap_or_default(),
        product_ids: arguments.product_ids,
        source,
        os: arguments.os.map(|os| Os {
            r#type: match os {
                OperatingSystem::Linux => os::Type::Linux.into(),
                OperatingSystem::Windows => os::Type::Windows.into(),
            },
            nvidia: None,
        }),
        pooled: false,
        hardware_generation: None,
    })
}

async fn list(context: &Context, arguments: listing::Arguments) -> Result<()> {
    let mut client = context.connect().await?.compute_images();
    let images = arguments
        .pages
        .all(async |page: Page| {
            let request = ListImagesRequest {
                folder_id: arguments.folder_id.clone(),
                page_size: page.size,
                page_token: page.token,
                filter: arguments.filter.clone(),
                order_by: arguments.order_by.clone(),
            };
            let page = client.list(request).await?.into_inner();
            Ok((page.images, page.next_page_token))
        })
        .await?;
    let heading = [
        "ID", "NAME", "FAMILY", "STATUS", "MIN DISK", "STORED", "CREATED",
    ];
    output::print_list(context.format, &images, heading, |image: &Image| {
        [
            image.id.clone(),
            image.name.clone(),
            image.family.clone(),
            image.status().as_str_name().to_owned(),
            texts::bytes(image.min_disk_size),
            texts::bytes(image.storage_size),
            output::time(image.created_at.as_ref()),
        ]
    })
}

async fn list_operations(context: &Context, image_id: String, pages: Pages) -> Result<()> {
    let mut client = context.connect().await?.compute_images();
    let operations = pages
        .all(async |page: Page| {
            let request = ListImageOperationsRequest {
                image_id: image_id.clone(),
                page_size: page.size,
                page_token: page.token,
            };
            let page = client
                .list_operations(request)
                .await
                .map_err(Error::from)?
                .into_inner();
            Ok((page.operations, page.next_page_token))
        })
        .await?;
    operations::print_operations(context.format, &operations)
}

/// Only what is given is in the mask, so that the rest stays.
fn update_request(arguments: UpdateArguments) -> Result<UpdateImageRequest> {
    let labels = arguments.clear_labels || !arguments.labels.is_empty();
    let given = [
        (arguments.new_name.is_some(), "name"),
        (arguments.description.is_some(), "description"),
        (arguments.min_disk_size.is_some(), "min_disk_size"),
        (labels, "labels"),
    ];
    Ok(UpdateImageRequest {
        image_id: arguments.id,
        update_mask: Some(FieldMask {
            paths: masked(&given),
        }),
        name: arguments.new_name.unwrap_or_default(),
        description: arguments.description.unwrap_or_default(),
        min_disk_size: arguments.min_disk_size.unwrap_or_default(),
        labels: values::labels(&arguments.labels)?,
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    enum Both {
        Import(ImportArguments),
        Update(UpdateArguments),
    }

    #[test]
    fn an_import_has_exactly_one_source() {
        for (arguments, right) in [
            (&["a.qcow2"][..], true),
            (&["-"], true),
            (&["--uri", "file:///a"], true),
            (&["--image-id", "fd8"], true),
            (&["a.qcow2", "--sha256", &"00".repeat(32)], true),
            (&[], false),
            (&["a.qcow2", "--uri", "file:///a"], false),
            (&["--image-id", "fd8", "--uri", "file:///a"], false),
            (&["--image-id", "fd8", "--sha256", &"00".repeat(32)], false),
        ] {
            let all = ["x", "import", "--folder-id", "f"].iter().chain(arguments);
            assert_eq!(Both::try_parse_from(all).is_ok(), right, "{arguments:?}");
        }
    }

    #[test]
    fn an_import_says_all_that_is_given() {
        let arguments = [
            "x",
            "import",
            "--folder-id",
            "f",
            "--uri",
            "file:///a",
            "--name",
            "n",
            "--label",
            "k=v",
            "--family",
            "fam",
            "--min-disk-size",
            "10G",
            "--product-id",
            "p1",
            "--product-id",
            "p2",
            "--os",
            "windows",
            "--description",
            "d",
        ];
        let Ok(Both::Import(arguments)) = Both::try_parse_from(arguments) else {
            panic!("the arguments are right");
        };
        let request = create_request(arguments).unwrap();
        let wanted = CreateImageRequest {
            folder_id: "f".to_owned(),
            name: "n".to_owned(),
            description: "d".to_owned(),
            labels: [("k".to_owned(), "v".to_owned())].into(),
            family: "fam".to_owned(),
            min_disk_size: 10 << 30,
            product_ids: vec!["p1".to_owned(), "p2".to_owned()],
            os: Some(Os {
                r#type: os::Type::Windows.into(),
                nvidia: None,
            }),
            source: Some(create_image_request::Source::Uri("file:///a".to_owned())),
            ..CreateImageRequest::default()
        };
        assert_eq!(request, wanted);
    }

    #[test]
    fn an_update_names_what_is_given_and_nothing_else() {
        let arguments = ["x", "update", "--id", "fd8", "--min-disk-size", "4M"];
        let Ok(Both::Update(arguments)) = Both::try_parse_from(arguments) else {
            panic!("the arguments are right");
        };
        let request = update_request(arguments).unwrap();
        assert_eq!(request.update_mask.unwrap().paths, ["min_disk_size"]);
        assert_eq!(request.min_disk_size, 4 << 20);
        assert!(Both::try_parse_from(["x", "update", "--id", "fd8"]).is_err());
    }
}
