//! Verifying the records and the blobs of an installation, whether servers run on them or not.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::runtime::Handle;

use super::Error;
use super::backends::{BlobSettings, PostgresSettings};
use super::data_folder::{self, Lock};
use super::owner::{self, Place as _};
use crate::blobs::{LocalBlobs, ObjectBlobs};
use crate::images::verify;
pub use crate::images::verify::{Findings, Problem, ProblemKind, Progress};
use crate::model::SystemClock;
use crate::store::postgres::PostgresRecords;
use crate::store::sqlite::{SqliteStore, Verification};
use crate::store::{self, Records};

/// The places that are verified.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The data folder, for the records and the blobs that are in no other place.
    pub folder: PathBuf,
    /// The database on a server, where it has the records.
    pub store: Option<PostgresSettings>,
    pub blobs: BlobSettings,
}

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

/// Reads the records and all blobs. Nothing where `progress` ended it. Blocks, for as long as the disk or the network
/// takes, in a thread of a tokio runtime that may block.
///
/// # Errors
/// Where a place cannot be opened, or has the blobs of another installation.
pub fn verify(
    settings: &Settings,
    progress: &mut impl Progress,
) -> Result<Option<Findings>, Error> {
    let folder = &settings.folder;
    let mut records: Box<dyn Records> = match &settings.store {
        None => Box::new(embedded(folder)?),
        Some(store) => Box::new(Handle::current().block_on(PostgresRecords::open(store))?),
    };
    match &settings.blobs {
        BlobSettings::Object(settings) => {
            let blobs = ObjectBlobs::new(settings)?;
            let owner = Handle::current().block_on(blobs.owner())?;
            let place = PathBuf::from(blobs.place());
            let owner = check_owner(&mut *records, place, owner)?;
            blobs.expect_owner(&owner);
            Ok(verify::verify(&mut *records, &blobs, progress))
        }
        BlobSettings::Folder => {
            if settings.store.is_some() {
                let owner = owner::Folder(folder.clone()).owner();
                let owner = owner.map_err(data_folder::failed(folder))?;
                check_owner(&mut *records, folder.clone(), owner)?;
            }
            let path = data_folder::blobs(folder);
            let blobs = LocalBlobs::existing(&path).map_err(|source| Error::Folder {
                what: "content folder",
                path,
                source,
            })?;
            Ok(verify::verify(&mut *records, &blobs, progress))
        }
    }
}

/// The records of a data folder.
fn embedded(folder: &Path) -> Result<Verification, Error> {
    let path = data_folder::database(folder);
    if let Err(source) = path.metadata() {
        return Err(Error::Folder {
            what: "database",
            path,
            source,
        });
    }
    open(folder)
}

/// Refuses a place of another installation, whose blobs would all be taken for damaged; the name of the owner.
fn check_owner(
    records: &mut dyn Records,
    folder: PathBuf,
    owner: Option<String>,
) -> Result<String, Error> {
    let installation = records.installation()?.unwrap_or_default();
    match owner.map(|owner| owner.trim().to_owned()) {
        Some(owner) if owner == installation => Ok(owner),
        Some(owner) => Err(Error::OtherOwner {
            folder,
            owner,
            installation,
        }),
        None => Err(Error::BlobsLost {
            blobs: usize::try_from(records.extent()?.0).unwrap_or(usize::MAX),
            reason: format!("it has no file {:?} of this installation", owner::NOTE),
            folder,
        }),
    }
}
