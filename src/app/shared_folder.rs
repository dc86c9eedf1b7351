//! A data folder that has blobs alone, since the records are in a database on a server. Several processes may use it
//! at once, so that none locks it: the note of its owner tells that they are of one installation.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::data_folder::{self, Place, blocking, failed};
use super::owner::{self, Folder, Known, Place as _};
use super::{Error, bucket};
use crate::blobs::ObjectBlobs;

/// Opens the folder of an installation, and makes it where there is none; the bucket and the folder beside it, where the
/// blobs are in one. `adopt_empty` admits a database that knows nothing beside files, one whose files are gone, and a
/// place of another installation.
///
/// # Errors
/// Where the place is another installation's.
pub(super) async fn open(
    folder: &Path,
    bucket: Option<&ObjectBlobs>,
    known: Known,
    adopt_empty: bool,
) -> Result<Place, Error> {
    if let Some(bucket) = bucket {
        make_beside(folder).await?;
        bucket::claim(bucket, known, adopt_empty).await?;
        return Ok(Place::of_blobs(Arc::new(bucket.clone())));
    }
    let folder = folder.to_owned();
    blocking(move || {
        if data_folder::has_database(&folder)? {
            return Err(Error::EmbeddedFolder(folder));
        }
        let blobs = data_folder::make_for_blobs(&folder)?;
        let note = Folder(folder.clone());
        let files = || Ok(blobs.list().map_err(failed(&folder))?.len());
        let at_folder = |error| failed(&folder)(error);
        owner::claim(&note, &folder, &known, &files, adopt_empty, &at_folder)?;
        Ok(Place::of_blobs(Arc::new(blobs)).owned_by(note, known.installation))
    })
    .await
}

async fn make_beside(folder: &Path) -> Result<(), Error> {
    let folder = folder.to_owned();
    blocking(move || match data_folder::has_database(&folder)? {
        true => Err(Error::EmbeddedFolder(folder)),
        false => data_folder::make_for_others(&folder),
    })
    .await
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
