//! Moving an embedded installation to a database on a server, and to blobs that several servers share.
//!
//! The data folder is locked, and nothing may be under way in it. Blobs come first, each compared with its digest. Then
//! the folder is marked, so that no server works in it again, and all rows come in one transaction. A migration that was
//! ended is begun again and goes on: blobs that are there are read instead of copied, and until the rows are committed
//! the folder is what counts.

mod blobs;
mod source;

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc;

use super::backends::{BlobSettings, PostgresSettings};
use super::owner::Known;
pub use super::progress::Progress;
use super::{backup, bucket, data_folder, shared_folder};
use crate::model::SystemClock;
use crate::store::moving::TargetState;
use crate::store::postgres::PostgresStore;
use crate::store::{self, Store};
use blobs::Move;
use source::Source;

/// Batches of rows that wait to be written.
const QUEUE: usize = 4;

/// Settings of a migration.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The data folder of the embedded installation.
    pub from: PathBuf,
    /// The database that it is to go on in.
    pub store: PostgresSettings,
    /// The folder that is to have its blobs, or what is beside them where they are elsewhere.
    pub folder: PathBuf,
    pub blobs: BlobSettings,
    /// Whether nothing is changed, and only looked at.
    pub dry_run: bool,
    /// Whether blobs that are damaged or missing are passed over.
    pub allow_damaged: bool,
}

/// Facts of a migration.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Report {
    /// Whether it had been finished before.
    pub was_done: bool,
    pub rows: u64,
    /// Blobs, and the sum of their sizes in bytes.
    pub blobs: u64,
    pub bytes: u64,
    /// Blobs that were there from before, and those that were copied.
    pub kept: u64,
    pub copied: u64,
    /// Blobs that are damaged or missing.
    pub damaged: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    App(#[from] super::Error),
    #[error(transparent)]
    Store(#[from] store::Error),
    #[error("{0} has no database: name the data folder of a server")]
    NoDatabase(PathBuf),
    #[error(
        "{count} operations in {folder} have not ended: start the server, and stop it when they have ended"
    )]
    Unfinished { folder: PathBuf, count: u64 },
    #[error("{0} was used by a server: an installation is moved to an empty database")]
    Used(String),
    #[error("{count} blobs are damaged or missing: {told}; --allow-damaged goes on without them")]
    Damaged { count: usize, told: String },
    #[error("blob {id} was not copied: {source}")]
    Blob {
        id: String,
        source: crate::blobs::Error,
    },
    #[error("{path}: {source}")]
    File { path: PathBuf, source: io::Error },
}

type Result<T> = std::result::Result<T, Error>;

/// The listener to the progress, which several tasks tell.
type Listener = Arc<Mutex<dyn Progress>>;

fn advance(listener: &Listener, bytes: u64) -> bool {
    let mut listener = listener.lock().unwrap_or_else(PoisonError::into_inner);
    listener.advance(bytes)
}

fn begin(listener: &Listener, what: &'static str, sum: u64) {
    let mut listener = listener.lock().unwrap_or_else(PoisonError::into_inner);
    listener.begin(what, sum);
}

