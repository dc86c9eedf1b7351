//! The inspection of a disk image that begins while its bytes arrive.

use crate::{Format, FormatError, Inspection, Options, ReadAt, Stop, qcow2, raw};

/// Takes the bytes of a content in their order, and does beforehand what [`Follower::inspect`] would take long for:
/// compressed clusters of a qcow2 image are decompressed as they pass by. Its memory is below 64 MiB, and a few MiB
/// for an image of `qemu-img`. Two threads work at most: the caller's and one more.
pub struct Follower(qcow2::Follower);

impl Follower {
    /// A disk of more than `largest_disk` bytes is one that the caller refuses: nothing is decompressed for it.
    pub fn new(stop: Stop, largest_disk: u64) -> Follower {
        Follower(qcow2::Follower::new(stop, largest_disk))
    }

    /// Takes the next bytes. Blocking, for some ten milliseconds where there is something to decompress.
    pub fn data(&mut self, bytes: &[u8]) {
        self.0.data(bytes);
    }

    /// Takes this many zeros as the next bytes.
    pub fn zeros(&mut self, count: u64) {
        self.0.zeros(count);
    }

    /// Whether the bytes to come are of no interest, so that they need not be brought here.
    pub fn is_idle(&self) -> bool {
        self.0.is_idle()
    }

    /// As [`crate::inspect_with`], for the content whose bytes have been taken; all of them, or as many as you like.
    ///
    /// # Errors
    ///
    /// [`FormatError::Stopped`] where the [`Stop`] asks for it, and those of [`crate::inspect`].
    pub fn inspect<R: ReadAt + Sync + ?Sized>(
        self,
        content: &R,
        options: Options,
    ) -> Result<Inspection, FormatError> {
        if content.is_empty() {
            return Err(FormatError::Empty);
        }
        if qcow2::is_qcow2(content)? {
            let virtual_size = qcow2::inspect(content, self.0)?;
            return Ok(Inspection {
                format: Format::Qcow2,
                virtual_size,
                partition_table: None,
                notes: Vec::new(),
            });
        }
        raw::inspect(content, options)
    }
}
