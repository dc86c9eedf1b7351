//! `migrate`: moves the data folder of a server to a database and a place of blobs that several servers share.

use std::path::PathBuf;

use serde_json::json;

use super::blobs::BlobArguments;
use super::errors::Result;
use super::output::{self, Format};
use super::progress::Stages;
use super::signals::Stop;
use crate::app::PostgresSettings;
use crate::app::migration::{self, Report, Settings};
use crate::contract::texts;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The data folder to move. No server may run on it, and no operation may be under way
    #[arg(long, value_name = "FOLDER")]
    from_data_dir: PathBuf,
    /// The empty PostgreSQL database to move to, as in postgres://user@host/database
    #[arg(
        long,
        value_name = "URL",
        env = "DESKTOP_IMAGES_STORE",
        hide_env_values = true
    )]
    store: String,
    /// The file that has the password for the database, where neither its URL nor PGPASSWORD nor PGPASSFILE has it
    #[arg(long, value_name = "FILE")]
    store_password_file: Option<PathBuf>,
    /// The folder that is to have the bytes of images, unless --blobs says where they are kept, and the few other files
    /// of a server
    #[arg(long, value_name = "FOLDER")]
    data_dir: PathBuf,
    #[command(flatten)]
    blobs: BlobArguments,
    /// Say what there is to move and what stands in the way, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Go on without the bytes of images that are damaged or missing
    #[arg(long)]
    allow_damaged: bool,
}

pub(crate) async fn run(format: Format, arguments: Arguments) -> Result<()> {
    let stop = Stop::of_a_command()?;
    let settings = Settings {
        from: arguments.from_data_dir,
        store: PostgresSettings {
            password_file: arguments.store_password_file,
            ..PostgresSettings::new(arguments.store)
        },
        folder: arguments.data_dir,
        blobs: arguments.blobs.settings(),
        dry_run: arguments.dry_run,
        allow_damaged: arguments.allow_damaged,
    };
    let stages = Stages::default();
    let working = migration::migrate(settings, stages.clone());
    let report = stages.until_stopped(working, stop).await?;
    output::print(&match format {
        Format::Text => text(&report, arguments.dry_run),
        format => output::value(format, &value(&report))?,
    })
}

fn text(report: &Report, dry_run: bool) -> String {
    let (rows, blobs, bytes) = (report.rows, report.blobs, texts::bytes(report.bytes));
    let mut text = match (report.was_done, dry_run) {
        (true, _) => "the installation was moved before\n".to_owned(),
        (false, true) => format!("{rows} rows and {blobs} blobs, {bytes}, would be moved\n"),
        (false, false) => format!(
            "{rows} rows and {blobs} blobs, {bytes}, moved: {} copied, {} there before\n",
            report.copied, report.kept
        ),
    };
    if report.damaged > 0 {
        text.push_str(&format!(
            "{} blobs are damaged or missing\n",
            report.damaged
        ));
    }
    text
}

fn value(report: &Report) -> serde_json::Value {
    json!({
        "was_done": report.was_done,
        "rows": report.rows,
        "blobs": report.blobs,
        "bytes": report.bytes,
        "copied": report.copied,
        "kept": report.kept,
        "damaged": report.damaged,
    })
}
