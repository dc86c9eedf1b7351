//! Files of a backup: linked, cloned or copied, each under its name only when it is whole.

use std::collections::HashSet;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use disk_image::is_zero;

use crate::sources::extents::next_data;

/// Images are as secret as what their disks hold.
const FILE_MODE: u32 = 0o600;
const FOLDER_MODE: u32 = 0o700;
const PARTIAL: &str = ".partial";
/// Bytes that are copied at a time.
const STEP: u64 = 1 << 20;

/// The way in which a file came to its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Placed {
    /// It was there.
    Kept,
    Linked,
    /// It shares its blocks until one of both is changed.
    Cloned,
    Copied,
}

/// Puts a file that never changes, open as `source`, in another place too, by the cheapest way that there is. None where
/// `progress` ended it.
pub(super) fn place(
    source: &File,
    from: &Path,
    to: &Path,
    copy: bool,
    mut progress: impl FnMut(u64) -> bool,
) -> io::Result<Option<Placed>> {
    let found = source.metadata()?;
    let is_there = match fs::symlink_metadata(to) {
        Ok(there) => {
            let is_link = (there.dev(), there.ino()) == (found.dev(), found.ino());
            there.is_file() && there.len() == found.len() && !(copy && is_link)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        Err(error) => return Err(error),
    };
    if is_there {
        return Ok(progress(found.len()).then_some(Placed::Kept));
    }
    let partial = partial(to);
    remove(&partial)?;
    // Links are refused by other file systems, at too many of them, and for files of others.
    if !copy && fs::hard_link(from, &partial).is_ok() {
        fs::rename(&partial, to)?;
        return Ok(progress(found.len()).then_some(Placed::Linked));
    }
    let target = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(FILE_MODE)
        .open(&partial)?;
    let placed = if rustix::fs::ioctl_ficlone(&target, source).is_ok() {
        progress(found.len()).then_some(Placed::Cloned)
    } else {
        copy_data(source, &target, found.len(), progress)?.then_some(Placed::Copied)
    };
    if placed.is_some() {
        target.sync_all()?;
        fs::rename(&partial, to)?;
    }
    Ok(placed)
}

/// Copies what is not a hole; false where `progress` ended it.
fn copy_data(
    source: &File,
    target: &File,
    size: u64,
    mut progress: impl FnMut(u64) -> bool,
) -> io::Result<bool> {
    target.set_len(size)?;
    let mut buffer = vec![0; STEP as usize];
    let mut at = 0;
    while at < size {
        let data = next_data(source, at, size)?;
        let end = data.end.min(data.start + STEP);
        let bytes = &mut buffer[..(end - data.start) as usize];
        source.read_exact_at(bytes, data.start)?;
        if !is_zero(bytes) {
            target.write_all_at(bytes, data.start)?;
        }
        if !progress(end - at) {
            return Ok(false);
        }
        at = end;
    }
    Ok(true)
}

/// Copies a file or a folder of files that may change; none is no error.
pub(in crate::app) fn copy_beside(from: &Path, to: &Path) -> io::Result<()> {
    let found = match fs::metadata(from) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found?,
    };
    if found.is_dir() {
        match DirBuilder::new().mode(FOLDER_MODE).create(to) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            copy_beside(&entry.path(), &to.join(entry.file_name()))?;
        }
        return sync(to);
    }
    let partial = partial(to);
    create_private(&partial)?;
    let target = File::options().write(true).open(&partial)?;
    io::copy(&mut File::open(from)?, &mut &target)?;
    target.sync_all()?;
    fs::rename(&partial, to)
}

/// Removes the files of a folder that are not among these.
pub(super) fn keep_only(folder: &Path, names: &HashSet<String>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if !names.contains(&*entry.file_name().to_string_lossy()) {
            remove(&entry.path())?;
        }
    }
    sync(folder)
}

/// Gives a whole file the name that says so.
pub(super) fn finish(unfinished: &Path, finished: &Path) -> io::Result<()> {
    File::open(unfinished)?.sync_all()?;
    fs::rename(unfinished, finished)?;
    finished.parent().map_or(Ok(()), sync)
}

/// Makes a file empty, for the user of this process alone.
pub(super) fn create_private(path: &Path) -> io::Result<()> {
    let made = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(FILE_MODE)
        .open(path);
    made.map(drop)
}

/// Removes a file; none is no error.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        ended => ended,
    }
}

/// Waits until the names in a folder are on the disk.
pub(super) fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn partial(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(PARTIAL);
    name.into()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_file_is_whole_at_its_place_by_each_way() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let (from, size) = (at("from"), 5 * STEP);
        let mut file = File::create(&from).unwrap();
        file.set_len(size).unwrap();
        file.write_all(b"begin").unwrap();
        file.write_all_at(b"end", size - 3).unwrap();
        let expected = fs::read(&from).unwrap();
        let source = File::open(&from).unwrap();
        let put = |to: &Path, copy| {
            let mut sum = 0;
            let placed = place(&source, &from, to, copy, |bytes| {
                sum += bytes;
                true
            });
            assert_eq!(sum, size);
            assert!(fs::read(to).unwrap() == expected);
            placed.unwrap().unwrap()
        };
        assert_eq!(put(&at("linked"), false), Placed::Linked);
        assert_eq!(put(&at("linked"), false), Placed::Kept);
        // A link does not pass for a copy.
        let copied = put(&at("linked"), true);
        assert!(
            matches!(copied, Placed::Copied | Placed::Cloned),
            "{copied:?}"
        );
        assert_eq!(put(&at("linked"), true), Placed::Kept);
        fs::write(at("cut"), b"begin").unwrap();
        assert_eq!(put(&at("cut"), false), Placed::Linked);

        // The way that is left where nothing is shared.
        let target = File::create(at("data")).unwrap();
        assert!(copy_data(&source, &target, size, |_| true).unwrap());
        assert!(fs::read(at("data")).unwrap() == expected);
        let stored = at("data").metadata().unwrap().blocks() * 512;
        assert!(stored < size, "{stored} bytes are stored");

        let ended = place(&source, &from, &at("ended"), true, |_| false);
        assert_eq!(ended.unwrap(), None);
        assert!(!at("ended").exists());
        keep_only(folder.path(), &HashSet::from(["from".to_owned()])).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
