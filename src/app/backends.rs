//! The backends: opens the store and the blobs that the configuration names, and what goes with them. The one file
//! that names them all.

use std::path::PathBuf;
use std::sync::Arc;

use tempfile::TempDir;

use super::data_folder::{self, DataFolder, Lock, Place};
use super::owner::Known;
use super::{Config, Data, Error, bucket, shared_folder};
use crate::ballast::Ballast;
use crate::blobs::BlobStore;
pub use crate::blobs::{BlobLayout, ObjectSettings, RedirectSettings};
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

/// The place of the blobs of a server.
#[derive(Debug, Clone, Default)]
pub enum BlobSettings {
    /// A folder in the data folder.
    #[default]
    Folder,
    /// A bucket of an object storage.
    Object(ObjectSettings),
}

/// The opened backends of a server.
pub(super) struct Backends {
    pub store: Arc<dyn Store>,
    pub blobs: Arc<dyn BlobStore>,
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
        // First, for it changes nothing where it fails.
        let bucket = match &config.blobs {
            BlobSettings::Folder => None,
            BlobSettings::Object(settings) => Some(bucket::open(settings).await?),
        };
        let (store, place, ballast, lock): (Arc<dyn Store>, _, _, _) = match &config.store {
            StoreSettings::Embedded => {
                shared_folder::check_is_not_shared(&folder)?;
                let data = DataFolder::open(&folder, bucket.as_ref(), clock, adopt_empty).await?;
                (data.store, data.place, Some(data.ballast), Some(data.lock))
            }
            StoreSettings::Postgres(settings) => {
                let store: Arc<dyn Store> = Arc::new(PostgresStore::open(settings, clock).await?);
                let place = async {
                    let known = Known::of(&*store).await?;
                    shared_folder::open(&folder, bucket.as_ref(), known, adopt_empty).await
                };
                match place.await {
                    Ok(place) => (store, place, None, None),
                    Err(error) => {
                        store.close().await;
                        return Err(error);
                    }
                }
            }
            StoreSettings::Memory => {
                let lock = Lock::take(&folder)?;
                let store = Arc::new(MemoryStore::new(clock));
                let blobs: Arc<dyn BlobStore> = match &bucket {
                    None => Arc::new(data_folder::make_for_blobs(&folder)?),
                    Some(bucket) => {
                        bucket::claim(bucket, Known::of(&*store).await?, adopt_empty).await?;
                        Arc::new(bucket.clone())
                    }
                };
                (store, Place::of_blobs(blobs), None, Some(lock))
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