/// Moves an installation; nothing where `progress` ended it.
///
/// # Errors
/// Those of the folders and of both databases, and those of [`Error`]: the installation is where it was.
pub async fn migrate(
    settings: Settings,
    progress: impl Progress + 'static,
) -> Result<Option<Report>> {
    let listener: Listener = Arc::new(Mutex::new(progress));
    let (from, dry_run) = (settings.from.clone(), settings.dry_run);
    let source = blocking(move || Source::open(&from, dry_run)).await?;
    let mut report = source.report;
    match PostgresStore::target_state(&settings.store, &source.installation).await? {
        TargetState::Empty => {}
        TargetState::Migrated => {
            report.was_done = true;
            return Ok(Some(report));
        }
        TargetState::Used => return Err(Error::Used(settings.store.shown()?)),
    }
    let bucket = match &settings.blobs {
        BlobSettings::Folder => None,
        BlobSettings::Object(settings) => Some(bucket::open(settings).await?),
    };
    let target = match settings.dry_run {
        true => None,
        false => {
            let known = Known {
                installation: source.installation.clone(),
                live_blobs: 0,
            };
            let place = shared_folder::open(&settings.folder, bucket.as_ref(), known, false);
            Some(place.await?.blobs)
        }
    };
    let moved = Move {
        source: source.blobs.clone(),
        target,
        listener: listener.clone(),
    };
    let Some((source, damaged)) = moved.all(source, &mut report).await? else {
        return Ok(None);
    };
    if !damaged.is_empty() && !settings.allow_damaged {
        return Err(blobs::refusal(&damaged));
    }
    if settings.dry_run {
        return Ok(Some(report));
    }
    let (from, to) = (settings.from.clone(), settings.folder.clone());
    blocking(move || {
        for name in data_folder::OTHERS {
            let (from, to) = (from.join(name), to.join(name));
            backup::files::copy_beside(&from, &to)
                .map_err(|source| Error::File { path: from, source })?;
        }
        Ok(())
    })
    .await?;
    let store = PostgresStore::open(&settings.store, Arc::new(SystemClock)).await?;
    let moved = move_rows(source, &settings, &store, &listener).await;
    if let Ok(Some(())) = moved {
        let damaged = damaged.into_iter().map(|(id, _)| id).collect();
        store.mark_damaged(damaged).await?;
    }
    store.close().await;
    Ok(moved?.map(|()| report))
}

/// Moves all rows, once the folder is marked.
async fn move_rows(
    mut source: Source,
    settings: &Settings,
    store: &PostgresStore,
    listener: &Listener,
) -> Result<Option<()>> {
    let folder = settings.from.clone();
    let mark = |to: Option<String>| {
        let folder = folder.clone();
        blocking(move || Ok(data_folder::mark_migrated(&folder, to.as_deref())?))
    };
    begin(listener, "rows", source.report.rows);
    let to = settings.store.shown()?;
    mark(Some(to.clone())).await?;
    let (sender, rows) = mpsc::channel(QUEUE);
    let installation = source.installation.clone();
    let (is_whole, is_stopped) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
    let all_read = is_whole.clone();
    let reading = tokio::task::spawn_blocking(move || {
        let read = source
            .rows
            .read(|rows| sender.blocking_send(rows).is_ok())
            .inspect(|()| all_read.store(true, Ordering::Release));
        // The lock of the folder is held until all is written.
        drop(sender);
        (read, source)
    });
    let stopped = is_stopped.clone();
    let taken = store.take_over(
        &installation,
        rows,
        |count| {
            if !advance(listener, count) {
                stopped.store(true, Ordering::Relaxed);
            }
        },
        || is_whole.load(Ordering::Acquire) && !is_stopped.load(Ordering::Relaxed),
    );
    let taken = taken.await;
    let (read, _source) = reading.await.map_err(|stopped| failed(stopped.into()))?;
    let moved = match (taken, read) {
        // Nobody knows whether the rows are there: the next try finds out.
        (Err(error @ store::Error::OutcomeUnknown), _) => return Err(error.into()),
        (Ok(TargetState::Empty | TargetState::Migrated), _) => return Ok(Some(())),
        (Ok(TargetState::Used), _) => Err(Error::Used(to)),
        (Err(_), Err(error)) => Err(error.into()),
        (Err(_), Ok(())) if is_stopped.load(Ordering::Relaxed) => Ok(None),
        (Err(error), Ok(())) => Err(error.into()),
    };
    mark(None).await?;
    moved
}

fn failed(error: io::Error) -> Error {
    super::Error::Temporary(error).into()
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let ended = tokio::task::spawn_blocking(work).await;
    ended.map_err(|stopped| failed(stopped.into()))?
}
