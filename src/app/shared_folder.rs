//! A data folder that has blobs alone, since the records are in a database on a server. Several processes may use it
//! at once, so that none locks it: the note of its owner tells that they are of one installation.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Error;
use super::data_folder::{self, Place, blocking, failed};
use super::owner::{self, Folder, Found, Place as _};
use crate::store::Store;

/// Facts of the database that decide whether the folder is taken.
struct Known {
    installation: String,
    live_blobs: usize,
}

/// Opens the folder, and makes it where there is none. `adopt_empty` admits a database that knows nothing beside files,
/// one whose files are gone, and a folder of another installation.
///
/// # Errors
/// Where the folder is another installation's.
pub(super) async fn open(
    folder: &Path,
    store: &Arc<dyn Store>,
    adopt_empty: bool,
) -> Result<Place, Error> {
    let known = Known {
        installation: store.installation(uuid::Uuid::new_v4().to_string()).await?,
        // Before the files are counted: a blob that becomes live has its file.
        live_blobs: store.live_blobs().await?.len(),
    };
    open_as(folder, known, adopt_empty).await
}

/// Opens the folder for an installation that has no records on a server yet.
///
/// # Errors
/// Where the folder is another installation's, or has files.
pub(super) async fn open_for(folder: &Path, installation: String) -> Result<Place, Error> {
    let known = Known {
        installation,
        live_blobs: 0,
    };
    open_as(folder, known, false).await
}

async fn open_as(folder: &Path, known: Known, adopt_empty: bool) -> Result<Place, Error> {
    let folder = folder.to_owned();
    blocking(move || {
        if data_folder::has_database(&folder)? {
            return Err(Error::EmbeddedFolder(folder));
        }
        let blobs = data_folder::make_for_blobs(&folder)?;
        let files = blobs.list().map_err(failed(&folder))?;
        claim(&folder, &known, files.len(), adopt_empty)?;
        let note = Folder(folder);
        Ok(Place::of_blobs(blobs).owned_by(note, known.installation))
    })
    .await
}

fn claim(folder: &Path, known: &Known, files: usize, adopt_empty: bool) -> Result<(), Error> {
    let note = Folder(folder.to_owned());
    let installation = &*known.installation;
    let look = || owner::look(&note, installation).map_err(failed(folder));
    if look()? == Found::Nobodys {
        let refusal = match (known.live_blobs, files) {
            _ if adopt_empty => None,
            (0, 0) => None,
            (0, files) => Some(Error::UnknownBlobs {
                folder: folder.to_owned(),
                files,
            }),
            (blobs, _) => Some(Error::BlobsLost {
                folder: folder.to_owned(),
                blobs,
                reason: format!("it has no file {:?} of this installation", owner::NOTE),
            }),
        };
        match refusal {
            None => note.note(installation).map_err(failed(folder))?,
            // Another process of this installation may have come between.
            Some(refusal) if look()? != Found::Own => return Err(refusal),
            Some(_) => {}
        }
    }
    match look()? {
        Found::Own => Ok(()),
        Found::Of(_) | Found::Nobodys if adopt_empty => {
            note.replace(installation).map_err(failed(folder))
        }
        Found::Of(owner) => Err(Error::OtherOwner {
            folder: folder.to_owned(),
            owner,
            installation: installation.to_owned(),
        }),
        Found::Nobodys => Err(failed(folder)(std::io::Error::other(
            "the note of its owner cannot be read again",
        ))),
    }
}

/// Refuses a folder that belongs to an installation whose records are in a database on a server.
pub(super) fn check_is_not_shared(folder: &Path) -> Result<(), Error> {
    match Folder(folder.to_owned()).owner().map_err(failed(folder))? {
        None => Ok(()),
        Some(owner) => Err(Error::SharedFolder {
            folder: PathBuf::from(folder),
            owner,
        }),
    }
}
