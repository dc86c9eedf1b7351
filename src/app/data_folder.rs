//! The data folder: for one process and its user alone, and opened if its parts belong together.

use std::fs::{self, DirBuilder, File, Metadata, Permissions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::runtime::Handle;

use super::Error;
use super::bucket;
use super::owner::{self, Found, Known};
use crate::ballast::{self, Ballast};
use crate::blobs::{BlobStore, LocalBlobs, ObjectBlobs};
use crate::model::Clock;
use crate::store::sqlite::SqliteStore;
use crate::store::{self, Store};

const DATABASE: &str = "metadata.sqlite";
const LOG: &str = "metadata.sqlite-wal";
/// The other files that SQLite keeps beside the database.
const BESIDE: [&str; 2] = ["metadata.sqlite-shm", "metadata.sqlite-journal"];
const CONTENTS: &str = "contents";
pub(super) const LOCK: &str = "lock";
/// The mark of a folder whose installation was moved: a file that says where to.
pub(super) const MIGRATED: &str = "migrated";
/// The file for the token of the first admin.
pub(super) const BOOTSTRAP_TOKEN: &str = "bootstrap-token";
/// Files and folders beside database and blobs that a backup needs.
pub(super) const OTHERS: [&str; 2] = [BOOTSTRAP_TOKEN, super::certificates::FOLDER];

/// Images are as secret as what their disks hold.
const FOLDER_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;
/// A folder with this bit is shared by design, as `/tmp` is.
const STICKY: u32 = 0o1000;

/// A data folder that this process holds.
pub(super) struct DataFolder {
    pub store: Arc<SqliteStore>,
    pub place: Place,
    pub ballast: Ballast,
    pub lock: Lock,
}

/// The files of database and blobs, as they were when they were opened.
#[derive(Clone)]
pub(super) struct Place {
    pub blobs: Arc<dyn BlobStore>,
    /// The file of an embedded database, with its device and inode.
    database: Option<(PathBuf, (u64, u64))>,
    /// The note of the owner, with the name that it must have.
    owner: Option<(owner::Folder, String)>,
}

impl DataFolder {
    /// Opens a data folder, and makes it where there is none. `adopt_empty` admits a database that knows
    /// nothing beside files, and a content folder without the files that the database names. The blobs are in a bucket
    /// where there is one.
    pub(super) async fn open(
        folder: &Path,
        bucket: Option<&ObjectBlobs>,
        clock: Arc<dyn Clock>,
        adopt_empty: bool,
    ) -> Result<Self, Error> {
        let path = folder.to_owned();
        let (lock, store, ballast) = blocking(move || {
            let lock = Lock::take(&path)?;
            if let Some(to) = migrated_to(&path)? {
                return Err(Error::Migrated { folder: path, to });
            }
            restrict_all(&path);
            let database = path.join(DATABASE);
            if !adopt_empty {
                check_database_is_there(&path)?;
            }
            create_private(&database).map_err(failed(&path))?;
            let ballast = Ballast::open(&path);
            let store = match SqliteStore::open(&database, clock.clone()) {
                // A start makes room too: what is left unfinished is ended. Where the index of the log finds no
                // room, SQLite tells of an input or output error.
                Err(store::Error::Full | store::Error::Failed(_))
                    if ballast.is_disk_full() && ballast.give() =>
                {
                    SqliteStore::open(&database, clock)?
                }
                opened => opened?,
            };
            store.keep_room(ballast.clone());
            Ok((lock, Arc::new(store), ballast))
        })
        .await?;
        let database = folder.join(DATABASE);
        let identity = identity(&database).map_err(failed(folder))?;
        let blobs: Result<Arc<dyn BlobStore>, Error> = match bucket {
            None => open_blobs(folder, &store, adopt_empty)
                .await
                .map(|blobs| Arc::new(blobs.beside(ballast.clone())) as _),
            Some(bucket) => open_bucket(folder, bucket, &store, adopt_empty).await,
        };
        match blobs {
            Ok(blobs) => Ok(Self {
                store,
                place: Place {
                    blobs,
                    database: Some((database, identity)),
                    owner: None,
                },
                ballast,
                lock,
            }),
            Err(error) => {
                store.close().await;
                Err(error)
            }
        }
    }
}

/// Whether a folder has an embedded database.
pub(super) fn has_database(folder: &Path) -> Result<bool, Error> {
    database(folder).try_exists().map_err(failed(folder))
}

/// The place that the installation of a folder was moved to.
pub(super) fn migrated_to(folder: &Path) -> Result<Option<String>, Error> {
    match fs::read_to_string(folder.join(MIGRATED)) {
        Ok(to) => Ok(Some(to.trim().to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(folder)(error)),
    }
}

/// Marks a folder as one whose installation was moved, so that no server works in it again; or takes the mark away.
pub(super) fn mark_migrated(folder: &Path, to: Option<&str>) -> Result<(), Error> {
    let mark = folder.join(MIGRATED);
    let marked = match to {
        Some(to) => {
            let new = folder.join(format!("{MIGRATED}.new"));
            let written = File::create(&new).and_then(|mut file| {
                writeln!(file, "{to}")?;
                file.sync_all()
            });
            written.and_then(|()| fs::rename(&new, &mark))
        }
        None => fs::remove_file(&mark),
    };
    marked
        .and_then(|()| File::open(folder)?.sync_all())
        .map_err(failed(folder))
}

/// Makes a folder for what a server keeps beside a database and blobs that are elsewhere, where there is none.
pub(super) fn make_for_others(folder: &Path) -> Result<(), Error> {
    create_folder(folder).map_err(failed(folder))
}

/// Makes a folder for blobs alone, where there is none, and opens it.
pub(super) fn make_for_blobs(folder: &Path) -> Result<LocalBlobs, Error> {
    create_folder(folder).map_err(failed(folder))?;
    restrict_all(folder);
    LocalBlobs::open(&blobs(folder)).map_err(failed(folder))
}

impl Place {
    pub(super) fn of_blobs(blobs: Arc<dyn BlobStore>) -> Self {
        Self {
            blobs,
            database: None,
            owner: None,
        }
    }

    /// The same, as long as the note of the owner has this name.
    pub(super) fn owned_by(self, note: owner::Folder, installation: String) -> Self {
        Self {
            owner: Some((note, installation)),
            ..self
        }
    }

    /// Fails where the blobs are no longer those that were opened. Blocks, in a thread of a tokio runtime that may.
    pub(super) fn check_blobs(&self) -> Result<(), String> {
        let checked = Handle::current().block_on(self.blobs.check());
        checked.map_err(|error| error.to_string())?;
        if let Some((note, installation)) = &self.owner {
            match owner::look(note, installation) {
                Ok(Found::Own) => {}
                Ok(Found::Nobodys) => return Err("the note of the owner is gone".to_owned()),
                Ok(Found::Of(owner)) => {
                    return Err(format!("the blobs belong to the installation {owner} now"));
                }
                Err(error) => return Err(format!("the note of the owner: {error}")),
            }
        }
        Ok(())
    }

    /// Fails where an embedded database is no longer the one that was opened. Blocks.
    pub(super) fn check_database(&self) -> Result<(), String> {
        let Some((database, opened)) = &self.database else {
            return Ok(());
        };
        match identity(database) {
            Ok(found) if found == *opened => Ok(()),
            Ok(_) => Err(format!(
                "{} was replaced by another file; nothing that is written now will be found there",
                database.display()
            )),
            Err(error) => Err(format!("{}: {error}", database.display())),
        }
    }
}

/// Held as long as the data folder is in use.
pub(super) struct Lock(#[expect(dead_code, reason = "closing it releases the lock")] File);

impl Lock {
    /// Makes the folder, if it is not there, and takes its lock.
    pub(super) fn take(folder: &Path) -> Result<Self, Error> {
        create_folder(folder).map_err(failed(folder))?;
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(FILE_MODE)
            .open(folder.join(LOCK))
            .map_err(failed(folder))?;
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(TryLockError::WouldBlock) => Err(Error::Locked(folder.to_owned())),
            Err(TryLockError::Error(error)) => Err(failed(folder)(error)),
        }
    }
}

/// The path of the database of a data folder.
pub(super) fn database(folder: &Path) -> PathBuf {
    folder.join(DATABASE)
}

/// The path of the blobs of a data folder.
pub(super) fn blobs(folder: &Path) -> PathBuf {
    folder.join(CONTENTS)
}

pub(super) fn failed(folder: &Path) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Folder {
        what: "data folder",
        path: folder.to_owned(),
        source,
    }
}

pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let ended = tokio::task::spawn_blocking(work).await;
    ended.map_err(|stopped| Error::Temporary(stopped.into()))?
}

