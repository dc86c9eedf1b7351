//! Limits of what folders may hold, free of any SQL.

use std::fmt;

/// A quantity that is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Metric {
    DesktopImagesCount = 1,
    /// Bytes: the sum of the images' storage sizes.
    DesktopImagesSize = 2,
    ComputeImagesCount = 3,
    /// Bytes: the sum of the images' storage sizes.
    ComputeImagesSize = 4,
}

impl Metric {
    pub(crate) const ALL: [Self; 4] = [
        Self::DesktopImagesCount,
        Self::DesktopImagesSize,
        Self::ComputeImagesCount,
        Self::ComputeImagesSize,
    ];

    /// The name that callers know it by.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::DesktopImagesCount => "vdi.desktopImages.count",
            Self::DesktopImagesSize => "vdi.desktopImages.size",
            Self::ComputeImagesCount => "compute.images.count",
            Self::ComputeImagesSize => "compute.images.size",
        }
    }

    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|metric| metric.name() == name)
    }

    pub(crate) fn from_number(number: i64) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|metric| *metric as i64 == number)
    }
}

/// The scope of a limit. All folders together come first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum QuotaScope {
    /// All folders together.
    Total,
    Folder(String),
}

impl fmt::Display for QuotaScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(id) => write!(f, "folder {id}"),
            Self::Total => f.write_str("all folders"),
        }
    }
}

/// A limit that stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Quota {
    pub scope: QuotaScope,
    pub metric: Metric,
    pub limit: i64,
    pub used: i64,
}

/// A limit that stands in the way of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExceededQuota {
    pub metric: Metric,
    pub scope: QuotaScope,
    pub limit: i64,
    pub used: i64,
    /// How much more the change would take; none where that is not known yet.
    pub requested: Option<i64>,
}
