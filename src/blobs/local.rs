//! Blobs as files of a local folder, named by their ids.

use std::collections::HashMap;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use disk_image::FileReader;
use tokio::sync::mpsc;

use crate::ballast::Ballast;

use super::checksums::{Checksums, Summing};
use super::local_reader::LocalReader;
use super::reader::{BlobReader, Checks, SoundBlocks};
use super::sparse::SparseFile;
use super::writer::{BlobWriter, Chunk, Step, Stored, abandoned};
use super::{BlobStore, Error, Unchecked};

/// Images are as secret as what their disks hold.
const MODE: u32 = 0o700;

/// The folder that holds the blobs.
#[derive(Debug, Clone)]
pub(crate) struct LocalBlobs {
    folder: PathBuf,
    identity: FolderIdentity,
    sound: SoundBlocks,
    /// A file that keeps room on the disk. No bytes are taken while it is given away on a full disk.
    ballast: Option<Ballast>,
}

/// The identity of a folder, by which another folder in its place is noticed, as the empty one below a disk that
/// was unmounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FolderIdentity {
    pub device: u64,
    pub inode: u64,
}

impl FolderIdentity {
    fn of(folder: &Path) -> io::Result<Self> {
        let found = fs::metadata(folder)?;
        Ok(Self {
            device: found.dev(),
            inode: found.ino(),
        })
    }
}

impl LocalBlobs {
    /// Opens the folder, and makes it where there is none, for the user of this process alone.
    ///
    /// # Errors
    /// Those of making the folder or looking at it.
    pub(crate) fn open(folder: &Path) -> io::Result<Self> {
        match DirBuilder::new().mode(MODE).create(folder) {
            // The process's mask may have taken more away. File systems without permissions refuse it.
            Ok(()) => {
                if let Err(error) = fs::set_permissions(folder, Permissions::from_mode(MODE)) {
                    tracing::warn!(%error, "the permissions of the content folder cannot be set");
                }
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
        Self::existing(folder)
    }

    /// Opens a folder that is there.
    ///
    /// # Errors
    /// Those of looking at the folder, `NotFound` among them.
    pub(crate) fn existing(folder: &Path) -> io::Result<Self> {
        Ok(Self {
            folder: folder.to_owned(),
            identity: FolderIdentity::of(folder)?,
            sound: SoundBlocks::default(),
            ballast: None,
        })
    }

    /// The identity of the folder that was opened.
    pub(crate) fn identity(&self) -> FolderIdentity {
        self.identity
    }

    /// Checks that the folder is still the one that was opened, and can be read.
    ///
    /// # Errors
    /// [`Error::Lost`] where that is not so, and [`Error::NoDescriptors`].
    pub(crate) fn check(&self) -> Result<(), Error> {
        let lost = |reason: String| Error::Lost {
            place: format!("the content folder {}", self.folder.display()),
            reason,
        };
        let failed = |error: io::Error| match Error::from(error) {
            short @ Error::NoDescriptors(_) => short,
            other => lost(other.to_string()),
        };
        let found = FolderIdentity::of(&self.folder).map_err(failed)?;
        if found != self.identity {
            return Err(lost("another folder is in its place".to_owned()));
        }
        let first = fs::read_dir(&self.folder).and_then(|mut entries| entries.next().transpose());
        first.map_err(failed)?;
        Ok(())
    }

    /// The same, taking no bytes while the room of the ballast is given to others.
    pub(crate) fn beside(self, ballast: Ballast) -> Self {
        Self {
            ballast: Some(ballast),
            ..self
        }
    }

    /// The names of all files in the folder.
    ///
    /// # Errors
    /// Those of reading the folder.
    pub(crate) fn list(&self) -> io::Result<Vec<String>> {
        fs::read_dir(&self.folder)?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect()
    }

    fn lengths(&self) -> io::Result<HashMap<String, u64>> {
        let mut lengths = HashMap::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let length = match entry.metadata() {
                // It was removed meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                found => found?.len(),
            };
            lengths.insert(entry.file_name().to_string_lossy().into_owned(), length);
        }
        Ok(lengths)
    }

    fn start(&self, id: &str) -> Result<(SparseFile, File), Error> {
        // A file in the place of the folder would be lost with the next mount.
        self.check()?;
        let folder = File::open(&self.folder)?;
        let sparse = SparseFile::create(&self.path(id))?;
        Ok((sparse.beside(self.ballast.clone()), folder))
    }

    /// Opens a file of so many bytes to be read mostly from start to end: the system reads further ahead. The file stays
    /// readable when it is removed meanwhile.
    fn open_whole(&self, id: &str, size: u64) -> Result<File, Error> {
        let file = match File::open(self.path(id)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.check()?;
                return Err(Error::Missing);
            }
            opened => opened?,
        };
        let found = file.metadata()?.len();
        if found != size {
            return Err(Error::WrongSize { found, size });
        }
        if let Err(error) = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::Sequential) {
            tracing::debug!(%error, "the file system takes no advice");
        }
        Ok(file)
    }

    fn remove_all(&self, mut ids: Vec<String>) -> Result<Vec<String>, Error> {
        // A file that is not found because its folder is lost is not removed.
        self.check()?;
        ids.retain(|id| match fs::remove_file(self.path(id)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::error!(blob_id = id, %error, "a blob cannot be removed");
                false
            }
            _ => true,
        });
        // The ballast's room may have been given away, and be there again.
        if let Some(ballast) = self.ballast.as_ref().filter(|it| it.is_given()) {
            ballast.take_back();
        }
        if !ids.is_empty() {
            File::open(&self.folder)?.sync_all()?;
        }
        Ok(ids)
    }

    fn path(&self, id: &str) -> PathBuf {
        self.folder.join(id)
    }
}