/// Opens a bucket as the place of blobs of an embedded database. No content folder stays beside it: commands that read
/// the data folder would find all blobs missing there.
async fn open_bucket(
    folder: &Path,
    bucket: &ObjectBlobs,
    store: &SqliteStore,
    adopt_empty: bool,
) -> Result<Arc<dyn BlobStore>, Error> {
    let contents = folder.join(CONTENTS);
    match fs::remove_dir(&contents) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => {
            return Err(Error::Folder {
                what: "the blobs are in a bucket, and there is a content folder too",
                path: contents,
                source: error,
            });
        }
    }
    bucket::claim(bucket, Known::of(store).await?, adopt_empty).await?;
    Ok(Arc::new(bucket.clone()))
}

/// Opens the content folder, if it is the one that the database speaks of.
async fn open_blobs(
    folder: &Path,
    store: &SqliteStore,
    adopt_empty: bool,
) -> Result<LocalBlobs, Error> {
    let path = folder.join(CONTENTS);
    let live = store.live_blobs().await?;
    let lost = |reason: String| Error::BlobsLost {
        folder: path.clone(),
        blobs: live.len(),
        reason,
    };
    let is_there = path.try_exists().map_err(|error| lost(error.to_string()))?;
    if !is_there && !live.is_empty() && !adopt_empty {
        return Err(lost("there is no such folder".to_owned()));
    }
    let blobs = LocalBlobs::open(&path).map_err(|error| {
        if live.is_empty() {
            failed(folder)(error)
        } else {
            lost(error.to_string())
        }
    })?;
    let files = blobs.list().map_err(|error| lost(error.to_string()))?;
    let before = store.content_folder().await?;
    let found = blobs.identity();
    let found = (found.device, found.inode);
    let is_same = before.is_none_or(|before| before == found);
    if !adopt_empty {
        if store.knows_nothing().await? && !files.is_empty() {
            return Err(Error::DatabaseLost {
                database: folder.join(DATABASE),
                why: "knows nothing",
                blobs: path,
                files: files.len(),
            });
        }
        let files: std::collections::HashSet<&String> = files.iter().collect();
        let none_is_there = !live.is_empty() && !live.iter().any(|blob| files.contains(&blob.id));
        // A single one may have been removed by hand.
        if none_is_there && (!is_same || live.len() > 1) {
            return Err(lost("none of their files is in it".to_owned()));
        }
    }
    if before != Some(found) {
        store.set_content_folder(found).await?;
    }
    Ok(blobs)
}

