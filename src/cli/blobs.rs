//! The arguments that name the place of blobs.

use std::time::Duration;

use super::values;
use crate::app::{BlobLayout, BlobSettings, ObjectSettings, RedirectSettings};

/// Arguments of all commands that read or write blobs.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Object storage")]
pub(crate) struct PlaceArguments {
    /// Keep the bytes of images in an object storage, as in s3://bucket/prefix, gs://bucket/prefix or
    /// az://container/prefix; in the data folder when left out. Credentials come from the environment, or from a file
    /// that it names
    #[arg(
        long,
        value_name = "URL",
        env = "DESKTOP_IMAGES_BLOBS",
        hide_env_values = true
    )]
    blobs: Option<String>,
    /// The URL of the service where it is not that of Amazon, Google or Microsoft, as in https://s3.example:9000; what
    /// AWS_ENDPOINT_URL says when left out
    #[arg(long, value_name = "URL", requires = "blobs", hide_env_values = true)]
    blobs_endpoint: Option<String>,
}

/// Arguments of commands that write blobs.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Object storage")]
pub(crate) struct BlobArguments {
    #[command(flatten)]
    place: PlaceArguments,
    /// How images are written to the object storage. Those that are there are read in both layouts
    #[arg(
        long,
        value_name = "LAYOUT",
        value_enum,
        default_value_t,
        requires = "blobs"
    )]
    blobs_layout: Layout,
    /// The most memory for the parts of all uploads and imports that are on their way to the object storage
    #[arg(long, value_name = "SIZE", default_value = "192M", value_parser = values::upload_memory)]
    upload_memory: i64,
}

#[derive(Debug, Clone, Copy, Default, clap::ValueEnum)]
enum Layout {
    /// Zeros take no room: units of 64 KiB that have nothing else are left out
    #[default]
    Packed,
    /// Each image is one object, byte by byte, with all its zeros
    Whole,
}

/// Arguments of a server, for those who read from it.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Object storage")]
pub(crate) struct RedirectArguments {
    /// Redirect downloads to presigned URLs of the object storage, which clients reach at this URL, as in
    /// https://s3.example:9000. Only images that are whole objects are redirected, see --blobs-layout. The server then
    /// does not check what is read
    #[arg(long, value_name = "URL", requires = "blobs", hide_env_values = true)]
    blobs_redirect: Option<String>,
    /// How long such a URL lives: a download must begin within this time, and may last longer
    #[arg(long, value_name = "DURATION", default_value = "15m", requires = "blobs_redirect",
          value_parser = values::redirect_lifetime)]
    blobs_redirect_lifetime: Duration,
}

impl RedirectArguments {
    /// The place of blobs, with its readers redirected if they are to be.
    pub(crate) fn apply(self, blobs: &mut BlobSettings) {
        if let BlobSettings::Object(settings) = blobs {
            settings.redirect = self.blobs_redirect.map(|endpoint| RedirectSettings {
                endpoint,
                lifetime: self.blobs_redirect_lifetime,
            });
        }
    }
}

impl PlaceArguments {
    pub(crate) fn settings(self) -> BlobSettings {
        match self.blobs {
            None => BlobSettings::Folder,
            Some(url) => BlobSettings::Object(ObjectSettings {
                endpoint: self.blobs_endpoint,
                ..ObjectSettings::new(url)
            }),
        }
    }
}

impl BlobArguments {
    pub(crate) fn settings(self) -> BlobSettings {
        let mut blobs = self.place.settings();
        if let BlobSettings::Object(settings) = &mut blobs {
            settings.upload_memory = self.upload_memory.unsigned_abs();
            settings.layout = match self.blobs_layout {
                Layout::Packed => BlobLayout::Packed,
                Layout::Whole => BlobLayout::Whole,
            };
        }
        blobs
    }
}
