//! Knows where bytes to import come from, and what may be read there. Never mentions where they
//! go, nor what is in them.

pub(crate) mod extents;
mod folder;

pub(crate) use folder::{FileUri, ImportFolder, SourceError};