/// Refuses a folder that has blobs, but no database or an empty file in its place. SQLite would take
/// a log without its database for stale, and remove it.
fn check_database_is_there(folder: &Path) -> Result<(), Error> {
    let length = |name: &str| match fs::metadata(folder.join(name)) {
        Ok(found) => Ok(Some(found.len())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(folder)(error)),
    };
    let why = match length(DATABASE)? {
        None => "is not there",
        Some(0) => "is empty",
        Some(_) => return Ok(()),
    };
    let files = match fs::read_dir(folder.join(CONTENTS)) {
        Ok(entries) => entries.count(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
        Err(error) => return Err(failed(folder)(error)),
    };
    let has_log = length(LOG)?.is_some_and(|length| length > 0);
    if files == 0 && !has_log {
        return Ok(());
    }
    Err(Error::DatabaseLost {
        database: folder.join(DATABASE),
        why,
        blobs: folder.join(CONTENTS),
        files,
    })
}

/// Makes a folder that nobody else may look into; those above it are usual ones.
fn create_folder(folder: &Path) -> io::Result<()> {
    if let Some(parent) = folder.parent() {
        fs::create_dir_all(parent)?;
    }
    match DirBuilder::new().mode(FOLDER_MODE).create(folder) {
        // The process's mask may have taken more away. What cannot be set is told with all the rest.
        Ok(()) => {
            let _ = fs::set_permissions(folder, Permissions::from_mode(FOLDER_MODE));
            Ok(())
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

/// Makes an empty file that nobody else may read, unless there is one. SQLite gives the files beside a
/// database the permissions that this has.
fn create_private(path: &Path) -> io::Result<()> {
    let made = File::options()
        .write(true)
        .create_new(true)
        .mode(FILE_MODE)
        .open(path);
    match made {
        // Those of SQLite beside it get what this has. File systems without permissions refuse it.
        Ok(file) => {
            if let Err(error) = file.set_permissions(Permissions::from_mode(FILE_MODE)) {
                tracing::debug!(%error, "the permissions of the database cannot be set");
            }
            Ok(())
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

/// Takes from others what they may do with a data folder that is there. What cannot be changed is told,
/// and is no reason not to serve.
fn restrict_all(folder: &Path) {
    let mut kept = Vec::new();
    let mut attempt = |path: PathBuf, found: io::Result<Metadata>, mode: u32| match found
        .and_then(|found| restrict(&path, &found, mode))
    {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => kept.push((path, error)),
    };
    let blobs = folder.join(CONTENTS);
    // These two may be links to where the administrator wants them; nothing below them is followed.
    for path in [folder, &blobs] {
        attempt(path.to_owned(), fs::metadata(path), FOLDER_MODE);
    }
    let beside = [LOCK, DATABASE, LOG, ballast::NAME]
        .into_iter()
        .chain(BESIDE);
    for path in beside.map(|name| folder.join(name)) {
        let found = fs::symlink_metadata(&path);
        attempt(path, found, FILE_MODE);
    }
    for entry in fs::read_dir(&blobs).into_iter().flatten().flatten() {
        attempt(entry.path(), entry.metadata(), FILE_MODE);
    }
    if let Some((path, error)) = kept.first() {
        tracing::warn!(
            count = kept.len(),
            path = %path.display(),
            %error,
            "others may be able to read data: the permissions of some files and folders cannot be set"
        );
    }
}

fn restrict(path: &Path, found: &Metadata, mode: u32) -> io::Result<()> {
    let is_right_kind = match mode {
        FOLDER_MODE => found.is_dir(),
        _ => found.is_file(),
    };
    if !is_right_kind {
        return match found.is_symlink() {
            true => Err(io::Error::other("a symbolic link is not followed")),
            // Not one of ours.
            false => Ok(()),
        };
    }
    if found.is_dir() && found.mode() & STICKY != 0 {
        return Err(io::Error::other(
            "the folder is shared: give a folder of its own to the server",
        ));
    }
    if found.mode() & 0o7777 == mode {
        return Ok(());
    }
    fs::set_permissions(path, Permissions::from_mode(mode))
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let found = fs::metadata(path)?;
    Ok((found.dev(), found.ino()))
}
