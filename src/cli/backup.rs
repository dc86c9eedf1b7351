//! `backup` and `restore`: the data folder of a server, copied while the server works, and brought back.

use std::path::PathBuf;

use serde_json::json;

use super::errors::Result;
use super::output::{self, Format};
use super::progress::Stages;
use super::signals::Stop;
use crate::app::backup::{self, Report, Settings};
use crate::contract::texts;

#[derive(Debug, clap::Args)]
pub(crate) struct BackUp {
    /// The data folder of a server, which may run meanwhile
    #[arg(long, value_name = "FOLDER", default_value = "./data")]
    data_dir: PathBuf,
    /// The folder of the backup: a new one, or one with an earlier backup, of which only what has changed is made again
    #[arg(long, value_name = "FOLDER")]
    output: PathBuf,
    #[command(flatten)]
    how: How,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Restore {
    /// The folder of the backup
    #[arg(long, value_name = "FOLDER")]
    from: PathBuf,
    /// The data folder to restore into: a new or an empty one
    #[arg(long, value_name = "FOLDER")]
    data_dir: PathBuf,
    #[command(flatten)]
    how: How,
}

#[derive(Debug, clap::Args)]
struct How {
    /// Copy the bytes of images also where links to the same bytes on the same disk would do
    #[arg(long)]
    copy: bool,
    /// Do not read all bytes of images again at the end; that they are there is always checked
    #[arg(long)]
    skip_verify: bool,
    /// Go on without the bytes of images that are damaged or missing
    #[arg(long)]
    allow_damaged: bool,
}

impl From<How> for Settings {
    fn from(how: How) -> Self {
        Self {
            copy: how.copy,
            skip_verify: how.skip_verify,
            allow_damaged: how.allow_damaged,
        }
    }
}

pub(crate) async fn back_up(format: Format, arguments: BackUp) -> Result<()> {
    let stop = Stop::of_a_command()?;
    let stages = Stages::default();
    let made = backup::back_up(
        &arguments.data_dir,
        &arguments.output,
        arguments.how.into(),
        stages.clone(),
    );
    report("backed up", format, stages.until_stopped(made, stop).await?)
}

pub(crate) async fn restore(format: Format, arguments: Restore) -> Result<()> {
    let stop = Stop::of_a_command()?;
    let stages = Stages::default();
    let made = backup::restore::restore(
        &arguments.from,
        &arguments.data_dir,
        arguments.how.into(),
        stages.clone(),
    );
    report("restored", format, stages.until_stopped(made, stop).await?)
}

fn report(done: &str, format: Format, report: Report) -> Result<()> {
    let printed = match format {
        Format::Text => text(done, &report),
        format => output::value(format, &value(&report))?,
    };
    output::print(&printed)
}

fn text(done: &str, report: &Report) -> String {
    let mut text = format!(
        "{} blobs {done}, {}: {} linked, {} cloned, {} copied, {} there before\n",
        report.blobs,
        texts::bytes(report.bytes),
        report.linked,
        report.cloned,
        report.copied,
        report.kept,
    );
    if report.damaged > 0 {
        text.push_str(&format!(
            "{} of them are damaged or missing\n",
            report.damaged
        ));
    }
    text
}

fn value(report: &Report) -> serde_json::Value {
    json!({
        "contents": report.blobs,
        "bytes": report.bytes,
        "linked": report.linked,
        "cloned": report.cloned,
        "copied": report.copied,
        "kept": report.kept,
        "damaged": report.damaged,
    })
}
