//! Random access to bytes, and the two ways of having it: an open file, and memory.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use rustix::fs::SeekFrom;
use rustix::io::Errno;

use crate::FormatError;

/// Random access to the bytes of a content.
pub trait ReadAt {
    /// The length of the content in bytes. It does not change.
    fn len(&self) -> u64;

    /// Fills the buffer with the bytes from the offset on.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::UnexpectedEof`] where the content ends before the buffer is full, and those of the storage.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;

    /// The first area at or after the offset that may hold anything but zeros. None where all that follows reads as
    /// zeros. What cannot tell holes from data calls everything data.
    fn next_data(&self, offset: u64) -> Option<Range<u64>> {
        (offset < self.len()).then(|| offset..self.len())
    }

    /// Whether the content has no bytes at all.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// An open file with the length it had when it was opened.
#[derive(Debug)]
pub struct FileReader {
    file: File,
    length: u64,
}

impl FileReader {
    /// Takes an open regular file. Reading does not depend on its cursor, which the search for holes moves.
    ///
    /// # Errors
    ///
    /// Those of asking the file for its length.
    pub fn new(file: File) -> io::Result<FileReader> {
        let length = file.metadata()?.len();
        Ok(FileReader { file, length })
    }
}

impl ReadAt for FileReader {
    fn len(&self) -> u64 {
        self.length
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }

    fn next_data(&self, offset: u64) -> Option<Range<u64>> {
        let start = match rustix::fs::seek(&self.file, SeekFrom::Data(offset)) {
            Ok(start) => start,
            Err(Errno::NXIO) => return None,
            // A file system that does not know its holes.
            Err(_) => offset,
        };
        let end = rustix::fs::seek(&self.file, SeekFrom::Hole(start)).unwrap_or(self.length);
        (start < self.length).then(|| start..end.clamp(start + 1, self.length))
    }
}

impl ReadAt for [u8] {
    fn len(&self) -> u64 {
        <[u8]>::len(self) as u64
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let source = usize::try_from(offset)
            .ok()
            .and_then(|start| Some(start..start.checked_add(buffer.len())?))
            .and_then(|range| self.get(range))
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(source);
        Ok(())
    }
}

impl ReadAt for Vec<u8> {
    fn len(&self) -> u64 {
        self.as_slice().len() as u64
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.as_slice().read_exact_at(buffer, offset)
    }
}

/// At most `limit` bytes from the offset on; fewer where the content ends before.
pub(crate) fn read_up_to<R: ReadAt + ?Sized>(
    content: &R,
    offset: u64,
    limit: usize,
) -> Result<Vec<u8>, FormatError> {
    let available = content.len().saturating_sub(offset);
    let mut buffer = vec![0; limit.min(usize::try_from(available).unwrap_or(limit))];
    if !buffer.is_empty() {
        content.read_exact_at(&mut buffer, offset)?;
    }
    Ok(buffer)
}

/// A large area is read in pieces of this many bytes.
pub(crate) const PIECE: usize = 64 * 1024;

/// Hands an area of the content to `visit` piece by piece, so that memory stays bounded.
pub(crate) fn for_each_piece<R: ReadAt + ?Sized>(
    content: &R,
    offset: u64,
    length: u64,
    mut visit: impl FnMut(&[u8]) -> Result<(), FormatError>,
) -> Result<(), FormatError> {
    let mut buffer = vec![0; usize::try_from(length).map_or(PIECE, |length| length.min(PIECE))];
    let mut done = 0;
    while done < length {
        let left = usize::try_from(length - done).unwrap_or(PIECE);
        let piece = left.min(buffer.len());
        let Some(target) = buffer.get_mut(..piece) else {
            break;
        };
        content.read_exact_at(target, offset.saturating_add(done))?;
        visit(target)?;
        done += piece as u64;
    }
    Ok(())
}

/// Whether all bytes are zero. Whole blocks are looked at before any decision, which processors do fastest.
pub fn is_zero(bytes: &[u8]) -> bool {
    bytes
        .chunks(512)
        .all(|block| block.iter().fold(0, |sum, byte| sum | byte) == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_of_a_file_are_passed_over_and_all_else_is_data() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(3 << 20).unwrap();
        file.write_all_at(b"x", (1 << 20) + 5).unwrap();
        let file = FileReader::new(file).unwrap();
        let data = file.next_data(0).unwrap();
        assert!(data.contains(&((1 << 20) + 5)), "{data:?}");
        for (offset, expected) in [
            ((1 << 20) + 5, true),
            (3 << 20, false),
            (u64::MAX / 2, false),
        ] {
            assert_eq!(file.next_data(offset).is_some(), expected, "{offset}");
        }
        let bytes = vec![0; 10];
        assert_eq!(bytes.next_data(3), Some(3..10));
        assert_eq!(bytes.next_data(10), None);
    }

    #[test]
    fn one_bit_anywhere_is_not_zero() {
        let mut bytes = vec![0; 1300];
        assert!(is_zero(&bytes) && is_zero(&[]));
        for index in [0, 511, 512, 1299] {
            bytes[index] = 0x80;
            assert!(!is_zero(&bytes), "{index}");
            bytes[index] = 0;
        }
    }

    #[test]
    fn a_file_and_its_bytes_read_alike() {
        let bytes: Vec<u8> = (0..=255).collect();
        let mut file = tempfile::tempfile().unwrap();
        io::Write::write_all(&mut file, &bytes).unwrap();
        let file = FileReader::new(file).unwrap();
        assert_eq!(ReadAt::len(&file), 256);
        for (offset, length) in [(0, 256), (255, 1), (100, 7), (256, 0)] {
            let mut from_file = vec![0; length];
            let mut from_memory = vec![0; length];
            file.read_exact_at(&mut from_file, offset).unwrap();
            bytes.read_exact_at(&mut from_memory, offset).unwrap();
            assert_eq!(from_file, from_memory);
        }
        for (offset, length) in [(0, 257), (256, 1), (u64::MAX - 1, 1)] {
            let mut buffer = vec![0; length];
            assert!(file.read_exact_at(&mut buffer, offset).is_err());
            let error = bytes.read_exact_at(&mut buffer, offset).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        }
    }

    #[test]
    fn pieces_together_are_the_area() {
        let bytes: Vec<u8> = (0..200_000u32).map(|number| number as u8).collect();
        let mut collected = Vec::new();
        for_each_piece(&bytes, 3, 190_000, |piece| {
            assert!(piece.len() <= PIECE);
            collected.extend_from_slice(piece);
            Ok(())
        })
        .unwrap();
        assert_eq!(collected, bytes[3..190_003]);
    }

    #[test]
    fn reading_up_to_a_limit_stops_at_the_end() {
        let bytes = vec![7; 10];
        assert_eq!(read_up_to(&bytes, 8, 512).unwrap(), [7, 7]);
        assert_eq!(read_up_to(&bytes, 2, 3).unwrap(), [7, 7, 7]);
        assert!(read_up_to(&bytes, 11, 3).unwrap().is_empty());
    }
}
