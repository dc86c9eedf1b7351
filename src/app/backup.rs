//! Back-ups of a data folder while a server works in it.
//!
//! A backup is a folder with the database in one file, the blobs beside it, and the few other files that a server keeps.
//! A hold in the store comes first: blobs that are deleted from then on keep their bytes. Then the database is copied as
//! it is at one moment, then each blob that it names. The database gets its name last, so a folder without it is a
//! backup that was not finished. A backup that is made again into the same folder takes only what is new, and leaves the
//! one before whole until it is done.

pub(super) mod files;
mod hold;
pub mod restore;

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::data_folder::{self, Lock};
pub use super::progress::Progress;
use super::verification;
use crate::blobs::LocalBlobs;
use crate::images::verify;
use crate::model::SystemClock;
use crate::store::sqlite::{SqliteStore, Verification};
use crate::store::{self, Store};
use crate::store::{Recorded, Records};
use files::Placed;
use hold::Hold;

/// The database of a backup, and the same before it is whole.
const DATABASE: &str = "backup.sqlite";
const UNFINISHED: &str = "backup.sqlite.new";
/// Suffixes of files that SQLite may have left beside a database that was being made.
const BESIDE: [&str; 3] = ["-wal", "-shm", "-journal"];
/// Damage is told of so many blobs.
const TOLD: usize = 10;

/// Settings of a backup or a restore.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Whether bytes are copied also where a link would do.
    pub copy: bool,
    /// Whether the bytes are not read again at the end.
    pub skip_verify: bool,
    /// Whether blobs that are damaged or missing are passed over.
    pub allow_damaged: bool,
}

/// Facts of a backup or a restore.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Report {
    /// Blobs, and the sum of their sizes in bytes.
    pub blobs: u64,
    pub bytes: u64,
    /// Those that were there from before, are links, share their blocks, and were copied.
    pub kept: u64,
    pub linked: u64,
    pub cloned: u64,
    pub copied: u64,
    /// Those that are damaged or missing.
    pub damaged: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    DataFolder(#[from] super::Error),
    #[error(transparent)]
    Store(#[from] store::Error),
    #[error("{path}: {source}")]
    File { path: PathBuf, source: io::Error },
    #[error("{0} is neither empty nor a backup: name another folder")]
    NotABackup(PathBuf),
    #[error("there is no backup in {0}")]
    NoBackup(PathBuf),
    #[error("the backup in {0} was not finished: make it again")]
    Unfinished(PathBuf),
    #[error("{0} is not empty: a backup is restored into a new folder")]
    NotEmpty(PathBuf),
    #[error("{0} has no database: name the data folder of a server")]
    NoDatabase(PathBuf),
    #[error(
        "the hold on deleted blobs ran out while they were copied, and some are gone: make the backup again"
    )]
    HoldLost,
    #[error("{count} blobs are damaged or missing: {told}; --allow-damaged goes on without them")]
    Damaged { count: usize, told: String },
}

type Result<T> = std::result::Result<T, Error>;

fn at(path: &Path) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::File {
        path: path.to_owned(),
        source,
    }
}

/// Makes a backup of `data` in `output`; nothing where `progress` ended it.
///
/// # Errors
/// Those of the folders and the database, and [`Error::Damaged`].
pub async fn back_up(
    data: &Path,
    output: &Path,
    settings: Settings,
    mut progress: impl Progress + 'static,
) -> Result<Option<Report>> {
    let (from, to) = (data.to_owned(), output.to_owned());
    let (store, lock) = blocking(move || {
        let store = open(&from)?;
        Ok((store, claim(&to)?))
    })
    .await?;
    let store = Arc::new(store);
    let hold = Hold::place(store.clone()).await?;
    let (from, to) = (data.to_owned(), output.to_owned());
    let (source, lost) = (store.clone(), hold.is_lost());
    let made = blocking(move || {
        let _lock = lock;
        let job = Job {
            from: data_folder::blobs(&from),
            to: data_folder::blobs(&to),
            settings,
        };
        let made = make(&source, &from, &to, &job, &mut progress);
        match made {
            Err(Error::Damaged { .. }) if lost() => Err(Error::HoldLost),
            made => made,
        }
    })
    .await;
    hold.end().await;
    store.close().await;
    made
}

/// Opens the database of a data folder, beside the server that may work with it.
fn open(data: &Path) -> Result<SqliteStore> {
    let database = data_folder::database(data);
    if !database.is_file() {
        return Err(Error::NoDatabase(data.to_owned()));
    }
    // The schema of a server that runs is left as it is.
    drop(verification::open(data)?);
    Ok(SqliteStore::open(&database, Arc::new(SystemClock))?)
}

/// Takes a folder for a backup: a new one, an empty one, or one that holds a backup.
fn claim(output: &Path) -> Result<Lock> {
    let names = names(output)?;
    let is_backup = [DATABASE, UNFINISHED].iter().any(|it| names.contains(*it));
    if !names.is_empty() && !is_backup {
        return Err(Error::NotABackup(output.to_owned()));
    }
    let lock = Lock::take(output)?;
    let unfinished = output.join(UNFINISHED);
    files::create_private(&unfinished).map_err(at(&unfinished))?;
    Ok(lock)
}

/// The names in a folder, but for the file of its lock. None where there is no folder.
fn names(folder: &Path) -> Result<HashSet<String>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(HashSet::new()),
        entries => entries.map_err(at(folder))?,
    };
    let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    let mut names: HashSet<String> = names.collect::<io::Result<_>>().map_err(at(folder))?;
    names.remove(data_folder::LOCK);
    Ok(names)
}

