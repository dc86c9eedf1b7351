//! `verify`: reads all that an installation holds, and says what is wrong with it.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use indicatif::ProgressBar;
use serde_json::json;

use super::blobs::PlaceArguments;
use super::errors::{Error, Result};
use super::output::{self, Format};
use super::progress;
use super::signals::Stop;
use crate::app::PostgresSettings;
use crate::app::verification::{self, Findings, Problem, Settings};
use crate::contract::texts;
use crate::telemetry::chain;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The data folder of a server, which may run meanwhile
    #[arg(long, value_name = "FOLDER", default_value = "./data")]
    data_dir: PathBuf,
    /// The PostgreSQL database that has the records, as in postgres://user@host/database; a file of the data folder when
    /// left out
    #[arg(
        long,
        value_name = "URL",
        env = "DESKTOP_IMAGES_STORE",
        hide_env_values = true
    )]
    store: Option<String>,
    /// The file that has the password for the database, where neither its URL nor PGPASSWORD nor PGPASSFILE has it
    #[arg(long, value_name = "FILE", requires = "store")]
    store_password_file: Option<PathBuf>,
    #[command(flatten)]
    blobs: PlaceArguments,
}

pub(crate) async fn run(format: Format, arguments: Arguments) -> Result<()> {
    let mut stop = Stop::of_a_command()?;
    let stopped = Arc::new(AtomicBool::new(false));
    let mut shown = Shown {
        bar: progress::bytes("verifying", None),
        stopped: stopped.clone(),
    };
    let settings = Settings {
        folder: arguments.data_dir,
        store: arguments.store.map(|url| PostgresSettings {
            password_file: arguments.store_password_file,
            ..PostgresSettings::new(url)
        }),
        blobs: arguments.blobs.settings(),
    };
    let mut verifying = tokio::task::spawn_blocking(move || {
        let verified = verification::verify(&settings, &mut shown);
        shown.bar.finish_and_clear();
        verified
    });
    let verified = tokio::select! {
        verified = &mut verifying => verified,
        () = stop.ordered() => {
            stopped.store(true, Ordering::Relaxed);
            verifying.await
        }
    };
    let verified = verified.map_err(|error| Error::failed("cannot verify", &error))?;
    let findings = verified.map_err(|error| Error::Failed(chain(&error)))?;
    let findings = findings.ok_or(Error::Interrupted)?;
    match format {
        Format::Text => output::print(&text(&findings))?,
        format => output::print(&output::value(format, &value(&findings))?)?,
    }
    match findings.problems.len() {
        0 => Ok(()),
        1 => Err(Error::Failed("1 problem was found".to_owned())),
        count => Err(Error::Failed(format!("{count} problems were found"))),
    }
}

struct Shown {
    bar: ProgressBar,
    stopped: Arc<AtomicBool>,
}

impl verification::Progress for Shown {
    fn total(&mut self, _: u64, bytes: u64) {
        self.bar = progress::bytes("verifying", Some(bytes));
    }

    fn read(&mut self, bytes: u64) -> bool {
        self.bar.inc(bytes);
        !self.stopped.load(Ordering::Relaxed)
    }
}

fn text(findings: &Findings) -> String {
    let mut text = format!(
        "{} blobs read, {}\n",
        findings.blobs,
        texts::bytes(findings.bytes)
    );
    if findings.checksums_made > 0 {
        text.push_str(&format!(
            "{} of them had no sound checksums, and have them now\n",
            findings.checksums_made
        ));
    }
    for Problem {
        image_ids, message, ..
    } in &findings.problems
    {
        text.push_str(&format!("{}\n", output::without_controls(message)));
        if !image_ids.is_empty() {
            text.push_str(&format!("  images: {}\n", image_ids.join(", ")));
        }
    }
    if findings.problems.is_empty() {
        text.push_str("nothing is wrong\n");
    }
    text
}

fn value(findings: &Findings) -> serde_json::Value {
    let problems = findings.problems.iter().map(|problem| {
        json!({
            "kind": problem.kind.as_str(),
            "contentId": problem.blob_id,
            "imageIds": problem.image_ids,
            "message": problem.message,
        })
    });
    json!({
        "contents": findings.blobs,
        "bytes": findings.bytes,
        "checksumsMade": findings.checksums_made,
        "problems": problems.collect::<Vec<_>>(),
    })
}
