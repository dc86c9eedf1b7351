//! The backends: opens the store and the blobs that the configuration names, and what goes with them. The one file
//! that names them all.

use std::path::PathBuf;
use std::sync::Arc;

use tempfile::TempDir;

use super::data_folder::{self, DataFolder, Lock, Place};
use super::{Config, Data, Error, shared_folder};
use crate::ballast::Ballast;
use crate::blobs::LocalBlobs;
use crate::model::SystemClock;
use crate::store::Store;
use crate::store::memory::MemoryStore;
pub use crate::store::postgres::PostgresSettings;
use crate::store::postgres::PostgresStore;

/// The store of record of a server.
#[derive(Debug, Clone, Default)]
pub enum StoreSettings {
    /// SQLite, in the data folder.
    #[default]
    Embedded,
    /// A database on a server, which other processes may share. The data folder has blobs alone.
    Postgres(PostgresSettings),
    /// In memory, which keeps nothing beyond the end of the process: no command does this. Benchmarks measure the
    /// durable stores against it.
    Memory,
}

/// The opened backends of a server.
pub(super) struct Backends {
    pub store: Arc<dyn Store>,
    pub blobs: LocalBlobs,
    /// The places that health looks at.
    pub place: Place,
    /// Room on the disk of an embedded database.
    pub ballast: Option<Ballast>,
    /// The folder for what the server makes beside images: a first token, certificates.
    pub folder: PathBuf,
    pub held: Held,
}

/// Held as long as the backends are in use.
pub(super) struct Held {
    _lock: Option<Lock>,
    temporary: Option<TempDir>,
}

impl Held {
    /// Removes a temporary folder, and lets others have the data.
    pub(super) fn release(self) -> Result<(), Error> {
        match self.temporary {
            Some(temporary) => temporary.close().map_err(Error::Temporary),
            None => Ok(()),
        }
    }
}

impl Backends {
    /// Opens what the configuration names.
    ///
    /// # Errors
    /// Where a part cannot be opened, or the parts do not belong together.
    pub(super) async fn open(config: &Config) -> Result<Self, Error> {
        let (folder, temporary) = folder_of(&config.data)?;
        let clock = Arc::new(SystemClock);
        let adopt_empty = matches!(config.data, Data::AdoptEmpty(_));
        let (store, place, ballast, lock): (Arc<dyn Store>, _, _, _) = match &config.store {
            StoreSettings::Embedded => {
                shared_folder::check_is_not_shared(&folder)?;
                let data = DataFolder::open(&folder, clock, adopt_empty).await?;
                (data.store, data.place, Some(data.ballast), Some(data.lock))
            }
            StoreSettings::Postgres(settings) => {
                let store: Arc<dyn Store> = Arc::new(PostgresStore::open(settings, clock).await?);
                match shared_folder::open(&folder, &store, adopt_empty).await {
                    Ok(place) => (store, place, None, None),
                    Err(error) => {
                        store.close().await;
                        return Err(error);
                    }
                }
            }
            StoreSettings::Memory => {
                let lock = Lock::take(&folder)?;
                let place = Place::of_blobs(data_folder::make_for_blobs(&folder)?);
                (Arc::new(MemoryStore::new(clock)), place, None, Some(lock))
            }
        };
        Ok(Self {
            store,
            blobs: place.blobs.clone(),
            place,
            ballast,
            folder,
            held: Held {
                _lock: lock,
                temporary,
            },
        })
    }
}

/// The data folder, and what removes it at the end where it is a temporary one.
fn folder_of(data: &Data) -> Result<(PathBuf, Option<TempDir>), Error> {
    Ok(match data {
        Data::Folder(folder) | Data::AdoptEmpty(folder) => (folder.clone(), None),
        Data::Ephemeral => {
            let temporary = TempDir::with_prefix("desktop-images-").map_err(Error::Temporary)?;
            (temporary.path().to_owned(), Some(temporary))
        }
    })
}
