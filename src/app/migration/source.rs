//! The data folder that is moved: locked, and with nothing under way.

use std::path::Path;
use std::sync::Arc;

use uuid::Uuid;

use super::{Error, Report, Result, data_folder};
use crate::app::data_folder::Lock;
use crate::blobs::LocalBlobs;
use crate::model::SystemClock;
use crate::store::Records;
use crate::store::sqlite::{Departing, SqliteStore, Verification};

/// A data folder that this process holds.
pub(super) struct Source {
    pub installation: String,
    pub rows: Departing,
    pub database: Verification,
    pub blobs: LocalBlobs,
    /// The counts of what there is.
    pub report: Report,
    _lock: Lock,
}

impl Source {
    /// Opens a folder. An older schema is brought up to date, but for a dry run. Blocks.
    pub(super) fn open(folder: &Path, dry_run: bool) -> Result<Self> {
        let path = data_folder::database(folder);
        if !path.is_file() {
            return Err(Error::NoDatabase(folder.to_owned()));
        }
        let lock = Lock::take(folder)?;
        if !dry_run {
            drop(SqliteStore::open(&path, Arc::new(SystemClock))?);
        }
        let rows = Departing::open(&path)?;
        let count = rows.unfinished()?;
        if count > 0 {
            let folder = folder.to_owned();
            return Err(Error::Unfinished { folder, count });
        }
        let made = Uuid::new_v4().to_string();
        let installation = match dry_run {
            true => rows.installation()?.unwrap_or(made),
            false => rows.named(&made)?,
        };
        let mut database = Verification::open(&path)?;
        let (blobs, bytes) = database.extent()?;
        let report = Report {
            rows: rows.count()?,
            blobs,
            bytes,
            ..Report::default()
        };
        let path = data_folder::blobs(folder);
        let blobs = LocalBlobs::existing(&path).map_err(|source| Error::File { path, source })?;
        Ok(Self {
            installation,
            rows,
            database,
            blobs,
            report,
            _lock: lock,
        })
    }
}
