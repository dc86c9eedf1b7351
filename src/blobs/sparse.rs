//! A file written from start to end, in which all-zero blocks become holes.
//!
//! Writes go to the disk without a copy in the page cache where the file system allows it (`O_DIRECT`):
//! an image is larger than what is worth caching, and the disk has its bytes long before the end,
//! so that the fsync has little left to do.

use std::fs::{File, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use disk_image::is_zero;
use rustix::fs::OFlags;

use crate::ballast::Ballast;

/// Zeros are looked for in blocks of this many bytes.
pub(crate) const BLOCK: usize = 64 * 1024;
/// The number of bytes that are gathered before they are written: whole blocks.
const GATHERED: usize = 64 * BLOCK;
/// Images are as secret as what their disks hold.
const MODE: u32 = 0o600;
/// The alignment that `O_DIRECT` asks of addresses, offsets and lengths on all usual disks, in bytes.
const ALIGNMENT: usize = 4096;

pub(crate) struct SparseFile {
    file: File,
    /// Whether writes pass the page cache by.
    direct: bool,
    gathered: AlignedBuffer,
    /// The number of gathered bytes.
    length: usize,
    /// The offset in the file of the first gathered byte.
    position: u64,
    stored: u64,
    ballast: Option<Ballast>,
}

impl SparseFile {
    /// Makes a new file, for the user of this process alone.
    ///
    /// # Errors
    /// Those of opening a file, `AlreadyExists` among them.
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(MODE)
            .open(path)?;
        // The process's mask may have taken more away. File systems without permissions refuse it.
        if let Err(error) = file.set_permissions(Permissions::from_mode(MODE)) {
            tracing::debug!(%error, "the permissions of a blob cannot be set");
        }
        // Not at the opening, which makes the file and only then finds that it cannot do this.
        let direct = set_direct(&file, true).is_ok();
        Ok(Self {
            file,
            direct,
            gathered: AlignedBuffer::new(),
            length: 0,
            position: 0,
            stored: 0,
            ballast: None,
        })
    }

    /// The same, taking no bytes while the room of the ballast is given to others.
    pub(crate) fn beside(self, ballast: Option<Ballast>) -> Self {
        Self { ballast, ..self }
    }

    /// Adds bytes.
    ///
    /// # Errors
    /// Those of writing to the file.
    pub(crate) fn write(&mut self, mut data: &[u8]) -> io::Result<()> {
        while !data.is_empty() {
            let (part, rest) = data.split_at(data.len().min(GATHERED - self.length));
            self.gathered.bytes()[self.length..][..part.len()].copy_from_slice(part);
            self.length += part.len();
            data = rest;
            if self.length == GATHERED {
                self.flush()?;
            }
        }
        Ok(())
    }

    /// Adds zeros; whole blocks of them become a hole.
    ///
    /// # Errors
    /// Those of writing to the file.
    pub(crate) fn write_zeros(&mut self, count: u64) -> io::Result<()> {
        static ZEROS: [u8; BLOCK] = [0; BLOCK];
        let block = BLOCK as u64;
        let to_block = (block - self.length as u64 % block) % block;
        let first = count.min(to_block);
        self.write(&ZEROS[..first as usize])?;
        let rest = count - first;
        if rest >= block {
            self.flush()?;
            self.position += rest / block * block;
        }
        self.write(&ZEROS[..(rest % block) as usize])
    }

    /// Writes what is left and waits until the disk has all of it. Returns the size and the bytes
    /// stored, all-zero blocks not counted.
    ///
    /// # Errors
    /// Those of writing to the file and of syncing it.
    pub(crate) fn finish(mut self) -> io::Result<(u64, u64)> {
        self.flush()?;
        // A direct write may have been longer than the blob.
        self.file.set_len(self.position)?;
        self.file.sync_all()?;
        Ok((self.position, self.stored))
    }

    /// Writes the runs of gathered blocks that are not all zeros, and passes over the others.
    fn flush(&mut self) -> io::Result<()> {
        let length = self.length;
        let mut run_start = 0;
        for start in (0..length).step_by(BLOCK) {
            let end = length.min(start + BLOCK);
            if is_zero(&self.gathered.bytes()[start..end]) {
                self.write_run(run_start, start)?;
                run_start = end;
            }
        }
        self.write_run(run_start, length)?;
        self.position += length as u64;
        self.length = 0;
        Ok(())
    }

    fn write_run(&mut self, start: usize, end: usize) -> io::Result<()> {
        if start == end {
            return Ok(());
        }
        if self.ballast.as_ref().is_some_and(Ballast::is_given) {
            return Err(ErrorKind::StorageFull.into());
        }
        self.stored += (end - start) as u64;
        let offset = self.position + start as u64;
        if self.direct {
            let padded = end.next_multiple_of(ALIGNMENT);
            self.gathered.bytes()[end..padded].fill(0);
            match self
                .file
                .write_all_at(&self.gathered.bytes()[start..padded], offset)
            {
                // The disk asks for more than the usual alignment.
                Err(error) if error.kind() == ErrorKind::InvalidInput => {
                    set_direct(&self.file, false)?;
                    self.direct = false;
                }
                ended => return ended,
            }
        }
        self.file
            .write_all_at(&self.gathered.bytes()[start..end], offset)
    }
}

