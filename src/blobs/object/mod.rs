//! Blobs as objects of an object storage: S3 and what speaks like it, Google Cloud Storage, Azure Blob Storage.
//!
//! Below the prefix are `blobs/ID`, one object for each blob, `uploads/ID`, which holds the id of the upload in parts of
//! a blob that is not complete, and `owner`, the name of the installation. An object is written once and never renamed.
//! Nothing relies on conditional writes: ids are unique, and the store of record says which blobs are live.

mod credentials;
mod errors;
mod layout;
mod layouts;
mod parts;
mod presigned;
mod probe;
mod reader;
mod settings;
mod storage;
mod upload;

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::ObjectStoreExt;
use object_store::path::Path;

pub use layout::BlobLayout;
pub use presigned::RedirectSettings;
pub use settings::ObjectSettings;

use super::reader::{BlobReader, Checks, SoundBlocks};
use super::writer::BlobWriter;
use super::{BlobStore, Checksums, Error, Unchecked};
use layout::{Layout, Map};
use layouts::Layouts;
use parts::PartMemory;
use reader::{Object, ObjectBytes, ObjectReader};
use storage::Storage;
use upload::Upload;

/// Removals that are under way at a time.
const REMOVALS: usize = 16;

/// Blobs below a prefix of a bucket. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct ObjectBlobs {
    storage: Arc<Storage>,
    layout: BlobLayout,
    memory: PartMemory,
    layouts: Arc<Layouts>,
    sound: SoundBlocks,
}

impl ObjectBlobs {
    /// Blobs at the place that the settings name. Sends no request.
    ///
    /// # Errors
    /// [`Error::Refused`] where the settings make no sense.
    pub(crate) fn new(settings: &ObjectSettings) -> Result<Self, Error> {
        Ok(Self {
            storage: Arc::new(settings.storage()?),
            layout: settings.layout,
            memory: PartMemory::new(settings.upload_memory),
            layouts: Arc::default(),
            sound: SoundBlocks::default(),
        })
    }

    /// Tries at the place all that blobs need of it.
    ///
    /// # Errors
    /// [`Error::Lost`], [`Error::Unreachable`] and [`Error::Refused`], with what to do about it.
    pub(crate) async fn probe(&self) -> Result<(), Error> {
        probe::probe(&self.storage).await
    }

    /// The name of the place, for messages.
    pub(crate) fn place(&self) -> &str {
        &self.storage.place
    }

    /// The installation that is noted as the owner.
    ///
    /// # Errors
    /// [`Error::Lost`] where the bucket is not there, [`Error::Unreachable`] and [`Error::Refused`].
    pub(crate) async fn owner(&self) -> Result<Option<String>, Error> {
        self.storage.text(&self.storage.owner()).await
    }

    /// Notes an installation as the owner.
    ///
    /// # Errors
    /// Those of [`ObjectBlobs::owner`], and [`Error::Full`].
    pub(crate) async fn note_owner(&self, installation: &str) -> Result<(), Error> {
        let name = bytes::Bytes::copy_from_slice(installation.as_bytes());
        self.storage.put(&self.storage.owner(), name).await
    }

    /// Has [`BlobStore::check`], and all that changes something, fail unless an installation is the owner.
    pub(crate) fn expect_owner(&self, installation: &str) {
        self.storage.expect_owner(installation);
    }

    /// Finds a blob of so many bytes, and how it is stored.
    async fn object(&self, id: &str, size: u64) -> Result<Object, Error> {
        let path = self.storage.blob(id);
        let layout = match self.layouts.known(id) {
            Some(layout) => layout,
            None => {
                let found = self.found(id, &path, size).await?;
                self.layouts.note(id, found.clone());
                found
            }
        };
        Ok(Object {
            storage: self.storage.clone(),
            path,
            size,
            layout,
        })
    }

    async fn found(&self, id: &str, path: &Path, size: u64) -> Result<Arc<Layout>, Error> {
        let found = match self.head(path).await {
            Err(Error::Missing) => {
                self.checked().await?;
                return Err(Error::Missing);
            }
            found => found?,
        };
        if found == size {
            return Ok(Arc::new(Layout::Whole));
        }
        if let Some(layout) = self.layouts.outdated(id, found) {
            return Ok(layout);
        }
        let wrong = Error::WrongSize { found, size };
        let Some(place) = Map::place(found, size) else {
            return Err(wrong);
        };
        let map = self.storage.range(path, &place).await?;
        let map = Map::parse(&map, found, size).ok_or(wrong)?;
        Ok(Arc::new(Layout::Packed(map)))
    }

