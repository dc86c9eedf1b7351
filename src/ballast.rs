//! A file of the data folder that keeps room on the disk: when the disk is full it is removed, so that what makes
//! room can be done, and made again once there is enough.
//!
//! While it is away the room belongs to the database: new bytes of images, and changes that make no room, are
//! refused as if there were none.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rand::RngCore;

/// The size of the ballast in bytes: a part of a small disk, at most this.
const LARGEST: u64 = 32 << 20;
const SMALLEST: u64 = 1 << 20;
const PART: u64 = 16;
/// Room is needed for the file, and as much again is to be left to others.
const TIMES_FREE: u64 = 2;

/// The name of the ballast in the data folder.
pub(crate) const NAME: &str = "ballast";
const MODE: u32 = 0o600;

/// The ballast of a data folder. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Ballast {
    inner: Option<Arc<Inner>>,
}

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    size: u64,
    /// Whether the room was given away, so that the file is to be made again.
    is_given: AtomicBool,
    /// A lock that is held while the file is made or removed.
    changing: Mutex<()>,
}

impl Ballast {
    /// Opens the ballast of a folder, and makes its file where there is room. Logs the result.
    pub(crate) fn open(folder: &Path) -> Self {
        let path = folder.join(NAME);
        let (size, is_there) = match space(folder) {
            Ok(space) => {
                let size = (space.total / PART).clamp(SMALLEST, LARGEST);
                (size, is_whole(&path, size))
            }
            Err(error) => {
                tracing::warn!(%error, "how much room the disk has is not known; no ballast is kept");
                return Self { inner: None };
            }
        };
        let inner = Inner {
            path,
            size,
            is_given: AtomicBool::new(false),
            changing: Mutex::default(),
        };
        if is_there || inner.make() {
            let path = inner.path.display();
            tracing::info!(%path, bytes = size, "a file keeps room for deletions on a full disk");
        } else {
            tracing::warn!(
                bytes = size,
                "the disk has no room to be kept for deletions"
            );
        }
        Self {
            inner: Some(Arc::new(inner)),
        }
    }

    /// Gives the room away. False where there was none to give.
    pub(crate) fn give(&self) -> bool {
        let Some(inner) = &self.inner else {
            return false;
        };
        let _changing = inner
            .changing
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match fs::remove_file(&inner.path) {
            Ok(()) => {
                inner.is_given.store(true, Ordering::Release);
                tracing::warn!(
                    bytes = inner.size,
                    "the disk is full: the room that was kept is given to deletions; nothing else is stored"
                );
                true
            }
            Err(_) => false,
        }
    }

    /// Whether the disk has next to no free space.
    pub(crate) fn is_disk_full(&self) -> bool {
        let folder = self.inner.as_ref().and_then(|inner| inner.path.parent());
        folder.is_some_and(|folder| space(folder).is_ok_and(|space| space.free < SMALLEST))
    }

    /// Whether the room was given away and is not back.
    pub(crate) fn is_given(&self) -> bool {
        let inner = self.inner.as_ref();
        inner.is_some_and(|inner| inner.is_given.load(Ordering::Acquire))
    }

    /// Makes the file again if the room was given away and there is enough. Blocks.
    pub(crate) fn take_back(&self) {
        let Some(inner) = &self.inner else {
            return;
        };
        let _changing = inner
            .changing
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let is_away = inner.is_given.load(Ordering::Acquire) || !is_whole(&inner.path, inner.size);
        if is_away && inner.make() {
            inner.is_given.store(false, Ordering::Release);
            tracing::info!(
                bytes = inner.size,
                "there is room again, and a file keeps some"
            );
        }
    }
}

impl Inner {
    /// Whether the file could be made.
    fn make(&self) -> bool {
        let folder = self.path.parent().unwrap_or(Path::new("."));
        let has_room = space(folder).is_ok_and(|space| space.free >= TIMES_FREE * self.size);
        if !has_room {
            return false;
        }
        let made = write(&self.path, self.size);
        if let Err(error) = &made {
            tracing::debug!(%error, "no room is kept");
            // A part of it keeps nothing.
            let _ = fs::remove_file(&self.path);
        }
        made.is_ok()
    }
}

struct Space {
    total: u64,
    free: u64,
}

fn space(folder: &Path) -> io::Result<Space> {
    let stat = rustix::fs::statvfs(folder)?;
    Ok(Space {
        total: stat.f_blocks.saturating_mul(stat.f_frsize),
        free: stat.f_bavail.saturating_mul(stat.f_frsize),
    })
}

fn is_whole(path: &Path, size: u64) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.is_file() && found.len() == size)
}

/// Writes a file that takes all of its size on the disk, in the place of what has its name: a link there is
/// removed, and the file that it names is left alone.
fn write(path: &Path, size: u64) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = File::options()
        .create_new(true)
        .write(true)
        .mode(MODE)
        .open(path)?;
    // A umask may have taken bits of the owner. File systems without permissions refuse it.
    if let Err(error) = file.set_permissions(Permissions::from_mode(MODE)) {
        tracing::debug!(%error, "the permissions of the ballast cannot be set");
    }
    match rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, size) {
        // A file system that cannot: bytes that it cannot compress do as well.
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {
            let mut piece = vec![0; 1 << 16];
            let mut left = size;
            while left > 0 {
                let part = usize::try_from(left).unwrap_or(usize::MAX).min(piece.len());
                rand::rng().fill_bytes(&mut piece);
                file.write_all(&piece[..part])?;
                left -= part as u64;
            }
        }
        allocated => allocated?,
    }
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn the_room_is_really_taken_given_once_and_taken_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ballast");
        let ballast = Ballast::open(folder.path());
        let file = path.metadata().unwrap();
        assert!(
            file.blocks() * 512 >= file.len(),
            "{} blocks",
            file.blocks()
        );
        assert!((SMALLEST..=LARGEST).contains(&file.len()));
        assert_eq!(file.mode() & 0o777, 0o600);
        assert!(!ballast.is_given());
        assert!(ballast.give() && ballast.is_given());
        assert!(!path.exists());
        assert!(!ballast.give(), "there is nothing left to give");
        ballast.take_back();
        assert!(!ballast.is_given());
        assert_eq!(path.metadata().unwrap().len(), file.len());
        // One that is there is kept, one of another size is not taken for it.
        drop(ballast);
        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(5)
            .unwrap();
        Ballast::open(folder.path());
        assert_eq!(path.metadata().unwrap().len(), file.len());
    }
}
