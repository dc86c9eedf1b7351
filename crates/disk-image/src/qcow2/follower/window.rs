//! The bytes that have arrived last, as far as they are needed.

use std::io;

use super::super::decompression::{Data, Source};
use crate::{FormatError, ReadAt};

/// A part of the content: up to the last byte that has arrived, or nothing.
#[derive(Default)]
pub(super) struct Window {
    bytes: Vec<u8>,
    start: u64,
}

impl Window {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Takes the next bytes, which begin at the offset, from `wanted` on.
    pub(super) fn take(&mut self, offset: u64, bytes: &[u8], wanted: u64) {
        if self.bytes.is_empty() {
            self.start = offset.max(wanted);
        }
        let skipped = usize::try_from(self.start.saturating_sub(offset)).unwrap_or(usize::MAX);
        self.bytes
            .extend_from_slice(bytes.get(skipped..).unwrap_or_default());
    }

    /// Drops what lies before the offset.
    pub(super) fn drop_before(&mut self, offset: u64) {
        let count = usize::try_from(offset.saturating_sub(self.start)).unwrap_or(usize::MAX);
        if count >= self.bytes.len() {
            self.clear();
        } else {
            self.bytes.drain(..count);
            self.start += count as u64;
        }
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
    }

    pub(super) fn get(&self, offset: u64, length: u64) -> Option<&[u8]> {
        let start = usize::try_from(offset.checked_sub(self.start)?).ok()?;
        let end = start.checked_add(usize::try_from(length).ok()?)?;
        self.bytes.get(start..end)
    }
}

impl Source for Window {
    fn bytes<'a>(&'a self, data: &Data, _: &'a mut Vec<u8>) -> Result<&'a [u8], FormatError> {
        let bytes = self.get(data.offset, data.length);
        bytes.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof).into())
    }
}

/// The beginning of a content whose length is not known yet.
pub(super) struct Beginning<'a>(pub(super) &'a [u8]);

impl ReadAt for Beginning<'_> {
    fn len(&self) -> u64 {
        i64::MAX.unsigned_abs()
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(buffer, offset)
    }
}