    /// The length of an object.
    async fn head(&self, path: &Path) -> Result<u64, Error> {
        let head = || async {
            let found = self.storage.bucket.head(path).await;
            found.map_err(|error| self.storage.failed(&error))
        };
        Ok(self.storage.repeated_briefly(head).await?.size)
    }

    /// [`Storage::check`] for work that waits for a storage which comes back soon.
    async fn checked(&self) -> Result<(), Error> {
        self.storage.repeated_briefly(|| self.storage.check()).await
    }

    /// Removes a blob, the upload of it, and the note of that.
    async fn remove_one(&self, id: &str) -> Result<(), Error> {
        self.layouts.forget(id);
        let path = self.storage.blob(id);
        // An upload that is aborted does not become an object any more.
        if let Some(upload) = self.storage.text(&self.storage.upload(id)).await? {
            upload::abort(&self.storage, &path, id, &upload).await?;
        }
        self.storage.delete(&path).await
    }

    /// The names of the objects of a folder, with their lengths.
    async fn names(&self, folder: Path) -> Result<Vec<(String, u64)>, Error> {
        let listed = self.storage.bucket.list(Some(&folder));
        let names = listed.try_filter_map(|object| async move {
            let name = object.location.filename();
            Ok(name.map(|name| (name.to_owned(), object.size)))
        });
        let names: Result<_, object_store::Error> = names.try_collect().await;
        names.map_err(|error| self.storage.failed(&error))
    }
}

#[async_trait]
impl BlobStore for ObjectBlobs {
    async fn check(&self) -> Result<(), Error> {
        self.storage.check().await
    }

    async fn create(&self, id: &str, length: Option<u64>) -> Result<BlobWriter, Error> {
        self.checked().await?;
        match self.head(&self.storage.blob(id)).await {
            Ok(_) => return Err(std::io::Error::from(std::io::ErrorKind::AlreadyExists).into()),
            Err(Error::Missing) => {}
            Err(error) => return Err(error),
        }
        let (storage, memory) = (self.storage.clone(), self.memory.clone());
        let upload = Upload::new(storage, id, length, self.layout, memory);
        Ok(BlobWriter::start(|steps, dropped| {
            tokio::spawn(upload.run(steps, dropped))
        }))
    }

    async fn open(
        &self,
        id: &str,
        size: u64,
        checksums: Option<Checksums>,
    ) -> Result<Arc<dyn BlobReader>, Error> {
        Ok(Arc::new(ObjectReader {
            object: self.object(id, size).await?,
            checks: Checks::new(id, size, checksums, self.sound.clone()),
        }))
    }

    async fn open_unchecked(&self, id: &str, size: u64) -> Result<Box<Unchecked>, Error> {
        let object = self.object(id, size).await?;
        Ok(Box::new(ObjectBytes::new(object)))
    }

    async fn presigned(
        &self,
        id: &str,
        size: u64,
        disposition: &str,
    ) -> Result<Option<String>, Error> {
        let Some(presigner) = &self.storage.presigner else {
            return Ok(None);
        };
        let object = self.object(id, size).await?;
        match &*object.layout {
            Layout::Packed(_) => Ok(None),
            Layout::Whole => {
                let url = presigner.url(&object.path, disposition).await;
                url.map(Some).map_err(|error| self.storage.failed(&error))
            }
        }
    }

    async fn remove(&self, ids: Vec<String>) -> Result<Vec<String>, Error> {
        self.storage.check().await?;
        let removed = stream::iter(ids)
            .map(|id| async move {
                let remove = || self.remove_one(&id);
                match self.storage.repeated_briefly(remove).await {
                    Ok(()) => Some(id),
                    Err(error) => {
                        tracing::error!(blob_id = id, %error, "a blob cannot be removed");
                        None
                    }
                }
            })
            .buffered(REMOVALS);
        Ok(removed.filter_map(std::future::ready).collect().await)
    }

    async fn list(&self) -> Result<Vec<String>, Error> {
        Ok(self.stored().await?.into_keys().collect())
    }

    async fn stored(&self) -> Result<HashMap<String, u64>, Error> {
        self.storage.check().await?;
        let begun = self.names(self.storage.uploads()).await?;
        let mut stored: HashMap<String, u64> = begun.into_iter().map(|(id, _)| (id, 0)).collect();
        stored.extend(self.names(self.storage.blobs()).await?);
        Ok(stored)
    }

    fn fits(&self, stored: u64, size: u64, stored_size: u64) -> bool {
        let mut packed = Map::lengths(size).map(|map| stored_size + map).into_iter();
        stored == size || packed.any(|length| length == stored)
    }
}
