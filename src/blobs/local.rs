//! Contents as files of a local folder, named by their ids.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::writer::ContentWriter;
use super::{Error, sparse::SparseFile};

/// The folder that holds the contents.
#[derive(Debug, Clone)]
pub struct LocalContents {
    folder: PathBuf,
    identity: FolderIdentity,
}

/// Tells a folder from another one that stands in its place, as the empty one does below a disk that
/// was unmounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FolderIdentity {
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

impl LocalContents {
    /// Opens the folder, and makes it where there is none.
    pub fn open(folder: &Path) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        Ok(Self {
            folder: folder.to_owned(),
            identity: FolderIdentity::of(folder)?,
        })
    }

    /// Fails where the folder is no longer the one that was opened, or cannot be read.
    pub fn check(&self) -> Result<(), Error> {
        let lost = |reason: String| Error::FolderLost {
            folder: self.folder.clone(),
            reason,
        };
        let found = FolderIdentity::of(&self.folder).map_err(|error| lost(error.to_string()))?;
        if found != self.identity {
            return Err(lost("another folder is in its place".to_owned()));
        }
        let first = fs::read_dir(&self.folder).and_then(|mut entries| entries.next().transpose());
        first.map_err(|error| lost(error.to_string()))?;
        Ok(())
    }

    /// Starts a new content. The id must never have been used.
    pub fn create(&self, id: &str) -> Result<ContentWriter, Error> {
        // A file in the place of the folder would be lost with the next mount.
        self.check()?;
        let folder = File::open(&self.folder)?;
        Ok(ContentWriter::start(
            SparseFile::create(&self.path(id))?,
            folder,
        ))
    }

    /// Opens a whole content for reading. The file stays readable when it is removed meanwhile.
    pub fn read(&self, id: &str) -> io::Result<File> {
        File::open(self.path(id))
    }

    /// Opens a content of so many bytes to be read mostly from start to end: the system reads further
    /// ahead.
    pub fn stream(&self, id: &str, size: u64) -> Result<File, Error> {
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

    /// Removes the bytes of a content; none is no error.
    pub fn remove(&self, id: &str) -> io::Result<()> {
        match fs::remove_file(self.path(id)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            ended => ended,
        }
    }

    /// Waits until what was removed is removed on the disk too.
    pub fn sync(&self) -> io::Result<()> {
        File::open(&self.folder)?.sync_all()
    }

    /// The names of all files in the folder.
    pub fn list(&self) -> io::Result<Vec<String>> {
        fs::read_dir(&self.folder)?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect()
    }

    fn path(&self, id: &str) -> PathBuf {
        self.folder.join(id)
    }
}