#[async_trait]
impl BlobStore for LocalBlobs {
    async fn check(&self) -> Result<(), Error> {
        self.blocking(Self::check).await
    }

    async fn create(&self, id: &str, _length: Option<u64>) -> Result<BlobWriter, Error> {
        let id = id.to_owned();
        let (sparse, folder) = self.blocking(move |blobs| blobs.start(&id)).await?;
        Ok(BlobWriter::start(|steps, _| {
            tokio::task::spawn_blocking(move || store(steps, sparse, &folder))
        }))
    }

    async fn open(
        &self,
        id: &str,
        size: u64,
        checksums: Option<Checksums>,
    ) -> Result<Arc<dyn BlobReader>, Error> {
        let checks = Checks::new(id, size, checksums, self.sound.clone());
        let id = id.to_owned();
        let file = self.blocking(move |it| it.open_whole(&id, size)).await?;
        Ok(Arc::new(LocalReader::new(file, checks)))
    }

    async fn open_unchecked(&self, id: &str, size: u64) -> Result<Box<Unchecked>, Error> {
        let id = id.to_owned();
        self.blocking(move |blobs| {
            let file = FileReader::new(blobs.open_whole(&id, size)?)?;
            Ok(Box::new(file) as Box<Unchecked>)
        })
        .await
    }

    async fn remove(&self, ids: Vec<String>) -> Result<Vec<String>, Error> {
        self.blocking(move |blobs| blobs.remove_all(ids)).await
    }

    async fn list(&self) -> Result<Vec<String>, Error> {
        self.blocking(|blobs| Ok(blobs.list()?)).await
    }

    async fn stored(&self) -> Result<HashMap<String, u64>, Error> {
        self.blocking(|blobs| Ok(blobs.lengths()?)).await
    }

    fn fits(&self, stored: u64, size: u64, _stored_size: u64) -> bool {
        stored == size
    }
}

impl LocalBlobs {
    /// Does work that blocks in a thread for it.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let blobs = self.clone();
        tokio::task::spawn_blocking(move || work(&blobs))
            .await
            .map_err(io::Error::from)?
    }
}

/// Stores a blob in its file. The checksums are those of the bytes as they came, so that damage on their way to the disk
/// is seen too.
fn store(
    mut steps: mpsc::Receiver<Step>,
    mut sparse: SparseFile,
    folder: &File,
) -> Result<Stored, Error> {
    let mut summing = Summing::default();
    loop {
        match steps.blocking_recv() {
            Some(Step::Chunk(Chunk::Data(data))) => {
                summing.data(&data);
                sparse.write(&data)?;
            }
            Some(Step::Chunk(Chunk::Zeros(count))) => {
                summing.zeros(count);
                sparse.write_zeros(count)?;
            }
            Some(Step::Finish) => break,
            None => return Err(abandoned()),
        }
    }
    let (size, stored_size) = sparse.finish()?;
    folder.sync_all()?;
    Ok(Stored {
        size,
        stored_size,
        checksums: summing.finish(),
    })
}
