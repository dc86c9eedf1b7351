//! Blobs as files of a local folder, named by their ids.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::ballast::Ballast;

use super::checksums::{Checksums, Summing};
use super::reader::{BlobReader, SoundBlocks};
use super::writer::BlobWriter;
use super::{Error, sparse::SparseFile};

/// Images are as secret as what their disks hold.
const MODE: u32 = 0o700;
const READ_SIZE: usize = 1 << 20;

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

/// The state in which a reading of all bytes of a blob found them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Examined {
    pub sha256: [u8; 32],
    pub checksums: Checksums,
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
    /// [`Error::FolderLost`] where that is not so, and [`Error::NoDescriptors`].
    pub(crate) fn check(&self) -> Result<(), Error> {
        let lost = |reason: String| Error::FolderLost {
            folder: self.folder.clone(),
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

    /// Takes back the room of the ballast, if it was given away and there is enough. To be called after bytes were
    /// removed. Blocks.
    pub(crate) fn take_room_back(&self) {
        if let Some(ballast) = self.ballast.as_ref().filter(|it| it.is_given()) {
            ballast.take_back();
        }
    }

    /// Starts a new blob. The id must never have been used.
    ///
    /// # Errors
    /// [`Error::FolderLost`], [`Error::NoDescriptors`], [`Error::Full`], and [`Error::Io`], as for an id that is
    /// in use.
    pub(crate) fn create(&self, id: &str) -> Result<BlobWriter, Error> {
        // A file in the place of the folder would be lost with the next mount.
        self.check()?;
        let folder = File::open(&self.folder)?;
        Ok(BlobWriter::start(
            SparseFile::create(&self.path(id))?.beside(self.ballast.clone()),
            folder,
        ))
    }

    /// Opens a whole blob for reading. The file stays readable when it is removed meanwhile.
    ///
    /// # Errors
    /// Those of opening the file, `NotFound` among them.
    pub(crate) fn read(&self, id: &str) -> io::Result<File> {
        File::open(self.path(id))
    }

    /// Opens a blob of so many bytes to be read mostly from start to end: the system reads further
    /// ahead.
    ///
    /// # Errors
    /// [`Error::Missing`], [`Error::WrongSize`], [`Error::FolderLost`], [`Error::NoDescriptors`] and [`Error::Io`].
    pub(crate) fn stream(
        &self,
        id: &str,
        size: u64,
        checksums: Option<Checksums>,
    ) -> Result<BlobReader, Error> {
        let file = self.open_whole(id, size)?;
        Ok(BlobReader::new(
            file,
            id,
            size,
            checksums,
            self.sound.clone(),
        ))
    }

    /// Reads all of a blob, and tells what it is now. `progress` is given the bytes of each step, and
    /// ends the reading where it returns false: the result is then none.
    ///
    /// # Errors
    /// Those of [`LocalBlobs::stream`], and [`Error::Unreadable`].
    pub(crate) fn examine(
        &self,
        id: &str,
        size: u64,
        mut progress: impl FnMut(u64) -> bool,
    ) -> Result<Option<Examined>, Error> {
        let mut file = self.open_whole(id, size)?;
        let (mut digest, mut summing) = (Sha256::new(), Summing::default());
        let mut buffer = vec![0; READ_SIZE];
        let mut offset = 0;
        loop {
            let count = match file.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Error::Unreadable { offset, error }),
            };
            digest.update(&buffer[..count]);
            summing.data(&buffer[..count]);
            offset += count as u64;
            if !progress(count as u64) {
                return Ok(None);
            }
        }
        if offset != size {
            return Err(Error::WrongSize {
                found: offset,
                size,
            });
        }
        Ok(Some(Examined {
            sha256: digest.finalize().into(),
            checksums: summing.finish(),
        }))
    }

    fn open_whole(&self, id: &str, size: u64) -> Result<File, Error> {
        let file = match self.read(id) {
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

    /// Removes the bytes of a blob; none is no error.
    ///
    /// # Errors
    /// Those of removing the file.
    pub(crate) fn remove(&self, id: &str) -> io::Result<()> {
        match fs::remove_file(self.path(id)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            ended => ended,
        }
    }

    /// Waits until removals are on the disk.
    ///
    /// # Errors
    /// Those of opening and syncing the folder.
    pub(crate) fn sync(&self) -> io::Result<()> {
        File::open(&self.folder)?.sync_all()
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

    fn path(&self, id: &str) -> PathBuf {
        self.folder.join(id)
    }
}
