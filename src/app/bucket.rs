//! A bucket of an object storage as the place of blobs. The note of its owner is an object in it.

use std::io;
use std::path::Path;

use tokio::runtime::Handle;

use super::Error;
use super::owner::{self, Known};
use crate::blobs::{self, BlobStore, ObjectBlobs, ObjectSettings};

/// Tries all that blobs need of the storage. Leaves the bucket as it was.
///
/// # Errors
/// Where the settings make no sense, or the storage does not do what blobs need.
pub(super) async fn open(settings: &ObjectSettings) -> Result<ObjectBlobs, Error> {
    let blobs = ObjectBlobs::new(settings)?;
    blobs.probe().await?;
    Ok(blobs)
}

/// Takes the bucket for an installation.
///
/// # Errors
/// Where the bucket is another installation's, or has not what the database names.
pub(super) async fn claim(
    blobs: &ObjectBlobs,
    known: Known,
    adopt_empty: bool,
) -> Result<(), Error> {
    let installation = known.installation.clone();
    let bucket = Bucket {
        blobs: blobs.clone(),
        runtime: Handle::current(),
    };
    let claimed = tokio::task::spawn_blocking(move || {
        let objects = || {
            let listed = bucket.runtime.block_on(bucket.blobs.list());
            Ok(listed?.len())
        };
        let place = Path::new(bucket.blobs.place());
        owner::claim(&bucket, place, &known, &objects, adopt_empty, &told)
    });
    claimed
        .await
        .map_err(|stopped| Error::Temporary(stopped.into()))??;
    blobs.expect_owner(&installation);
    Ok(())
}

/// The blobs of a bucket, for threads that may block.
struct Bucket {
    blobs: ObjectBlobs,
    runtime: Handle,
}

impl owner::Place for Bucket {
    fn owner(&self) -> io::Result<Option<String>> {
        let owner = self.runtime.block_on(self.blobs.owner());
        Ok(owner
            .map_err(io::Error::other)?
            .map(|it| it.trim().to_owned()))
    }

    fn note(&self, installation: &str) -> io::Result<()> {
        match self.owner()? {
            None => self.replace(installation),
            Some(_) => Ok(()),
        }
    }

    fn replace(&self, installation: &str) -> io::Result<()> {
        let noted = self.runtime.block_on(self.blobs.note_owner(installation));
        noted.map_err(io::Error::other)
    }
}

/// The error of a look at the note: that of the storage.
fn told(error: io::Error) -> Error {
    Error::Blobs(match error.downcast::<blobs::Error>() {
        Ok(told) => told,
        Err(error) => blobs::Error::Io(error),
    })
}
