//! Moving rows from one store to another: which tables there are, and in which order their rows come. Ids, numbers and
//! times stay as they are.

/// A table that is moved. A row comes after the rows that it refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Table {
    Folders,
    Blobs,
    BlobChecksums,
    BlobCandidates,
    Tombstones,
    ComputeImages,
    DesktopImages,
    FormerNames,
    Operations,
    AuditEvents,
    Quotas,
    Identity,
    Installation,
}

impl Table {
    pub(crate) const ALL: [Self; 13] = [
        Self::Folders,
        Self::Blobs,
        Self::BlobChecksums,
        Self::BlobCandidates,
        Self::Tombstones,
        Self::ComputeImages,
        Self::DesktopImages,
        Self::FormerNames,
        Self::Operations,
        Self::AuditEvents,
        Self::Quotas,
        Self::Identity,
        Self::Installation,
    ];
}

/// A value of a column.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Null,
    Integer(i64),
    Text(String),
    Bytes(Vec<u8>),
}

/// Rows of one table. The columns are in the order in which the store that takes them names them.
#[derive(Debug)]
pub(crate) struct Rows {
    pub table: Table,
    pub rows: Vec<Vec<Value>>,
}

/// The state of a database that an installation is to move into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TargetState {
    /// It has no rows.
    Empty,
    /// It has the rows of the installation, which has moved.
    Migrated,
    /// It has other rows: a server has worked with it.
    Used,
}
