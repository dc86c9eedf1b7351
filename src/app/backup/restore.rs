//! Restoring a backup into a new data folder. The database gets its name last, after each of its blobs was found.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::{DATABASE, Error, Job, Progress, Report, Result, Settings, UNFINISHED};
use super::{at, blocking, data_folder, empty, files, names};
use crate::app::data_folder::Lock;
use crate::model::SystemClock;
use crate::store::Store;
use crate::store::sqlite::{SqliteStore, Verification};

/// The database of a data folder that is being restored: a folder with it is not served, and may be restored again.
const UNRESTORED: &str = "metadata.sqlite.restoring";

/// Restores the backup in `from` as the data folder `data`; nothing where `progress` ended it.
///
/// # Errors
/// Those of the folders and the database, [`Error::NotEmpty`] and [`Error::Damaged`].
pub async fn restore(
    from: &Path,
    data: &Path,
    settings: Settings,
    mut progress: impl Progress + 'static,
) -> Result<Option<Report>> {
    let (backup, folder) = (from.to_owned(), data.to_owned());
    let unrestored = data.join(UNRESTORED);
    let database = unrestored.clone();
    let (of_backup, lock, store) = blocking(move || {
        let of_backup = lock(&backup)?;
        let lock = claim(&folder)?;
        empty(&database)?;
        let source = backup.join(DATABASE);
        fs::copy(&source, &database).map_err(at(&database))?;
        // A backup of an earlier version is brought up to date.
        let store = SqliteStore::open(&database, Arc::new(SystemClock))?;
        Ok((of_backup, lock, store))
    })
    .await?;
    store.close().await;
    drop(store);
    let (backup, folder) = (from.to_owned(), data.to_owned());
    blocking(move || {
        let _locks = (of_backup, lock);
        let job = Job {
            from: data_folder::blobs(&backup),
            to: data_folder::blobs(&folder),
            settings,
        };
        let mut database = Verification::open(&unrestored)?;
        let Some((report, live)) = job.place_all(&mut database, &mut progress)? else {
            return Ok(None);
        };
        files::keep_only(&job.to, &live).map_err(at(&job.to))?;
        for name in data_folder::OTHERS {
            let (from, to) = (backup.join(name), folder.join(name));
            files::copy_beside(&from, &to).map_err(at(&from))?;
        }
        // With the last connection SQLite moves its log into the file.
        drop(database);
        let database = data_folder::database(&folder);
        files::finish(&unrestored, &database).map_err(at(&database))?;
        Ok(Some(report))
    })
    .await
}

/// Keeps others from making the backup anew meanwhile.
fn lock(backup: &Path) -> Result<Option<File>> {
    if !backup.join(DATABASE).is_file() {
        return Err(match backup.join(UNFINISHED).exists() {
            true => Error::Unfinished(backup.to_owned()),
            false => Error::NoBackup(backup.to_owned()),
        });
    }
    let path = backup.join(data_folder::LOCK);
    let file = match File::open(&path) {
        // A copy of a backup may lack it.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file.map_err(at(&path))?,
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Err(super::super::Error::Locked(backup.to_owned()).into()),
        Err(TryLockError::Error(error)) => Err(at(&path)(error)),
    }
}

/// Takes a folder to restore into: a new one, an empty one, or one where a restore was not finished.
fn claim(data: &Path) -> Result<Lock> {
    let names = names(data)?;
    let is_unfinished = names.contains(UNRESTORED) && !data_folder::database(data).exists();
    if !names.is_empty() && !is_unfinished {
        return Err(Error::NotEmpty(data.to_owned()));
    }
    Ok(Lock::take(data)?)
}