fn set_direct(file: &File, direct: bool) -> io::Result<()> {
    let mut flags = rustix::fs::fcntl_getfl(file)?;
    flags.set(OFlags::DIRECT, direct);
    Ok(rustix::fs::fcntl_setfl(file, flags)?)
}

/// Bytes whose address is a multiple of the alignment.
struct AlignedBuffer {
    storage: Vec<u8>,
    start: usize,
}

impl AlignedBuffer {
    fn new() -> Self {
        let storage = vec![0; GATHERED + ALIGNMENT];
        // Should the offset be unknown, which it never is at run time, direct writes are refused
        // and the others do without.
        let start = storage.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
        Self { storage, start }
    }

    fn bytes(&mut self) -> &mut [u8] {
        &mut self.storage[self.start..][..GATHERED]
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Piece {
        Zeros(usize),
        Same(u8, usize),
        HoleInSource(usize),
    }

    fn piece() -> impl Strategy<Value = Piece> {
        let length = prop_oneof![1..3 * BLOCK, 1..2 * GATHERED];
        prop_oneof![
            length.clone().prop_map(Piece::Zeros),
            (1..=255u8, length.clone()).prop_map(|(byte, length)| Piece::Same(byte, length)),
            length.prop_map(Piece::HoleInSource),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn what_is_read_is_what_was_written_and_zero_blocks_are_not_stored(
            pieces in prop::collection::vec(piece(), 0..6), direct: bool
        ) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("blob");
            let mut sparse = SparseFile::create(&path).unwrap();
            // The file system of temporary files may have it or not.
            if !direct {
                set_direct(&sparse.file, false).unwrap();
                sparse.direct = false;
            }
            let mut expected = Vec::new();
            for piece in pieces {
                match piece {
                    Piece::Zeros(length) => {
                        sparse.write(&vec![0; length]).unwrap();
                        expected.resize(expected.len() + length, 0);
                    }
                    Piece::Same(byte, length) => {
                        sparse.write(&vec![byte; length]).unwrap();
                        expected.resize(expected.len() + length, byte);
                    }
                    Piece::HoleInSource(length) => {
                        sparse.write_zeros(length as u64).unwrap();
                        expected.resize(expected.len() + length, 0);
                    }
                }
            }
            let (size, stored) = sparse.finish().unwrap();
            let read = std::fs::read(&path).unwrap();
            prop_assert_eq!(size, expected.len() as u64);
            prop_assert!(read == expected);
            let nonzero: usize = expected
                .chunks(BLOCK)
                .filter(|block| block.iter().any(|byte| *byte != 0))
                .map(<[u8]>::len)
                .sum();
            prop_assert_eq!(stored, nonzero as u64);
            if nonzero == 0 {
                prop_assert_eq!(path.metadata().unwrap().blocks(), 0);
            }
        }
    }
}
