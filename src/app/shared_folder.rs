//! A data folder that has blobs alone, since the records are in a database on a server. Several processes may use it
//! at once, so that none locks it: the note of its owner tells that they are of one installation.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::data_folder::{self, Place, blocking, failed};
use super::owner::{self, Folder, Known, Place as _};
use super::{Error, bucket};
use crate::blobs::ObjectBlobs;
use crate::store::Store;

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
    let known = Known::of(&**store).await?;
    open_as(folder, known, adopt_empty).await
}

/// Opens the folder, or the bucket and the folder beside it, for an installation that has no records on a server yet.
///
/// # Errors
/// Where the place is another installation's, or has files.
pub(super) async fn open_for(
    folder: &Path,
    bucket: Option<&ObjectBlobs>,
    installation: String,
) -> Result<Place, Error> {
    let known = Known {
        installation,
        live_blobs: 0,
    };
    let Some(bucket) = bucket else {
        return open_as(folder, known, false).await;
    };
    make_beside(folder).await?;
    bucket::claim_for(bucket, known, false).await?;
    Ok(Place::of_blobs(Arc::new(bucket.clone())))
}

async fn open_as(folder: &Path, known: Known, adopt_empty: bool) -> Result<Place, Error> {
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

/// Makes the folder for the few files that a server keeps beside a database on a server and blobs in a bucket.
///
/// # Errors
/// Where the bucket is another installation's.
pub(super) async fn open_beside(
    folder: &Path,
    bucket: &ObjectBlobs,
    store: &Arc<dyn Store>,
    adopt_empty: bool,
) -> Result<Place, Error> {
    make_beside(folder).await?;
    bucket::claim(bucket, &**store, adopt_empty).await?;
    Ok(Place::of_blobs(Arc::new(bucket.clone())))
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
