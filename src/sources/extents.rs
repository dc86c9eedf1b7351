//! The extents of data in a sparse file, so that its holes need not be read.

use std::fs::File;
use std::io;
use std::ops::Range;

use rustix::fs::SeekFrom;
use rustix::io::Errno;

/// The next part of a file that has to be read, at or after `position`, which is below `length`. What lies before it
/// is a hole.
///
/// A hole up to the end of the file is a part to be read: some file systems answer that no data follow where there
/// are, and a file that was cut meanwhile has the same answer.
pub(crate) fn next_data(file: &File, position: u64, length: u64) -> io::Result<Range<u64>> {
    next_data_by(position, length, |from| rustix::fs::seek(file, from))
}

fn next_data_by(
    position: u64,
    length: u64,
    seek: impl Fn(SeekFrom) -> Result<u64, Errno>,
) -> io::Result<Range<u64>> {
    let data = match seek(SeekFrom::Data(position)) {
        Ok(data) if data < length => data.max(position),
        // No data up to the length that the file had.
        Ok(_) | Err(Errno::NXIO) => return Ok(position..length),
        // A file system that knows no holes.
        Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(position..length),
        Err(error) => return Err(error.into()),
    };
    let hole = seek(SeekFrom::Hole(data)).unwrap_or(length);
    // One byte at least, so that the reader gets on.
    Ok(data..hole.clamp(data + 1, length))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn holes_between_data_are_passed_over_and_the_last_one_is_read() {
        let data = |data: Result<u64, Errno>, hole: Result<u64, Errno>| {
            next_data_by(10, 100, |from| match from {
                SeekFrom::Data(_) => data,
                _ => hole,
            })
        };
        for (found, hole, expected) in [
            (Ok(10), Ok(30), 10..30),
            (Ok(20), Ok(30), 20..30),
            (Ok(20), Ok(100), 20..100),
            // The file has grown.
            (Ok(20), Ok(200), 20..100),
            (Ok(150), Ok(200), 10..100),
            // A hole up to the end, and a file that was cut.
            (Err(Errno::NXIO), Err(Errno::NXIO), 10..100),
            (Ok(20), Err(Errno::NXIO), 20..100),
            (Err(Errno::INVAL), Err(Errno::INVAL), 10..100),
            (Err(Errno::OPNOTSUPP), Err(Errno::OPNOTSUPP), 10..100),
            (Ok(20), Ok(20), 20..21),
        ] {
            assert_eq!(data(found, hole).unwrap(), expected, "{found:?} {hole:?}");
        }
        assert!(data(Err(Errno::IO), Ok(30)).is_err());
    }

    #[test]
    fn all_data_of_a_file_are_in_its_parts_and_what_was_cut_is_no_hole() {
        const LENGTH: u64 = 4 << 20;
        let file = tempfile::tempfile().unwrap();
        file.set_len(LENGTH).unwrap();
        for place in [0, 1 << 20, (3 << 20) - 1] {
            file.write_all_at(b"data", place).unwrap();
        }
        let mut read = vec![0; LENGTH as usize];
        let mut position = 0;
        while position < LENGTH {
            let Range { start, end } = next_data(&file, position, LENGTH).unwrap();
            file.read_exact_at(&mut read[start as usize..end as usize], start)
                .unwrap();
            position = end;
        }
        let mut expected = vec![0; LENGTH as usize];
        file.read_exact_at(&mut expected, 0).unwrap();
        assert!(read == expected);
        file.set_len(1 << 20).unwrap();
        assert_eq!(next_data(&file, 2 << 20, LENGTH).unwrap(), 2 << 20..LENGTH);
    }
}
