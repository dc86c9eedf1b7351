//! Verifying a data folder, whether a server runs on it or not.

use std::path::Path;
use std::sync::Arc;

use super::Error;
use super::data_folder::{self, Lock};
use crate::blobs::LocalBlobs;
use crate::images::verify;
pub use crate::images::verify::{Findings, Problem, ProblemKind, Progress};
use crate::model::SystemClock;
use crate::store;
use crate::store::sqlite::{SqliteStore, Verification};

/// Opens the database of a data folder. An older schema is brought up to date where no server runs.
pub(super) fn open(folder: &Path) -> Result<Verification, Error> {
    let path = data_folder::database(folder);
    Ok(match Verification::open(&path) {
        Err(store::Error::OlderSchema { .. }) => {
            // Where a server runs, it has to be one of this version.
            let _lock = Lock::take(folder)?;
            drop(SqliteStore::open(&path, Arc::new(SystemClock))?);
            Verification::open(&path)?
        }
        opened => opened?,
    })
}

/// Reads the database and all blobs of a data folder. Nothing where `progress` ended it. Blocks, for as
/// long as the disk takes, in a thread of a tokio runtime that may block.
pub fn verify(folder: &Path, progress: &mut impl Progress) -> Result<Option<Findings>, Error> {
    let path = data_folder::database(folder);
    if let Err(source) = path.metadata() {
        return Err(Error::Folder {
            what: "database",
            path,
            source,
        });
    }
    let mut database = open(folder)?;
    let blobs = data_folder::blobs(folder);
    let blobs = LocalBlobs::existing(&blobs).map_err(|source| Error::Folder {
        what: "content folder",
        path: blobs.clone(),
        source,
    })?;
    Ok(verify::verify(&mut database, &blobs, progress))
}
