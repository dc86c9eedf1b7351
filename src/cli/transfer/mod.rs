//! The bytes of images on their way: uploads, downloads, and the digests that verify them.

mod download;
mod headers;
mod upload;

pub(crate) use download::{Download, Sink, download, fetch, request};
pub(crate) use upload::{Upload, operation, upload};

/// How much is read or written at a time.
const PIECE: usize = 1 << 20;