/// Makes a file empty and private, and removes what SQLite may have left beside it.
fn empty(path: &Path) -> Result<()> {
    for suffix in BESIDE {
        let mut beside = path.as_os_str().to_owned();
        beside.push(suffix);
        files::remove(Path::new(&beside)).map_err(at(path))?;
    }
    files::create_private(path).map_err(at(path))
}

/// The blobs of one folder that are to be in another.
struct Job {
    from: PathBuf,
    to: PathBuf,
    settings: Settings,
}

fn make(
    store: &SqliteStore,
    data: &Path,
    output: &Path,
    job: &Job,
    progress: &mut dyn Progress,
) -> Result<Option<Report>> {
    let unfinished = output.join(UNFINISHED);
    empty(&unfinished)?;
    let mut began = false;
    let mut before = 0;
    let copied = store.snapshot(&unfinished, |done, total| {
        if !std::mem::replace(&mut began, true) {
            progress.begin("database", total);
        }
        let step = done.saturating_sub(before);
        before = done;
        progress.advance(step)
    })?;
    if !copied {
        return Ok(None);
    }
    let mut database = Verification::open(&unfinished)?;
    let Some((report, live)) = job.place_all(&mut database, progress)? else {
        return Ok(None);
    };
    for name in data_folder::OTHERS {
        files::copy_beside(&data.join(name), &output.join(name)).map_err(at(&data.join(name)))?;
    }
    drop(database);
    files::finish(&unfinished, &output.join(DATABASE)).map_err(at(output))?;
    // The backup before, which had them, is no more.
    files::keep_only(&job.to, &live).map_err(at(&job.to))?;
    Ok(Some(report))
}

impl Job {
    /// Puts all live blobs of a database in their place, and reads them; what was done, and their ids.
    fn place_all(
        &self,
        database: &mut Verification,
        progress: &mut dyn Progress,
    ) -> Result<Option<(Report, HashSet<String>)>> {
        let blobs = LocalBlobs::open(&self.to).map_err(at(&self.to))?;
        let (mut report, mut live) = (Report::default(), HashSet::new());
        let mut damage = Vec::new();
        let (_, bytes) = database.extent()?;
        progress.begin("blobs", bytes);
        let mut last = None;
        loop {
            let page = database.blobs_after(last)?;
            for blob in &page {
                match self.place(blob, progress)? {
                    None => return Ok(None),
                    Some(Err(problem)) => damage.push(problem),
                    Some(Ok(placed)) => report.count(placed),
                }
                report.blobs += 1;
                report.bytes += blob.size;
                live.insert(blob.id.clone());
            }
            match page.last() {
                Some(blob) => last = Some(blob.row()),
                None => break,
            }
        }
        files::sync(&self.to).map_err(at(&self.to))?;
        if !self.settings.skip_verify {
            let mut reading = Reading(progress);
            let Some(findings) = verify::verify(database, &blobs, &mut reading) else {
                return Ok(None);
            };
            damage = told(findings);
        }
        report.damaged = damage.len() as u64;
        if !damage.is_empty() && !self.settings.allow_damaged {
            let count = damage.len();
            damage.truncate(TOLD);
            let told = damage.join("; ");
            return Err(Error::Damaged { count, told });
        }
        Ok(Some((report, live)))
    }

    /// Puts a blob in its place, or says what is wrong with it. None where `progress` ended it.
    fn place(
        &self,
        blob: &Recorded,
        progress: &mut dyn Progress,
    ) -> Result<Option<std::result::Result<Placed, String>>> {
        let (from, to) = (self.from.join(&blob.id), self.to.join(&blob.id));
        let source = match File::open(&from) {
            Ok(source) => source,
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.from.is_dir() => {
                return Ok(Some(Err(format!("blob {}: the file is missing", blob.id))));
            }
            Err(error) => return Err(at(&from)(error)),
        };
        let found = source.metadata().map_err(at(&from))?.len();
        if found != blob.size {
            let (id, size) = (&blob.id, blob.size);
            let problem = format!("blob {id}: the file has {found} bytes, and should have {size}");
            return Ok(Some(Err(problem)));
        }
        let copy = self.settings.copy;
        let placed = files::place(&source, &from, &to, copy, |bytes| progress.advance(bytes));
        Ok(placed.map_err(at(&to))?.map(Ok))
    }
}

/// All damage in the words of a verification, which also misses what could not be placed. Files that no row names are
/// those of a backup before.
fn told(findings: verify::Findings) -> Vec<String> {
    let problems = findings.problems.into_iter();
    let damage = problems.filter(|problem| problem.kind != verify::ProblemKind::UnknownFile);
    damage.map(|problem| problem.message).collect()
}

impl Report {
    fn count(&mut self, placed: Placed) {
        *match placed {
            Placed::Kept => &mut self.kept,
            Placed::Linked => &mut self.linked,
            Placed::Cloned => &mut self.cloned,
            Placed::Copied => &mut self.copied,
        } += 1;
    }
}

/// The progress of a verification.
struct Reading<'p>(&'p mut dyn Progress);

impl verify::Progress for Reading<'_> {
    fn total(&mut self, _: u64, bytes: u64) {
        self.0.begin("verifying", bytes);
    }

    fn read(&mut self, bytes: u64) -> bool {
        self.0.advance(bytes)
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(worked) => worked,
        Err(stopped) => Err(super::Error::Temporary(stopped.into()).into()),
    }
}
