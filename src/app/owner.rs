//! The owner of a place of blobs: the installation that noted itself there. Each installation has a name in its
//! database. An installation that finds another name beside the blobs would take that one's blobs for garbage, or
//! have its own removed, so it does not start. No conditional write is needed: a note is put where there is none, and
//! then read again, and whoever serves reads it again from time to time.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::Error;
use crate::store::Store;

/// The name of the note.
pub(super) const NOTE: &str = "owner";
const MODE: u32 = 0o600;

/// A place that can hold a note of its owner beside the blobs. Blocks.
pub(super) trait Place {
    /// The name that was noted.
    fn owner(&self) -> io::Result<Option<String>>;

    /// Notes a name where there is none. Whether another one was noted at the same time is told by [`Self::owner`].
    fn note(&self, installation: &str) -> io::Result<()>;

    /// Notes a name in any case.
    fn replace(&self, installation: &str) -> io::Result<()>;
}

/// The state of a place as an installation finds it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    Own,
    Nobodys,
    Of(String),
}

/// Looks whose place it is.
pub(super) fn look(place: &dyn Place, installation: &str) -> io::Result<Found> {
    Ok(match place.owner()? {
        None => Found::Nobodys,
        Some(owner) if owner == installation => Found::Own,
        Some(owner) => Found::Of(owner),
    })
}

/// A folder, in which the note is a file.
#[derive(Debug, Clone)]
pub(super) struct Folder(pub PathBuf);

impl Folder {
    fn write(
        &self,
        installation: &str,
        put: impl Fn(&Path, &Path) -> io::Result<()>,
    ) -> io::Result<()> {
        // Nobody reads half a note, and the names of two who write at once are different.
        let new = self.0.join(format!("{NOTE}.{}", uuid::Uuid::new_v4()));
        let mut file = File::options()
            .write(true)
            .create_new(true)
            .mode(MODE)
            .open(&new)?;
        let written = writeln!(file, "{installation}")
            .and_then(|()| file.sync_all())
            .and_then(|()| put(&new, &self.0.join(NOTE)))
            .and_then(|()| File::open(&self.0)?.sync_all());
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => written,
        }
    }
}

impl Place for Folder {
    fn owner(&self) -> io::Result<Option<String>> {
        match fs::read_to_string(self.0.join(NOTE)) {
            Ok(text) => Ok(Some(text.trim().to_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn note(&self, installation: &str) -> io::Result<()> {
        self.write(installation, |new, note| match fs::hard_link(new, note) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            linked => linked,
        })
    }

    fn replace(&self, installation: &str) -> io::Result<()> {
        self.write(installation, |new, note| fs::rename(new, note))
    }
}

/// Facts of the database that decide whether a place is taken.
pub(super) struct Known {
    pub installation: String,
    pub live_blobs: usize,
}

impl Known {
    pub(super) async fn of(store: &dyn Store) -> Result<Self, Error> {
        Ok(Self {
            installation: store.installation(uuid::Uuid::new_v4().to_string()).await?,
            // Before the files are counted: a blob that becomes live has its file.
            live_blobs: store.live_blobs().await?.len(),
        })
    }
}

/// Takes a place that is nobody's, or already that of the installation. `adopt_empty` admits a database that knows
/// nothing beside files, one whose files are gone, and a place of another installation. `files` counts the files that
/// are there. Blocks.
///
/// # Errors
/// Where the place is another installation's, or database and files do not belong together.
pub(super) fn claim(
    place: &dyn Place,
    name: &Path,
    known: &Known,
    files: &dyn Fn() -> Result<usize, Error>,
    adopt_empty: bool,
    failed: &dyn Fn(io::Error) -> Error,
) -> Result<(), Error> {
    let installation = &*known.installation;
    let look = || look(place, installation).map_err(failed);
    let folder = name.to_owned();
    if look()? == Found::Nobodys {
        let refusal = match (known.live_blobs, files()?) {
            _ if adopt_empty => None,
            (0, 0) => None,
            (0, files) => Some(Error::UnknownBlobs { folder, files }),
            (blobs, _) => Some(Error::BlobsLost {
                folder,
                blobs,
                reason: format!("it has no file {NOTE:?} of this installation"),
            }),
        };
        match refusal {
            None => place.note(installation).map_err(failed)?,
            // Another process of this installation may have come between.
            Some(refusal) if look()? != Found::Own => return Err(refusal),
            Some(_) => {}
        }
    }
    match look()? {
        Found::Own => Ok(()),
        Found::Of(_) | Found::Nobodys if adopt_empty => place.replace(installation).map_err(failed),
        Found::Of(owner) => Err(Error::OtherOwner {
            folder: name.to_owned(),
            owner,
            installation: installation.to_owned(),
        }),
        Found::Nobodys => Err(failed(io::Error::other(
            "the note of its owner cannot be read again",
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_owner_of_a_folder_stays_until_it_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let place = Folder(folder.path().to_owned());
        assert_eq!(look(&place, "a").unwrap(), Found::Nobodys);
        for installation in ["a", "b"] {
            place.note(installation).unwrap();
            assert_eq!(look(&place, "a").unwrap(), Found::Own);
        }
        assert_eq!(look(&place, "b").unwrap(), Found::Of("a".to_owned()));
        place.replace("b").unwrap();
        assert_eq!(look(&place, "b").unwrap(), Found::Own);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
