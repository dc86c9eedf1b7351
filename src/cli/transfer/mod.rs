//! Uploads and downloads by the command line, and the digests that verify them.

mod download;
mod headers;
mod upload;

pub(crate) use download::{Download, Sink, download, fetch, request};
pub(crate) use upload::{Upload, operation, upload};

/// How much is read or written at a time.
const PIECE: usize = 1 << 20;
