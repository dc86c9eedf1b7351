//! Sources of imports. Knows where the bytes of an import are, and which of them may be read. Never mentions where the
//! bytes go, or what is in them.

pub(crate) mod extents;
mod folder;

pub(crate) use folder::{FileUri, ImportFolder, SourceError};
