//! The examination of a blob: all of its bytes are read, for its digest and its checksums.

use std::io;

use sha2::{Digest, Sha256};

use super::checksums::{Checksums, Summing};
use super::{Error, Unchecked};

const READ_SIZE: u64 = 1 << 20;

/// The state in which a reading of all bytes of a blob found them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Examined {
    pub sha256: [u8; 32],
    pub checksums: Checksums,
}

/// Reads all of a blob, and tells what it is now. `progress` is given the bytes of each step, and ends the reading where
/// it returns false: the result is then none. Blocks.
///
/// # Errors
/// [`Error::WrongSize`] where the blob is cut meanwhile, [`Error::Unreadable`], and those that the store of the blob
/// tells of.
pub(crate) fn examine(
    blob: &Unchecked,
    mut progress: impl FnMut(u64) -> bool,
) -> Result<Option<Examined>, Error> {
    let (mut digest, mut summing) = (Sha256::new(), Summing::default());
    let size = blob.len();
    let mut buffer = vec![0; READ_SIZE.min(size) as usize];
    let mut offset = 0;
    while offset < size {
        let count = READ_SIZE.min(size - offset);
        let part = &mut buffer[..count as usize];
        blob.read_exact_at(part, offset)
            .map_err(|error| failed(error, offset, size))?;
        digest.update(&*part);
        summing.data(part);
        offset += count;
        if !progress(count) {
            return Ok(None);
        }
    }
    Ok(Some(Examined {
        sha256: digest.finalize().into(),
        checksums: summing.finish(),
    }))
}

/// The error of a read: that of the store, if it has one to tell, or else one of the storage.
fn failed(error: io::Error, offset: u64, size: u64) -> Error {
    match error.downcast::<Error>() {
        Ok(told) => told,
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Error::WrongSize {
            found: offset,
            size,
        },
        Err(error) => Error::Unreadable { offset, error },
    }
}
